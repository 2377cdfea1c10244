//! The circuit breaker: a state machine without clock, randomness or locks. The
//! caller passes the time and the jitter.
//!
//! ```text
//!             too many of the calls fail or are slow
//!    closed ─────────────────────────────────────────▶ open ◀──┐
//!      ▲                                                │      │ one fails
//!      │ all are answered                 time has passed│      │ or is slow
//!      └──────────────── half-open: a counted few ◀─────┘──────┘
//! ```
//!
//! **Closed** admits every call. When a call fails or is slow and at least
//! `min_calls` ended within the window, the breaker opens if `failure_ratio` of
//! them failed (and this call did), or `slow_ratio` of them were slow (and this
//! call was). A successful call never opens it.
//!
//! **Open** admits no call for `open_for`, spread by the jitter. The first call
//! after that is a probe and makes the breaker half-open.
//!
//! **Half-open** admits `half_open_calls` probes, counted at admission and not at
//! the end. A probe that fails or is slow opens the breaker again, for twice as
//! long as before, up to `max_open_for`. When all are answered in time, it closes.
//!
//! **After closing** the number of permits grows linearly over `ramp_up_for`, from
//! the number of probes to all. The window starts empty. If the breaker opens
//! during the ramp-up, it stays open for twice as long as the last time; afterwards
//! it begins with `open_for` again.
//!
//! **What counts.** An answered call is a success, even if the answer is
//! unreadable. A call is slow if it took `slow_call` or longer, whatever its
//! outcome. A call that found the store saturated, was dropped, or panicked does
//! not count; if it was a probe, another is admitted in its stead. A call admitted
//! before the last state change does not count either: its evidence is out of date.

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
    /// Calls pass: all, or a growing number after an outage.
    Closed,
    /// Calls are rejected.
    Open,
    /// A limited number of probes pass.
    HalfOpen,
}

impl BreakerState {
    /// Every state, for metrics that must exist from the start.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The name in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A circuit breaker that also limits the number of permits after an outage.
#[derive(Debug)]
pub(super) struct Breaker {
    config: BreakerConfig,
    slow_call: Duration,
    max_in_flight: usize,
    jitter: fn(Duration) -> Duration,
    state: State,
    /// Number of openings since all permits were last available.
    openings: u32,
    /// When it last opened from the closed state.
    broken_since: Instant,
    /// Number of state changes; identifies calls admitted before the last one.
    epoch: u64,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each breaker")]
enum State {
    Closed { window: Window, ramp: Option<Ramp> },
    Open { until: Instant },
    HalfOpen { admitted: usize, answered: usize },
}

/// Proof that a call was admitted, and in which epoch. Passed to [`Breaker::ended`]
/// exactly once.
#[derive(Debug)]
pub(super) struct Ticket {
    epoch: u64,
}

/// A change of the state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Transition {
    /// The breaker opened.
    Opened {
        /// The cause.
        why: Why,
        /// How long it stays open.
        pause: Duration,
        /// Whether it opened from the half-open state.
        again: bool,
    },
    /// The breaker admits probes.
    HalfOpened,
    /// The breaker closed.
    Closed {
        /// Time since it last opened from the closed state.
        after: Duration,
    },
}

/// Why a breaker opened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Why {
    /// Calls failed, the last with this kind of error.
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
    /// Creates a closed breaker. `jitter` spreads the open time.
    pub(super) fn new(
        config: &GuardConfig,
        jitter: fn(Duration) -> Duration,
        now: Instant,
    ) -> Self {
        Self {
            config: config.breaker,
            slow_call: config.slow_call(),
            max_in_flight: config.max_in_flight.get(),
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

    /// Time until the next probe; zero while half-open, `None` while closed.
    pub(super) fn tries_in(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Closed { .. } => None,
            State::Open { until } => Some(until.saturating_duration_since(now)),
            State::HalfOpen { .. } => Some(Duration::ZERO),
        }
    }

    /// Number of permits at `now`.
    pub(super) fn permits(&self, now: Instant) -> usize {
        self.ramp().map_or(self.max_in_flight, |ramp| ramp.permits(now))
    }

    /// When there are more than `in_flight` permits; `None` if there never will be
    /// during this ramp-up.
    pub(super) fn more_than(&self, in_flight: usize) -> Option<Instant> {
        self.ramp().filter(|ramp| in_flight < ramp.to).map(|ramp| ramp.more_than(in_flight))
    }

    /// Admits or rejects a call, and returns the state change, if any.
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

    /// Records the outcome of an admitted call, and returns the state change, if any.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is used once")]
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
            // An open breaker admits no call.
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
        self.transition_to(State::Open { until: now + pause });
        Transition::Opened { why, pause, again }
    }

    /// The call that triggers this is the first probe.
    fn half_open(&mut self) -> Transition {
        self.transition_to(State::HalfOpen { admitted: 1, answered: 0 });
        Transition::HalfOpened
    }

    fn close(&mut self, now: Instant) -> Transition {
        let BreakerConfig { window, ramp_up_for, half_open_calls, .. } = self.config;
        let from = half_open_calls.get().min(self.max_in_flight);
        let ramp = Ramp { began: now, lasts: ramp_up_for, from, to: self.max_in_flight };
        self.transition_to(State::Closed { window: Window::new(window, now), ramp: Some(ramp) });
        Transition::Closed { after: now.saturating_duration_since(self.broken_since) }
    }

    fn transition_to(&mut self, state: State) {
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
