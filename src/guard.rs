//! The only way to a store: a breaker, and behind it a bounded number of calls
//! at once, each with a time-out.

mod breaker;
mod config;
mod gate;
mod outcome;
mod ramp;
mod window;

/// The locks and atomics of [`gate`], which its tests replace.
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

/// The name of the tier that checks use, in metrics and in the log.
const TIER: &str = "store";

/// By how much the time varies for which the breaker is open, so that instances
/// that lost the store together do not come back to it together.
const PAUSE_JITTER: f64 = 0.2;

/// A store behind its guard.
///
/// A call first meets the breaker, then waits in turn for a permit. While the
/// breaker is open, nobody waits: who came before it opened is sent away.
#[derive(Debug)]
pub struct Guarded<S> {
    tier: &'static str,
    store: S,
    gate: Arc<Gate>,
    /// Held by the first of those who wait for a permit; the others queue for it.
    queue_head: Mutex<()>,
    /// A place was given back, or there may be more of them: for the first.
    freed: Notify,
    /// The breaker has opened: for all who wait.
    opened: Notify,
    places: usize,
    query_timeout: Duration,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// A place at the store, given back when dropped. What was done with it is told
/// to the breaker; nothing, if it was dropped before the store answered.
#[derive(Debug)]
pub struct Permit<'a, S> {
    guarded: &'a Guarded<S>,
    /// `None` once the place is given back.
    ticket: Option<Ticket>,
    outcome: Outcome,
}

/// Shows the state of a breaker.
#[derive(Debug, Clone)]
pub struct BreakerView(Arc<Gate>);

/// Why there is no place at the store. Says nothing about the store beyond what
/// is known already, and does not count against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No place was free until the deadline.
    Saturated,
    /// The breaker lets no call through.
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
    /// The state, as of the last call: a breaker whose time has passed is open
    /// until somebody asks for a permit.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.0.state()
    }
}

impl<S> Guarded<S> {
    /// Puts a guard before the store that checks use, and its breaker into the
    /// metrics.
    pub fn new(store: S, config: GuardConfig, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self::of_tier(TIER, store, config, metrics, clock)
    }

    /// Puts a guard before a store, and its breaker into the metrics under the
    /// name of its tier, which must be no other guard's.
    pub fn of_tier(
        tier: &'static str,
        store: S,
        config: GuardConfig,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        let spread = |pause| jittered(pause, PAUSE_JITTER);
        let gate = Arc::new(Gate::new(&config, spread, clock.monotonic()));
        let shown = BreakerView(Arc::clone(&gate));
        let states = BreakerState::ALL.map(BreakerState::as_str);
        metrics.observe_breaker(tier, states, move || shown.state().as_str());
        Self {
            tier,
            store,
            gate,
            queue_head: Mutex::default(),
            freed: Notify::new(),
            opened: Notify::new(),
            places: config.max_in_flight.get(),
            query_timeout: config.query_timeout,
            metrics,
            clock,
        }
    }

    /// How long one call may take once it has a permit.
    pub const fn query_timeout(&self) -> Duration {
        self.query_timeout
    }

    /// How many places there are.
    pub const fn places(&self) -> usize {
        self.places
    }

    /// Shows the state of the breaker.
    pub fn breaker(&self) -> BreakerView {
        BreakerView(Arc::clone(&self.gate))
    }

    /// Whether the breaker would admit a call now: not while it is open, nor
    /// while as many try the store as may. Nothing should queue for the store
    /// then. Takes no lock while the breaker is closed.
    pub fn admits(&self) -> bool {
        self.gate.admits(|| self.clock.monotonic())
    }

    /// Whether the last call failed, of those that say something about the store,
    /// or the breaker is not closed. One atomic read. A store that was never
    /// asked is not in doubt.
    pub fn in_doubt(&self) -> bool {
        self.gate.in_doubt()
    }

    /// Why waiting for the store is probably in vain: its last call failed, or it
    /// is not to be asked now. `None` while it is well.
    pub fn doubt(&self) -> Option<Unavailable> {
        if !self.in_doubt() {
            return None;
        }
        let failure = self.last_failure().filter(|_| self.admits());
        Some(failure.as_ref().map_or(Unavailable::BreakerOpen, Unavailable::from))
    }

