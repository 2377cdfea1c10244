//! Protects a store with a circuit breaker, a bulkhead (a bounded number of
//! concurrent calls), and a time-out for each call. Every call passes through it.

mod breaker;
mod config;
mod gate;
mod outcome;
mod ramp;
mod window;

/// Locks and atomics of [`gate`]. Its tests replace them.
mod sync {
    pub(super) use std::sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    };
}

use std::{mem, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, Notify},
    time::{Instant, sleep_until, timeout, timeout_at},
};

pub use breaker::BreakerState;
pub use config::{BreakerConfig, GuardConfig};

use self::{
    breaker::{Ticket, Transition, Why},
    gate::{Admission, Gate},
    outcome::Outcome,
    window::Count,
};
use crate::{
    key::Digest,
    outage::Unavailable,
    store::{Answer, Changes, Lookup, Lookups, StoreError, StoreErrorKind},
    telemetry::Metrics,
    time::{Clock, jittered, rounded},
};

/// Tier name of the store that checks use, in metrics and logs.
const TIER: &str = "store";

/// Relative jitter of the open time (±20 %). Instances that lost the store together
/// must not all probe it at the same moment.
const PAUSE_JITTER: f64 = 0.2;

/// A store behind its guard.
///
/// A call passes the breaker, then waits for a permit in FIFO order. When the
/// breaker opens, it rejects all waiting calls at once.
#[derive(Debug)]
pub struct Guarded<S> {
    tier: &'static str,
    store: S,
    gate: Arc<Gate>,
    /// Held by the first waiter for a permit; the other waiters queue for this lock.
    queue_head: Mutex<()>,
    /// Wakes the first waiter when a permit is released.
    freed: Notify,
    /// Wakes all waiters when the breaker opens.
    opened: Notify,
    max_in_flight: usize,
    query_timeout: Duration,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// Permission for one call to the store. Dropping it releases the permit and
/// reports the outcome of the call to the breaker, unless the call did not finish.
#[derive(Debug)]
pub struct Permit<'a, S> {
    guarded: &'a Guarded<S>,
    /// `None` once the permit is released.
    ticket: Option<Ticket>,
    outcome: Outcome,
}

/// A read-only view of a breaker's state.
#[derive(Debug, Clone)]
pub struct BreakerView(Arc<Gate>);

/// Why no permit was granted. The breaker does not count it, as it is not evidence
/// about the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No permit was free before the deadline.
    Saturated,
    /// The breaker rejects calls.
    Open,
}

impl From<Refused> for Unavailable {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Saturated => Self::Store(StoreErrorKind::Saturated),
            Refused::Open => Self::BreakerOpen,
        }
    }
}

impl BreakerView {
    /// The state, as of the last call: a breaker whose open time has passed stays
    /// open until the next call requests a permit.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.0.state()
    }
}

impl<S> Guarded<S> {
    /// Guards the store that checks use and registers the metrics of its breaker.
    pub fn new(store: S, config: GuardConfig, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self::of_tier(TIER, store, config, metrics, clock)
    }

    /// Guards a store and registers the metrics of its breaker under `tier`, which
    /// must be unique among guards.
    pub fn of_tier(
        tier: &'static str,
        store: S,
        config: GuardConfig,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        let spread = |pause| jittered(pause, PAUSE_JITTER);
        let gate = Arc::new(Gate::new(&config, spread, clock.monotonic()));
        let view = BreakerView(Arc::clone(&gate));
        let states = BreakerState::ALL.map(BreakerState::as_str);
        metrics.observe_breaker(tier, states, move || view.state().as_str());
        Self {
            tier,
            store,
            gate,
            queue_head: Mutex::default(),
            freed: Notify::new(),
            opened: Notify::new(),
            max_in_flight: config.max_in_flight.get(),
            query_timeout: config.query_timeout,
            metrics,
            clock,
        }
    }

    /// Time-out of one call, from when it has a permit.
    pub const fn query_timeout(&self) -> Duration {
        self.query_timeout
    }

