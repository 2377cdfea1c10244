//! The threads that serve connections.
//!
//! Each has a runtime of its own for one thread, so that what happens to a request
//! happens on one core, without a lock or a wake-up between cores. Nothing else runs
//! there: whatever goes on behind requests has a runtime for itself, and can hold up
//! no request that is answered from memory.

use std::{io, num::NonZeroUsize, sync::Arc, thread};

use tokio::runtime::{self, Handle};
use tokio_util::sync::CancellationToken;

use crate::tasks::Tasks;

/// Where connections are served. Clones are the same threads, which end when the
/// last clone is dropped, with whatever still runs there.
#[derive(Debug, Clone)]
pub struct Workers(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// One more reference for each connection.
    connections: Arc<()>,
    /// Ends the thread when it is dropped.
    _end: tokio_util::sync::DropGuard,
}

impl Workers {
    /// Starts so many threads with this name and a number. Fails when the operating
    /// system gives none.
    pub fn start(name: &str, count: NonZeroUsize) -> io::Result<Self> {
        let workers = (0..count.get()).map(|number| Worker::start(format!("{name}-{number}")));
        workers.collect::<Result<_, _>>().map(Self)
    }

    /// Runs the task of a connection on the thread that has the fewest.
    pub(super) fn spawn<F>(&self, tasks: &Tasks, name: &'static str, connection: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // There is one at least.
        let Some(worker) = self.0.iter().min_by_key(|worker| worker.load()) else { return };
        let counted = Arc::clone(&worker.connections);
        tasks.spawn_on(&worker.runtime, name, async move {
            connection.await;
            drop(counted);
        });
    }
}

impl Worker {
    fn start(name: String) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let end = CancellationToken::new();
        let ended = end.clone();
        thread::Builder::new().name(name).spawn(move || runtime.block_on(ended.cancelled()))?;
        Ok(Self { runtime: handle, connections: Arc::default(), _end: end.drop_guard() })
    }

    fn load(&self) -> usize {
        Arc::strong_count(&self.connections)
    }
}
