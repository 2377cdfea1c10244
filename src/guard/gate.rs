//! The breaker and the count of places, shared between tasks.
//!
//! Nothing here waits but for a lock that is held for some tens of
//! instructions. The tests compile this file a second time, on the locks and
//! atomics of `loom`: see `race.rs`.

use std::time::Duration;

use tokio::time::Instant;

use super::sync::{AtomicU8, Mutex, MutexGuard, Ordering, PoisonError};
use crate::{
    guard::{
        BreakerState, GuardConfig,
        breaker::{Breaker, Ticket, Transition, Why},
        outcome::Outcome,
    },
    store::{StoreError, StoreErrorKind},
};

/// In [`Gate::doubt`]: the last call that counts failed.
const LAST_FAILED: u8 = 1;

/// In [`Gate::doubt`]: the breaker is open.
const OPEN: u8 = 2;

/// In [`Gate::doubt`]: the breaker is half-open.
const HALF_OPEN: u8 = 4;

/// Who may go to the store.
#[derive(Debug)]
pub(super) struct Gate {
    /// What speaks against the store, 0 if nothing does. Written under the lock.
    doubt: AtomicU8,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    breaker: Breaker,
    taken: usize,
    last_failure: Option<StoreError>,
}

/// What is said to who wants a place now.
#[derive(Debug)]
pub(super) enum Admission {
    /// There is one. It is taken until the ticket comes back.
    Place(Ticket),
    /// There is none.
    Full {
        /// When there may be one even if none is given back.
        until: Option<Instant>,
    },
    /// The breaker refuses the call.
    Refused,
}

impl Gate {
    pub(super) fn new(
        config: &GuardConfig,
        jitter: fn(Duration) -> Duration,
        now: Instant,
    ) -> Self {
        let breaker = Breaker::new(config, jitter, now);
        let inner = Inner { breaker, taken: 0, last_failure: None };
        Self { doubt: AtomicU8::new(0), inner: Mutex::new(inner) }
    }

    /// Whether the breaker would admit a call. Takes no lock while it is closed.
    pub(super) fn admits(&self, now: impl FnOnce() -> Instant) -> bool {
        self.state() == BreakerState::Closed || self.lock().breaker.admits(now())
    }

    /// The state, as of the last call.
    pub(super) fn state(&self) -> BreakerState {
        match self.doubt.load(Ordering::Acquire) & !LAST_FAILED {
            OPEN => BreakerState::Open,
            HALF_OPEN => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        }
    }

    /// Whether anything speaks against the store.
    pub(super) fn in_doubt(&self) -> bool {
        self.doubt.load(Ordering::Acquire) != 0
    }

    /// How long until the store may be tried. `None` while the breaker is closed.
    pub(super) fn tries_in(&self, now: Instant) -> Option<Duration> {
        self.lock().breaker.tries_in(now)
    }

    /// How the store failed last, if it did. One that is too slow fails by
    /// time-out.
    pub(super) fn last_failure(&self) -> Option<StoreError> {
        self.lock().last_failure.clone()
    }

    /// Gives a place out, if the breaker admits the call and a place is free. The
    /// breaker counts the call only then.
    pub(super) fn admit(&self, now: Instant) -> (Admission, Option<Transition>) {
        let mut inner = self.lock();
        if !inner.breaker.admits(now) {
            return (Admission::Refused, None);
        }
        if inner.taken >= inner.breaker.places(now) {
            return (Admission::Full { until: inner.breaker.more_than(inner.taken) }, None);
        }
        let Some((ticket, transition)) = inner.breaker.admit(now) else {
            return (Admission::Refused, None);
        };
        inner.taken += 1;
        self.note(&inner, None);
        (Admission::Place(ticket), transition)
    }

    /// Takes a place back, and in how the call ended.
    pub(super) fn give_back(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
    ) -> Option<Transition> {
        let mut inner = self.lock();
        inner.taken -= 1;
        let transition = inner.breaker.ended(ticket, &outcome, now);
        let failed = match outcome {
            Outcome::Nothing => None,
            Outcome::Answered { .. } => Some(false),
            Outcome::Failed { error, .. } | Outcome::Crowded { error } => {
                inner.last_failure = Some(error);
                Some(true)
            }
        };
        if let Some(Transition::Opened { why: Why::Slowness(_), .. }) = transition {
            inner.last_failure =
                Some(StoreError::new(StoreErrorKind::Timeout, "the calls before took too long"));
        }
        self.note(&inner, failed);
        transition
    }

    /// Brings what can be read without the lock up to date.
    fn note(&self, inner: &Inner, failed: Option<bool>) {
        let before = self.doubt.load(Ordering::Relaxed) & LAST_FAILED;
        let last = failed.map_or(before, |failed| if failed { LAST_FAILED } else { 0 });
        let state = match inner.breaker.state() {
            BreakerState::Closed => 0,
            BreakerState::Open => OPEN,
            BreakerState::HalfOpen => HALF_OPEN,
        };
        self.doubt.store(last | state, Ordering::Release);
    }

    /// Nothing panics while it holds this lock, so that what a poisoned lock
    /// protects is whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
