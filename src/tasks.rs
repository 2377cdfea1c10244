//! Background tasks: named, tracked, and joined before the process ends.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// Spawns tasks and waits for them. Clones share the same tasks.
#[derive(Debug, Clone)]
pub struct Tasks {
    home: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
    broken: CancellationToken,
}

impl Tasks {
    /// Tasks that run on the current runtime, wherever they are spawned from. Panics
    /// outside of a runtime.
    #[must_use]
    pub fn here() -> Self {
        let (tracker, stop, broken) = Default::default();
        Self { home: Handle::current(), tracker, stop, broken }
    }

    /// Runs a task to completion. A panic ends this task only.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_on(&self.home, name, task);
    }

    /// Like [`Tasks::spawn`], on another runtime.
    pub fn spawn_on<F>(&self, runtime: &Handle, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let span = tracing::debug_span!("task", name);
        let task = AssertUnwindSafe(task).catch_unwind().map(drop).instrument(span);
        self.tracker.spawn_on(task, runtime);
    }

    /// Tracks a future that runs elsewhere: [`Tasks::stop`] waits for it too.
    pub fn track<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        self.tracker.track_future(future)
    }

    /// Runs a task until it ends or [`Tasks::stop`] is called. For loops that never end:
    /// if one panics, the process is [broken](Tasks::is_broken).
    pub fn spawn_until_stopped<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { stop, broken, .. } = self.clone();
        self.spawn(name, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                ended = AssertUnwindSafe(task).catch_unwind() => if ended.is_err() {
                    tracing::error!(task = name, "a task that must never end panicked; restart this instance");
                    broken.cancel();
                },
            }
        });
    }

    /// Whether a loop has panicked, so the process should be replaced.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.is_cancelled()
    }

    /// Waits until a loop has panicked.
    pub async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Stops the loops and waits for all tasks. Returns false if some have not ended within
    /// `limit`.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stop_ends_loops_and_waits_for_the_rest() {
        let tasks = Tasks::here();
        let (tx, mut rx) = tokio::sync::oneshot::channel();
        tasks.spawn_until_stopped("loop", std::future::pending());
        tasks.spawn("work", async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = tx.send(());
        });
        assert!(tasks.stop(Duration::from_secs(2)).await);
        assert_eq!(rx.try_recv(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn stop_waits_for_tracked_futures_until_dropped() {
        let tasks = Tasks::here();
        let tracked = tasks.track(std::future::pending::<()>());
        assert!(!tasks.stop(Duration::from_secs(1)).await);
        drop(tracked);
        assert!(tasks.stop(Duration::ZERO).await);
    }

    #[tokio::test(start_paused = true)]
    async fn stop_gives_up_at_its_limit() {
        let tasks = Tasks::here();
        tasks.spawn("stuck", std::future::pending());
        assert!(!tasks.stop(Duration::from_secs(1)).await);
    }

    #[tokio::test]
    async fn panic_ends_its_own_task_only() {
        let tasks = Tasks::here();
        tasks.spawn("bad", async { panic!("on purpose") });
        assert!(tasks.stop(Duration::from_secs(5)).await);
        assert!(!tasks.is_broken());
    }

    #[tokio::test]
    async fn panic_of_a_loop_breaks_the_process() {
        let tasks = Tasks::here();
        tasks.spawn_until_stopped("good", std::future::pending());
        tasks.spawn_until_stopped("bad", async { panic!("on purpose") });
        tasks.broken().await;
        assert!(tasks.is_broken());
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }
}
