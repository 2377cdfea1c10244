//! The calls of a connection.
//!
//! Nearly every check is answered as soon as it is looked at. A task for each, as
//! servers make them, would cost more than the check. So the calls that have come
//! in together are looked at once in the task of their connection, one after the
//! other, and their answers leave together. A call that has to wait then, for the
//! store or for the rest of its message, becomes a task of its own: no call waits
//! for another.

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

/// The calls that have come in and were not looked at yet. Clones share them.
#[derive(Clone)]
pub(super) struct InlineExecutor {
    waiting: Arc<Mutex<Vec<Call>>>,
    meter: Arc<Meter>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for InlineExecutor {
    fn execute(&self, call: F) {
        self.waiting().push(Box::pin(call));
    }
}

impl InlineExecutor {
    /// Those of a connection that has this meter.
    pub(super) fn new(meter: Arc<Meter>) -> Self {
        Self { waiting: Arc::default(), meter }
    }

    /// Drives a connection to its end, and answers its calls whenever it has read
    /// all that has come in, or its turn is over. May be cancelled, and called again.
    pub(super) async fn answered_in<C: Future>(&self, mut connection: Pin<&mut C>) -> C::Output {
        let mut together = Vec::new();
        poll_fn(|context| {
            self.meter.begin_turn();
            loop {
                let progress = connection.as_mut().poll(context);
                mem::swap(&mut together, &mut *self.waiting());
                if progress.is_ready() || together.is_empty() {
                    return progress;
                }
                together.drain(..).for_each(look_at);
            }
        })
        .await
    }

    /// Nothing panics while it holds this lock.
    fn waiting(&self) -> MutexGuard<'_, Vec<Call>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers a call, or leaves it to a task of its own. A bug in it ends it alone.
fn look_at(mut call: Call) {
    let looked = catch_unwind(AssertUnwindSafe(|| call.as_mut().now_or_never()));
    if let Ok(None) = looked {
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

    /// A connection that brings these calls, all at once, and then ends when `end`
    /// is opened.
    async fn connection(calls: &InlineExecutor, bring: Vec<Call>, end: &Semaphore) {
        for call in bring {
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
    async fn calls_that_need_not_wait_are_answered_in_the_task_of_their_connection() {
        let (calls, end, count) = (calls(), Semaphore::new(0), Arc::default());
        let bring = (0..3).map(|_| counting(&count)).collect();
        let mut connection = pin!(connection(&calls, bring, &end));
        let mut driven = pin!(calls.answered_in(connection.as_mut()));
        assert_eq!(futures::poll!(driven.as_mut()), Poll::Pending);
        assert_eq!(count.load(Relaxed), 3);
        end.add_permits(1);
        driven.await;
    }

    #[tokio::test]
    async fn a_call_that_has_to_wait_holds_up_no_other_and_ends_by_itself() {
        let (calls, end, count) = (calls(), Semaphore::new(0), Arc::default());
        let gate = Arc::new(Semaphore::new(0));
        let (opened, counted) = (Arc::clone(&gate), counting(&count));
        let waiting: Call = Box::pin(async move {
            let _ = opened.acquire().await;
            counted.await;
        });
        let mut connection = pin!(connection(&calls, vec![waiting, counting(&count)], &end));
        let mut driven = pin!(calls.answered_in(connection.as_mut()));
        assert_eq!(futures::poll!(driven.as_mut()), Poll::Pending);
        assert_eq!(count.load(Relaxed), 1);
        gate.add_permits(1);
        while count.load(Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_call_ends_neither_its_connection_nor_other_calls() {
        let (calls, end, count) = (calls(), Semaphore::new(0), Arc::default());
        let bad: Call = Box::pin(async { panic!("on purpose") });
        let mut connection = pin!(connection(&calls, vec![bad, counting(&count)], &end));
        let mut driven = pin!(calls.answered_in(connection.as_mut()));
        assert_eq!(futures::poll!(driven.as_mut()), Poll::Pending);
        assert_eq!(count.load(Relaxed), 1);
        end.add_permits(1);
        driven.await;
    }
}
