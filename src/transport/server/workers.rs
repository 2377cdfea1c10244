//! The worker threads that serve connections.
//!
//! Each has its own single-threaded runtime, so that a request stays on one core, without locks or
//! wake-ups between cores. Nothing else runs there: background work has its own runtime and cannot
//! delay requests that are answered from memory.

use std::{io, num::NonZeroUsize, sync::Arc, thread};

use tokio::runtime::{self, Handle};
use tokio_util::sync::CancellationToken;

use crate::tasks::Tasks;

/// A pool of worker threads. Clones share the threads, which end when the last clone is dropped,
/// together with the tasks that still run there.
#[derive(Debug, Clone)]
pub struct Workers(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Has one more reference per connection.
    connections: Arc<()>,
    /// Ends the thread on drop.
    _end: tokio_util::sync::DropGuard,
}

impl Workers {
    /// Starts `count` worker threads, named `name` and a number. Fails when the operating system
    /// cannot start one.
    pub fn start(name: &str, count: NonZeroUsize) -> io::Result<Self> {
        let workers = (0..count.get()).map(|number| Worker::start(format!("{name}-{number}")));
        workers.collect::<Result<_, _>>().map(Self)
    }

    /// Runs the task of a connection on the worker with the fewest connections.
    pub(super) fn spawn<F>(&self, tasks: &Tasks, name: &'static str, connection: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // There is at least one worker.
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
        let cancelled = end.clone();
        thread::Builder::new().name(name).spawn(move || runtime.block_on(cancelled.cancelled()))?;
        Ok(Self { runtime: handle, connections: Arc::default(), _end: end.drop_guard() })
    }

    fn load(&self) -> usize {
        Arc::strong_count(&self.connections)
    }
}
