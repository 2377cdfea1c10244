//! Executes the calls of a connection inline.
//!
//! Nearly every check completes in its first poll; a task per call, as servers usually spawn, would
//! cost more than the check. So calls that arrived together are polled once in the task of their
//! connection, one after the other, and their responses are sent together. A call that is still
//! pending, because it waits for the store or for the rest of its message, becomes its own task: no
//! call waits for another.

use std::{
    future::poll_fn,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::FutureExt;
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;

use super::meter::Meter;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The received calls that have not been polled yet. Clones share them.
#[derive(Clone)]
pub(super) struct InlineExecutor {
    queued: Arc<Mutex<Vec<Call>>>,
    meter: Arc<Meter>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for InlineExecutor {
    fn execute(&self, call: F) {
        self.queued().push(Box::pin(call));
    }
}

impl InlineExecutor {
    /// The executor of the connection that `meter` belongs to.
    pub(super) fn new(meter: Arc<Meter>) -> Self {
        Self { queued: Arc::default(), meter }
    }

    /// Drives a connection to its end. Polls its calls whenever it has read all received data, or
    /// its turn is over. May be cancelled, and called again.
    pub(super) async fn drive<C: Future>(&self, mut connection: Pin<&mut C>) -> C::Output {
        let mut batch = Vec::new();
        poll_fn(|context| {
            self.meter.begin_turn();
            loop {
                let progress = connection.as_mut().poll(context);
                mem::swap(&mut batch, &mut *self.queued());
                if progress.is_ready() || batch.is_empty() {
                    return progress;
                }
                batch.drain(..).for_each(poll_or_spawn);
            }
        })
        .await
    }

    /// Nothing panics while it holds this lock.
    fn queued(&self) -> MutexGuard<'_, Vec<Call>> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Polls a call once and spawns it if it is pending. A panic in it affects no other call.
fn poll_or_spawn(mut call: Call) {
    let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().now_or_never()));
    if let Ok(None) = polled {
        TokioExecutor::new().execute(call);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        task::Poll,
    };

    use tokio::sync::Semaphore;

    use super::{super::meter::Budget, *};

    /// A connection that receives `incoming` calls at once, and ends when `end` gets a permit.
    async fn connection(calls: &InlineExecutor, incoming: Vec<Call>, end: &Semaphore) {
        for call in incoming {
            calls.execute(call);
        }
        let _ = end.acquire().await;
    }

    fn calls() -> InlineExecutor {
        InlineExecutor::new(Meter::new(Budget::new(0)))
    }

    fn counting(count: &Arc<AtomicUsize>) -> Call {
        let count = Arc::clone(count);
        Box::pin(async move {
            count.fetch_add(1, Relaxed);
        })
    }

    #[tokio::test]
    async fn calls_that_do_not_wait_complete_in_the_task_of_their_connection() {
        let (calls, end, count) = (calls(), Semaphore::new(0), Arc::default());
        let incoming = (0..3).map(|_| counting(&count)).collect();
        let mut connection = pin!(connection(&calls, incoming, &end));
        let mut driven = pin!(calls.drive(connection.as_mut()));
        assert_eq!(futures::poll!(driven.as_mut()), Poll::Pending);
        assert_eq!(count.load(Relaxed), 3);
        end.add_permits(1);
        driven.await;
    }

    #[tokio::test]
    async fn pending_call_delays_no_other_and_completes_in_its_own_task() {
        let (calls, end, count) = (calls(), Semaphore::new(0), Arc::default());
        let gate = Arc::new(Semaphore::new(0));
        let (opened, counted) = (Arc::clone(&gate), counting(&count));
        let waiting: Call = Box::pin(async move {
            let _ = opened.acquire().await;
            counted.await;
        });
        let mut connection = pin!(connection(&calls, vec![waiting, counting(&count)], &end));
        let mut driven = pin!(calls.drive(connection.as_mut()));
        assert_eq!(futures::poll!(driven.as_mut()), Poll::Pending);
        assert_eq!(count.load(Relaxed), 1);
        gate.add_permits(1);
        while count.load(Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn panic_in_a_call_ends_neither_its_connection_nor_other_calls() {
        let (calls, end, count) = (calls(), Semaphore::new(0), Arc::default());
        let bad: Call = Box::pin(async { panic!("on purpose") });
        let mut connection = pin!(connection(&calls, vec![bad, counting(&count)], &end));
        let mut driven = pin!(calls.drive(connection.as_mut()));
        assert_eq!(futures::poll!(driven.as_mut()), Poll::Pending);
        assert_eq!(count.load(Relaxed), 1);
        end.add_permits(1);
        driven.await;
    }
}