    /// Number of permits.
    pub const fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }

    /// Returns a view of the breaker's state.
    pub fn breaker(&self) -> BreakerView {
        BreakerView(Arc::clone(&self.gate))
    }

    /// Whether the breaker would admit a call now. False while it is open, or
    /// half-open with all its probes in flight; nothing should queue for the store
    /// then. Takes no lock while the breaker is closed.
    pub fn admits(&self) -> bool {
        self.gate.admits(|| self.clock.monotonic())
    }

    /// Whether the breaker is not closed, or the last call failed (calls without
    /// evidence about the store excepted). False before the first call. One atomic
    /// read.
    pub fn in_doubt(&self) -> bool {
        self.gate.in_doubt()
    }

    /// Why a call would probably fail: the last call failed, or the breaker rejects
    /// calls. `None` while the store is healthy.
    pub fn doubt(&self) -> Option<Unavailable> {
        if !self.in_doubt() {
            return None;
        }
        let failure = self.last_failure().filter(|_| self.admits());
        Some(failure.as_ref().map_or(Unavailable::BreakerOpen, Unavailable::from))
    }

    /// Time until the next probe, zero while the breaker is half-open. `None` while
    /// it is closed.
    pub fn tries_in(&self) -> Option<Duration> {
        self.gate.tries_in(self.clock.monotonic())
    }

    /// The last failure of the store, if any. A time-out if the breaker opened
    /// because calls were slow.
    pub fn last_failure(&self) -> Option<StoreError> {
        self.gate.last_failure()
    }

    /// Waits for a permit in FIFO order.
    ///
    /// Fails with [`Refused::Open`] at once if the breaker admits no call, or when it
    /// opens during the wait, and with [`Refused::Saturated`] if no permit is free
    /// before `deadline`. Fewer permits exist for a while after an outage; callers
    /// wait for them in the same way. Cancel safe, but loses its position in the queue.
    pub async fn acquire(&self, deadline: Instant) -> Result<Permit<'_, S>, Refused> {
        // Registered before the check, so that no opening after it is missed.
        let opened = self.opened.notified();
        if !self.admits() {
            return Err(Refused::Open);
        }
        let waiting = async {
            tokio::select! {
                biased;
                () = opened => Err(Refused::Open),
                permit = self.wait_in_queue() => permit,
            }
        };
        timeout_at(deadline, waiting).await.unwrap_or(Err(Refused::Saturated))
    }

    /// Returns a permit if one is free and no call waits, for background work.
    /// `None` while the breaker is not closed: background work never probes a store.
    pub fn try_acquire(&self) -> Option<Permit<'_, S>> {
        if self.gate.state() != BreakerState::Closed {
            return None;
        }
        let _queue_head = self.queue_head.try_lock().ok()?;
        match self.admit() {
            Admission::Granted(ticket) => Some(self.permit(ticket)),
            Admission::Full { .. } | Admission::Refused => None,
        }
    }

    async fn wait_in_queue(&self) -> Result<Permit<'_, S>, Refused> {
        let _queue_head = self.queue_head.lock().await;
        loop {
            match self.admit() {
                Admission::Granted(ticket) => return Ok(self.permit(ticket)),
                Admission::Refused => return Err(Refused::Open),
                Admission::Full { until: None } => self.freed.notified().await,
                Admission::Full { until: Some(until) } => {
                    tokio::select! {
                        () = self.freed.notified() => {}
                        () = sleep_until(until) => {}
                    }
                }
            }
        }
    }

    fn admit(&self) -> Admission {
        let (admission, transition) = self.gate.admit(self.clock.monotonic());
        self.report(transition);
        admission
    }

    const fn permit(&self, ticket: Ticket) -> Permit<'_, S> {
        Permit { guarded: self, ticket: Some(ticket), outcome: Outcome::Nothing }
    }

    /// Counts and logs a state change once. Rejects all waiters if the breaker opened.
    fn report(&self, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        self.metrics.breaker_changed(self.tier, transition.to().as_str());
        log(self.tier, transition);
        if transition.to() == BreakerState::Open {
            self.opened.notify_waiters();
        }
    }

    async fn within_timeout<T, E: From<StoreError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let limit = self.query_timeout;
        timeout(limit, call).await.unwrap_or_else(|_| {
            let detail = format!("no answer within {}", humantime::format_duration(limit));
            Err(StoreError::new(StoreErrorKind::Timeout, detail).into())
        })
    }
}