    /// How long until the store may be tried, zero while it is being tried.
    /// `None` while the breaker is closed.
    pub fn tries_in(&self) -> Option<Duration> {
        self.gate.tries_in(self.clock.monotonic())
    }

    /// How the store failed last, if it did. When the breaker opened because calls
    /// were slow, that is a time-out.
    pub fn last_failure(&self) -> Option<StoreError> {
        self.gate.last_failure()
    }

    /// Waits for a permit, first come, first served.
    ///
    /// [`Refused::Open`] at once while the breaker admits no call, and as soon as
    /// it does not, also for those who wait already. [`Refused::Saturated`] when
    /// there was no place until `deadline`. After an outage there are fewer
    /// places for a while, for which one waits in the same way. May be cancelled;
    /// the turn is lost then.
    pub async fn acquire(&self, deadline: Instant) -> Result<Permit<'_, S>, Refused> {
        // Before the question, so that no opening is missed after it.
        let opened = self.opened.notified();
        if !self.admits() {
            return Err(Refused::Open);
        }
        let waiting = async {
            tokio::select! {
                biased;
                () = opened => Err(Refused::Open),
                permit = self.wait_at_the_door() => permit,
            }
        };
        timeout_at(deadline, waiting).await.unwrap_or(Err(Refused::Saturated))
    }

    /// A place if one is free and nobody waits for it: for work that comes last.
    /// None while the breaker is not closed: such work tries no store.
    pub fn try_acquire(&self) -> Option<Permit<'_, S>> {
        if self.gate.state() != BreakerState::Closed {
            return None;
        }
        let _queue_head = self.queue_head.try_lock().ok()?;
        match self.admit() {
            Admission::Place(ticket) => Some(self.permit(ticket)),
            Admission::Full { .. } | Admission::Refused => None,
        }
    }

    async fn wait_at_the_door(&self) -> Result<Permit<'_, S>, Refused> {
        let _queue_head = self.queue_head.lock().await;
        loop {
            match self.admit() {
                Admission::Place(ticket) => return Ok(self.permit(ticket)),
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
        self.tell(transition);
        admission
    }

    const fn permit(&self, ticket: Ticket) -> Permit<'_, S> {
        Permit { guarded: self, ticket: Some(ticket), outcome: Outcome::Nothing }
    }

    /// Counts a change of the breaker, says it once, and sends those away who
    /// wait if it has opened.
    fn tell(&self, transition: Option<Transition>) {
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
    /// Begins to follow the changes of the store: over the one connection that
    /// passes the guard by, so that misses never keep the feed from learning of
    /// a revocation.
    pub async fn follow(&self) -> Result<Option<S::Follower>, StoreError> {
        self.store.follow().await
    }
}

impl<S: Lookups> Permit<'_, S> {
    /// Asks the store about all digests in one query.
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
    /// Runs any other call to the store, which is not a lookup and is not
    /// counted as one.
    pub async fn run<T>(
        mut self,
        call: impl AsyncFnOnce(&S) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let store = &self.guarded.store;
        self.judged(call(store)).await
    }

    /// Runs a call whose outcome says nothing about lookups, so that the breaker
    /// is not told of it.
    pub async fn aside<T, E: From<StoreError>>(
        self,
        call: impl AsyncFnOnce(&S) -> Result<T, E>,
    ) -> Result<T, E> {
        self.guarded.within_timeout(call(&self.guarded.store)).await
    }

    /// Makes a call within its time, and notes how it ended for the breaker.
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

/// Counts what the store said about each key of a query.
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
        let transition = guarded.gate.give_back(ticket, outcome, guarded.clock.monotonic());
        guarded.tell(transition);
        guarded.freed.notify_one();
    }
}

/// A first opening and a closing are what an operator wants to know; what lies
/// between them repeats itself for as long as an outage lasts.
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
                "the breaker opens: the store is left alone, and then tried from time to time"
            );
        }
        Transition::Opened { why, pause, again: true } => {
            let (cause, _) = why.parts();
            tracing::debug!(tier, cause, ?pause, "the breaker opens again");
        }
        Transition::HalfOpened => tracing::debug!(tier, "the breaker tries the store"),
        Transition::Closed { after } => {
            let open_for = rounded(after);
            tracing::info!(tier, %open_for, "the breaker closes: the store answers again");
        }
    }
}

impl Why {
    /// The cause as the log has it, and what was counted.
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
