//! When a store that fails is left alone, and how it is tried again: a state
//! machine without clock, chance or locks. What time it is and how a pause is
//! spread is handed in.
//!
//! ```text
//!             too many of the calls fail or are slow
//!    closed ─────────────────────────────────────────▶ open ◀──┐
//!      ▲                                                │      │ one fails
//!      │ all are answered                 time has passed│      │ or is slow
//!      └──────────────── half-open: a counted few ◀─────┘──────┘
//! ```
//!
//! **Closed**, every call is admitted. When a call fails or is slow, those that
//! ended within the window are judged, if there are at least `min_calls`: the
//! breaker opens when `failure_ratio` of them failed or `slow_ratio` of them were
//! slow. A call that went well never opens it.
//!
//! **Open**, no call is admitted until its time has passed: `open_for`, spread by
//! the jitter. The first call after that is a probe: the breaker is half-open.
//!
//! **Half-open**, `half_open_calls` probes are admitted, counted when they are
//! admitted and not when they end. One that fails or is slow opens the breaker
//! again, for twice as long as before, up to `max_open_for`. When all are
//! answered in time, it closes.
//!
//! **After closing** the places at the store are given out little by little: as
//! many as there were probes at first, growing evenly to all of them over
//! `ramp_up_for`. Calls begin to be counted anew. When the breaker opens during
//! that time, it is open for twice as long as the last time; afterwards it begins
//! with `open_for` again.
//!
//! **What counts.** A call that was answered, if only with something unreadable,
//! went well; slow is one that took `slow_call` or longer, whatever its end. A
//! call that found the store saturated, was dropped, or ended in a panic says
//! nothing: it does not count, and a probe of which that is true is given back,
//! so that another may be admitted for it. A call that was admitted before the
//! breaker last changed its state does not count either, as it tells of a time
//! that is over.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::{
    config::{BreakerConfig, GuardConfig},
    outcome::Outcome,
    ramp::Ramp,
    window::{Count, Window},
};
use crate::store::StoreErrorKind;

/// The state of a breaker as metrics and `/status` show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls pass: all of them, or a growing number after an outage.
    Closed,
    /// Calls are refused.
    Open,
    /// A counted few calls pass.
    HalfOpen,
}

impl BreakerState {
    /// Every state, for metrics that must exist from the start.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A breaker before a number of places.
#[derive(Debug)]
pub(super) struct Breaker {
    config: BreakerConfig,
    slow_call: Duration,
    places: usize,
    jitter: fn(Duration) -> Duration,
    state: State,
    /// How often it has opened since it last let everything through.
    openings: u32,
    /// When it last opened without having been half-open.
    broken_since: Instant,
    /// The number of the state, so that calls are told from those before it.
    epoch: u64,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each breaker")]
enum State {
    Closed { window: Window, ramp: Option<Ramp> },
    Open { until: Instant },
    HalfOpen { admitted: usize, answered: usize },
}

/// That a call was admitted, and when. To be given to [`Breaker::ended`] exactly
/// once.
#[derive(Debug)]
pub(super) struct Ticket {
    epoch: u64,
}

/// A change of the state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Transition {
    /// It opened.
    Opened {
        /// Why.
        why: Why,
        /// For how long.
        pause: Duration,
        /// Whether it had only tried the store since it opened last.
        again: bool,
    },
    /// It tries the store.
    HalfOpened,
    /// It lets calls through again.
    Closed {
        /// How long it did not.
        after: Duration,
    },
}

/// Why a breaker opened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Why {
    /// Calls failed, the last of them in this way.
    Failures(StoreErrorKind, Count),
    /// Calls were slow.
    Slowness(Count),
}

impl Transition {
    /// The state after it.
    pub(super) const fn to(self) -> BreakerState {
        match self {
            Self::Opened { .. } => BreakerState::Open,
            Self::HalfOpened => BreakerState::HalfOpen,
            Self::Closed { .. } => BreakerState::Closed,
        }
    }
}

impl Breaker {
    /// A breaker that is closed. `jitter` spreads the time for which it is open.
    pub(super) fn new(
        config: &GuardConfig,
        jitter: fn(Duration) -> Duration,
        now: Instant,
    ) -> Self {
        Self {
            config: config.breaker,
            slow_call: config.slow_call(),
            places: config.max_in_flight.get(),
            jitter,
            state: State::Closed { window: Window::new(config.breaker.window, now), ramp: None },
            openings: 0,
            broken_since: now,
            epoch: 0,
        }
    }

