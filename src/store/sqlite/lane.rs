//! Bulkhead: a bounded number of connections and threads, with calls that end in time.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    task,
    time::{Instant, timeout_at},
};

use super::{
    connection::{Connection, Role, Source},
    error,
};
use crate::store::{StoreError, StoreErrorKind};

/// Maximum pause between attempts to get a lock. A writer holds it for milliseconds.
const MAX_PAUSE: Duration = Duration::from_millis(10);

/// Bulkhead for calls of one kind. A call holds its permit for as long as its thread runs, even
/// if its caller is gone, so there are never more threads or connections than permits.
#[derive(Debug)]
pub(super) struct Lane {
    source: Arc<Source>,
    role: Role,
    permits: Arc<Semaphore>,
    size: NonZeroUsize,
    /// At most `size` connections.
    idle: Mutex<Vec<Connection>>,
}

impl Lane {
    /// Creates a lane with the given connections. More are opened on demand.
    pub(super) fn new(
        source: Arc<Source>,
        role: Role,
        size: NonZeroUsize,
        idle: Vec<Connection>,
    ) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(size.get()));
        Arc::new(Self { source, role, permits, size, idle: Mutex::new(idle) })
    }

    /// Runs `work` on a connection in a blocking thread, for at most `limit`, including the
    /// wait for a permit.
    ///
    /// Cancel-safe: interrupts `work` at its next step.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        work: impl FnOnce(&mut rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let term = Term::starting(Instant::now(), limit);
        let permit = timeout_at(term.patience, Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            let detail = "every connection to the embedded store is in use; \
                if this goes on, raise `store.guard.max_in_flight`";
            return Err(StoreError::new(StoreErrorKind::Saturated, detail));
        };

        let (lane, in_thread) = (Arc::clone(self), Arc::clone(&term));
        // Dropped with this future: signals that the caller is gone.
        let _caller = Caller(Arc::clone(&term));
        let running = task::spawn_blocking(move || {
            let outcome = lane.call(&in_thread, work);
            drop(permit);
            outcome
        });
        match timeout_at(term.end, running).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panicked)) => Err(StoreError::new(
                StoreErrorKind::Unreachable,
                format!("the query did not run to its end: {panicked}"),
            )),
            Err(_) => Err(out_of_time()),
        }
    }

    /// Waits for calls in progress, at most until `limit`, and closes the idle connections.
    /// Later calls get no permit.
    pub(super) async fn close(&self, limit: Instant) {
        let all = u32::try_from(self.size.get()).unwrap_or(u32::MAX);
        if let Ok(Ok(permits)) = timeout_at(limit, self.permits.acquire_many(all)).await {
            permits.forget();
        }
        self.idle().clear();
    }

    fn call<T>(
        &self,
        term: &Arc<Term>,
        work: impl FnOnce(&mut rusqlite::Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        // The thread may have started late.
        if term.is_over() {
            return Err(out_of_time());
        }
        let mut connection = self.connection(term)?;
        let outcome = connection.set_deadline(term).and_then(|()| work(&mut connection.db));
        if !outcome.as_ref().is_err_and(error::ends_connection) {
            self.idle().push(connection);
        }
        outcome.map_err(|error| error::translate(self.source.path(), &error))
    }

    /// Returns an idle connection or opens one, if the file is unchanged.
    fn connection(&self, term: &Arc<Term>) -> Result<Connection, StoreError> {
        self.source.unchanged()?;
        // A separate statement, so that the lock is released here.
        let idle = self.idle().pop();
        idle.map_or_else(|| self.source.connect(self.role, term), Ok)
    }

    /// Ignores poisoning: nothing panics while it holds this lock.
    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deadlines of a call.
#[derive(Debug)]
pub(super) struct Term {
    /// Deadline for permits and locks: three quarters of the limit, which distinguishes
    /// contention from a slow query.
    patience: Instant,
    end: Instant,
    abandoned: AtomicBool,
}

impl Term {
    /// Starts the limit at `now`.
    pub(super) fn starting(now: Instant, limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            patience: now + limit * 3 / 4,
            end: now + limit,
            abandoned: AtomicBool::new(false),
        })
    }

    /// Whether the call must end: it is late or its caller is gone.
    pub(super) fn is_over(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed) || Instant::now() >= self.end
    }

    /// Pauses before the next attempt to get a lock. Returns false after the deadline. `tries`
    /// counts from 0.
    pub(super) fn pause(&self, tries: i32) -> bool {
        let left = self.patience.saturating_duration_since(Instant::now());
        if left.is_zero() || self.is_over() {
            return false;
        }
        let growing = Duration::from_millis(u64::try_from(tries).unwrap_or(0).saturating_add(1));
        #[expect(clippy::disallowed_methods, reason = "runs on a blocking thread")]
        thread::sleep(growing.min(MAX_PAUSE).min(left));
        true
    }
}

struct Caller(Arc<Term>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Relaxed);
    }
}

fn out_of_time() -> StoreError {
    StoreError::new(StoreErrorKind::Timeout, "the embedded store did not answer in time")
}
