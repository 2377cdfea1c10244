//! The breaker and the count of permits, shared between tasks.
//!
//! Blocks on one lock only, which is held for some tens of instructions. The tests
//! compile this file a second time with the locks and atomics of `loom`: see
//! `race.rs`.

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

/// Bit of [`Gate::doubt`]: the last call with evidence about the store failed.
const LAST_FAILED: u8 = 1;

/// Bit of [`Gate::doubt`]: the breaker is open.
const OPEN: u8 = 2;

/// Bit of [`Gate::doubt`]: the breaker is half-open.
const HALF_OPEN: u8 = 4;

/// Decides which calls reach the store.
#[derive(Debug)]
pub(super) struct Gate {
    /// Evidence against the store, 0 if there is none. Written under the lock.
    doubt: AtomicU8,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    breaker: Breaker,
    in_flight: usize,
    last_failure: Option<StoreError>,
}

/// The answer to a request for a permit.
#[derive(Debug)]
pub(super) enum Admission {
    /// The permit is held until its ticket is released.
    Granted(Ticket),
    /// No permit is free.
    Full {
        /// When one becomes free even if none is released.
        until: Option<Instant>,
    },
    /// The breaker rejects the call.
    Refused,
}

impl Gate {
    pub(super) fn new(
        config: &GuardConfig,
        jitter: fn(Duration) -> Duration,
        now: Instant,
    ) -> Self {
        let breaker = Breaker::new(config, jitter, now);
        let inner = Inner { breaker, in_flight: 0, last_failure: None };
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

    /// Whether there is evidence against the store.
    pub(super) fn in_doubt(&self) -> bool {
        self.doubt.load(Ordering::Acquire) != 0
    }

    /// Time until the next probe. `None` while the breaker is closed.
    pub(super) fn tries_in(&self, now: Instant) -> Option<Duration> {
        self.lock().breaker.tries_in(now)
    }

    /// The last failure of the store, if any. A store that is too slow fails with a
    /// time-out.
    pub(super) fn last_failure(&self) -> Option<StoreError> {
        self.lock().last_failure.clone()
    }

    /// Grants a permit if the breaker admits the call and a permit is free. Only then
    /// does the breaker count the call.
    pub(super) fn admit(&self, now: Instant) -> (Admission, Option<Transition>) {
        let mut inner = self.lock();
        if !inner.breaker.admits(now) {
            return (Admission::Refused, None);
        }
        if inner.in_flight >= inner.breaker.permits(now) {
            return (Admission::Full { until: inner.breaker.more_than(inner.in_flight) }, None);
        }
        let Some((ticket, transition)) = inner.breaker.admit(now) else {
            return (Admission::Refused, None);
        };
        inner.in_flight += 1;
        self.publish(&inner, None);
        (Admission::Granted(ticket), transition)
    }

    /// Releases a permit and records the outcome of its call.
    pub(super) fn release(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
    ) -> Option<Transition> {
        let mut inner = self.lock();
        inner.in_flight -= 1;
        let transition = inner.breaker.ended(ticket, &outcome, now);
        let failed = match outcome {
            Outcome::Nothing => None,
            Outcome::Answered { .. } => Some(false),
            Outcome::Failed { error, .. } | Outcome::Saturated { error } => {
                inner.last_failure = Some(error);
                Some(true)
            }
        };
        if let Some(Transition::Opened { why: Why::Slowness(_), .. }) = transition {
            inner.last_failure =
                Some(StoreError::new(StoreErrorKind::Timeout, "preceding calls took too long"));
        }
        self.publish(&inner, failed);
        transition
    }

    /// Updates the state that is read without the lock.
    fn publish(&self, inner: &Inner, failed: Option<bool>) {
        let before = self.doubt.load(Ordering::Relaxed) & LAST_FAILED;
        let last = failed.map_or(before, |failed| if failed { LAST_FAILED } else { 0 });
        let state = match inner.breaker.state() {
            BreakerState::Closed => 0,
            BreakerState::Open => OPEN,
            BreakerState::HalfOpen => HALF_OPEN,
        };
        self.doubt.store(last | state, Ordering::Release);
    }

    /// Ignores poisoning: nothing panics while it holds this lock, so that the state
    /// is always consistent.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