    /// The state, as of the last call.
    pub(super) const fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether a call would be admitted now.
    pub(super) fn admits(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } => now >= until,
            State::HalfOpen { admitted, .. } => admitted < self.config.half_open_calls.get(),
        }
    }

    /// How long until the store may be tried; zero while it is being tried.
    /// `None` while the breaker is closed.
    pub(super) fn tries_in(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Closed { .. } => None,
            State::Open { until } => Some(until.saturating_duration_since(now)),
            State::HalfOpen { .. } => Some(Duration::ZERO),
        }
    }

    /// How many places at the store are given out now.
    pub(super) fn places(&self, now: Instant) -> usize {
        self.ramp().map_or(self.places, |ramp| ramp.places(now))
    }

    /// When more than `taken` places are given out, if that is only a matter of
    /// time.
    pub(super) fn more_than(&self, taken: usize) -> Option<Instant> {
        self.ramp().filter(|ramp| taken < ramp.to).map(|ramp| ramp.more_than(taken))
    }

    /// Admits a call or refuses it, and says whether the state has changed.
    pub(super) fn admit(&mut self, now: Instant) -> Option<(Ticket, Option<Transition>)> {
        if !self.admits(now) {
            return None;
        }
        let transition = match &mut self.state {
            State::Closed { .. } => None,
            State::Open { .. } => Some(self.half_open()),
            State::HalfOpen { admitted, .. } => {
                *admitted += 1;
                None
            }
        };
        Some((Ticket { epoch: self.epoch }, transition))
    }

    /// Takes in how an admitted call ended, and says whether the state has
    /// changed.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is good for one end")]
    pub(super) fn ended(
        &mut self,
        ticket: Ticket,
        outcome: &Outcome,
        now: Instant,
    ) -> Option<Transition> {
        if ticket.epoch != self.epoch {
            return None;
        }
        let slow = outcome.took().map(|took| took >= self.slow_call);
        match (&mut self.state, slow) {
            (State::HalfOpen { admitted, .. }, None) => {
                *admitted -= 1;
                None
            }
            // While it is open, no call is admitted.
            (State::Closed { .. }, None) | (State::Open { .. }, _) => None,
            (State::HalfOpen { .. }, Some(slow)) => self.probe_ended(slow, outcome.failure(), now),
            (State::Closed { .. }, Some(slow)) => self.call_ended(slow, outcome.failure(), now),
        }
    }

    fn probe_ended(
        &mut self,
        slow: bool,
        failure: Option<StoreErrorKind>,
        now: Instant,
    ) -> Option<Transition> {
        let State::HalfOpen { answered, .. } = &mut self.state else {
            return None;
        };
        if failure.is_none() && !slow {
            *answered += 1;
            let all = *answered == self.config.half_open_calls.get();
            return all.then(|| self.close(now));
        }
        let count = Count { calls: 1, failed: failure.is_some().into(), slow: slow.into() };
        let why = failure.map_or(Why::Slowness(count), |kind| Why::Failures(kind, count));
        Some(self.open(why, true, now))
    }

    fn call_ended(
        &mut self,
        slow: bool,
        failure: Option<StoreErrorKind>,
        now: Instant,
    ) -> Option<Transition> {
        let State::Closed { window, ramp } = &mut self.state else {
            return None;
        };
        window.add(failure.is_some(), slow, now);
        let count = window.count();
        if count.calls < self.config.min_calls.get() {
            return None;
        }
        let why = match failure {
            Some(kind) if count.failure_ratio() >= self.config.failure_ratio => {
                Why::Failures(kind, count)
            }
            _ if slow && count.slow_ratio() >= self.config.slow_ratio => Why::Slowness(count),
            _ => return None,
        };
        if ramp.is_none_or(|ramp| ramp.is_over(now)) {
            self.openings = 0;
        }
        Some(self.open(why, false, now))
    }

    fn open(&mut self, why: Why, again: bool, now: Instant) -> Transition {
        let BreakerConfig { open_for, max_open_for, .. } = self.config;
        let longer = 2_u32.saturating_pow(self.openings);
        let pause = (self.jitter)(open_for.saturating_mul(longer).min(max_open_for));
        self.openings = self.openings.saturating_add(1);
        if !again {
            self.broken_since = now;
        }
        self.acquire(State::Open { until: now + pause });
        Transition::Opened { why, pause, again }
    }

    /// The call that finds the time passed is the first probe.
    fn half_open(&mut self) -> Transition {
        self.acquire(State::HalfOpen { admitted: 1, answered: 0 });
        Transition::HalfOpened
    }

    fn close(&mut self, now: Instant) -> Transition {
        let BreakerConfig { window, ramp_up_for, half_open_calls, .. } = self.config;
        let from = half_open_calls.get().min(self.places);
        let ramp = Ramp { began: now, lasts: ramp_up_for, from, to: self.places };
        self.acquire(State::Closed { window: Window::new(window, now), ramp: Some(ramp) });
        Transition::Closed { after: now.saturating_duration_since(self.broken_since) }
    }

    fn acquire(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }

    const fn ramp(&self) -> Option<&Ramp> {
        match &self.state {
            State::Closed { ramp, .. } => ramp.as_ref(),
            State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
