//! A bounded number of connections, and calls on them that end in time.

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

/// The longest pause between two tries to get a lock. A writer holds it for
/// some milliseconds.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// A fixed number of places for calls of one kind. A call has its place for as
/// long as its thread runs, even when its caller has gone, so that there are
/// never more threads than places, nor more connections.
#[derive(Debug)]
pub(super) struct Lane {
    source: Arc<Source>,
    role: Role,
    places: Arc<Semaphore>,
    size: NonZeroUsize,
    /// Never more than there are places.
    idle: Mutex<Vec<Connection>>,
}

impl Lane {
    /// A lane that begins with the given connections. More are opened when they
    /// are needed.
    pub(super) fn new(
        source: Arc<Source>,
        role: Role,
        size: NonZeroUsize,
        idle: Vec<Connection>,
    ) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(size.get()));
        Arc::new(Self { source, role, places, size, idle: Mutex::new(idle) })
    }

    /// Runs `work` on a connection, in a thread of its own, for at most
    /// `limit`, waiting included.
    ///
    /// May be cancelled: `work` is then interrupted at its next step.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        work: impl FnOnce(&mut rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let term = Term::starting(Instant::now(), limit);
        let place = timeout_at(term.patience, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            let detail = "every connection to the embedded store is in use; \
                if this goes on, raise `store.guard.max_in_flight`";
            return Err(StoreError::new(StoreErrorKind::Saturated, detail));
        };

        let (lane, in_thread) = (Arc::clone(self), Arc::clone(&term));
        // Dropped with this future: tells the thread that nobody waits for it.
        let _caller = Caller(Arc::clone(&term));
        let running = task::spawn_blocking(move || {
            let outcome = lane.call(&in_thread, work);
            drop(place);
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

    /// Waits for the calls that are under way, until `limit` at most, and closes the idle
    /// connections. No further call finds a place.
    pub(super) async fn close(&self, limit: Instant) {
        let all = u32::try_from(self.size.get()).unwrap_or(u32::MAX);
        if let Ok(Ok(places)) = timeout_at(limit, self.places.acquire_many(all)).await {
            places.forget();
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
        let outcome = connection.obey(term).and_then(|()| work(&mut connection.db));
        if !outcome.as_ref().is_err_and(error::ends_connection) {
            self.idle().push(connection);
        }
        outcome.map_err(|error| error::translate(self.source.path(), &error))
    }

    /// An idle connection, or a new one, if the file is still the same.
    fn connection(&self, term: &Arc<Term>) -> Result<Connection, StoreError> {
        self.source.unchanged()?;
        // A statement of its own, so that the lock is not held any longer.
        let idle = self.idle().pop();
        idle.map_or_else(|| self.source.connect(self.role, term), Ok)
    }

    /// Nothing panics while it holds this lock.
    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a call may go on.
#[derive(Debug)]
pub(super) struct Term {
    /// Until when it waits for a place or a lock: three quarters of the time,
    /// so that waiting in vain is told apart from a slow query.
    patience: Instant,
    end: Instant,
    abandoned: AtomicBool,
}

impl Term {
    /// A term that begins at `now`.
    pub(super) fn starting(now: Instant, limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            patience: now + limit * 3 / 4,
            end: now + limit,
            abandoned: AtomicBool::new(false),
        })
    }

    /// Whether the call must end, because it is late or nobody waits for it.
    pub(super) fn is_over(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed) || Instant::now() >= self.end
    }

    /// Waits before the next try to get a lock. False when it has been too
    /// long. `tries` counts from 0.
    pub(super) fn pause(&self, tries: i32) -> bool {
        let left = self.patience.saturating_duration_since(Instant::now());
        if left.is_zero() || self.is_over() {
            return false;
        }
        let growing = Duration::from_millis(u64::try_from(tries).unwrap_or(0).saturating_add(1));
        #[expect(clippy::disallowed_methods, reason = "this thread is the call's own")]
        thread::sleep(growing.min(LONGEST_PAUSE).min(left));
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