impl<S: Changes> Guarded<S> {
    /// Subscribes to the changes of the store. Uses the one connection that bypasses
    /// the guard, so that cache misses never delay a revocation in the feed.
    pub async fn follow(&self) -> Result<Option<S::Follower>, StoreError> {
        self.store.follow().await
    }
}

impl<S: Lookups> Permit<'_, S> {
    /// Looks all digests up in one query.
    pub async fn find(mut self, digests: &[Digest]) -> Result<Lookup, StoreError> {
        let Guarded { store, metrics, .. } = self.guarded;
        let in_flight = metrics.store_query_began();
        let answer = self.judged(store.find(digests)).await;
        in_flight.ended();
        count(digests, &answer, |result, keys| metrics.store_lookups(result, keys));
        answer
    }
}

impl<S> Permit<'_, S> {
    /// Runs a call that is not a lookup and is not counted as one.
    pub async fn run<T>(
        mut self,
        call: impl AsyncFnOnce(&S) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let store = &self.guarded.store;
        self.judged(call(store)).await
    }

    /// Runs a call that the breaker ignores, as its outcome is not evidence about
    /// lookups.
    pub async fn aside<T, E: From<StoreError>>(
        self,
        call: impl AsyncFnOnce(&S) -> Result<T, E>,
    ) -> Result<T, E> {
        self.guarded.within_timeout(call(&self.guarded.store)).await
    }

    /// Runs a call with the time-out and records its outcome for the breaker.
    async fn judged<T>(
        &mut self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let clock = &self.guarded.clock;
        let began = clock.monotonic();
        let answer = self.guarded.within_timeout(call).await;
        self.outcome = Outcome::of(&answer, clock.monotonic() - began);
        answer
    }
}

/// Counts the result of each key of a query.
fn count(
    asked: &[Digest],
    answer: &Result<Lookup, StoreError>,
    count: impl Fn(&'static str, usize),
) {
    let Ok(lookup) = answer else { return count("error", asked.len()) };
    let found = |digest: &&Digest| matches!(lookup.get(digest), Some(Answer::Found(_)));
    let found = asked.iter().filter(found).count();
    let unreadable = asked.iter().filter(|digest| lookup.unreadable(digest).is_some()).count();
    count("found", found);
    count("error", unreadable);
    count("absent", asked.len() - found - unreadable);
}

impl<S> Drop for Permit<'_, S> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let outcome = mem::replace(&mut self.outcome, Outcome::Nothing);
        let guarded = self.guarded;
        let transition = guarded.gate.release(ticket, outcome, guarded.clock.monotonic());
        guarded.report(transition);
        guarded.freed.notify_one();
    }
}

/// Logs the first opening at WARN and the closing at INFO. The transitions between
/// them repeat throughout an outage: DEBUG.
fn log(tier: &'static str, transition: Transition) {
    match transition {
        Transition::Opened { why, pause, again: false } => {
            let (cause, count) = why.parts();
            let (calls, failed, slow) = (count.calls, count.failed, count.slow);
            tracing::warn!(
                tier,
                cause,
                calls,
                failed,
                slow,
                ?pause,
                "circuit breaker opened; store calls are rejected until the next probe"
            );
        }
        Transition::Opened { why, pause, again: true } => {
            let (cause, _) = why.parts();
            tracing::debug!(tier, cause, ?pause, "circuit breaker opened again");
        }
        Transition::HalfOpened => {
            tracing::debug!(tier, "circuit breaker half-open; probing the store");
        }
        Transition::Closed { after } => {
            let open_for = rounded(after);
            tracing::info!(tier, %open_for, "circuit breaker closed; store calls pass again");
        }
    }
}

impl Why {
    /// The cause as it is logged, and the counted calls.
    const fn parts(&self) -> (&'static str, Count) {
        match self {
            Self::Failures(kind, count) => (kind.as_str(), *count),
            Self::Slowness(count) => ("slow", *count),
        }
    }
}

#[cfg(test)]
mod race;
#[cfg(test)]
mod tests;
