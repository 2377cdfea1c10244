//! Tests each sentence of the module documentation of `breaker.rs`.

mod recovery;

use std::num::{NonZeroU32, NonZeroUsize};

use super::*;
use crate::store::StoreError;

const FAST: Duration = Duration::from_millis(1);
const SLOW: Duration = Duration::from_millis(75);
const PROBES: usize = 3;
const PERMITS: usize = 8;

/// A breaker with a manual clock.
struct Fixture {
    breaker: Breaker,
    now: Instant,
}

fn config() -> GuardConfig {
    GuardConfig {
        max_in_flight: NonZeroUsize::new(PERMITS).unwrap(),
        query_timeout: Duration::from_millis(100),
        breaker: BreakerConfig {
            window: Duration::from_secs(5),
            min_calls: NonZeroU32::new(10).unwrap(),
            failure_ratio: 0.5,
            slow_call: None,
            slow_ratio: 0.8,
            open_for: Duration::from_millis(500),
            max_open_for: Duration::from_secs(4),
            half_open_calls: NonZeroUsize::new(PROBES).unwrap(),
            ramp_up_for: Duration::from_secs(2),
        },
    }
}

fn answered(took: Duration) -> Outcome {
    Outcome::of(&Ok(()), took)
}

fn failed(kind: StoreErrorKind) -> Outcome {
    Outcome::of::<()>(&Err(StoreError::new(kind, "injected")), FAST)
}

fn unreachable() -> Outcome {
    failed(StoreErrorKind::Unreachable)
}

impl Fixture {
    fn new() -> Self {
        Self::with(|pause| pause)
    }

    fn with(jitter: fn(Duration) -> Duration) -> Self {
        let now = Instant::now();
        Self { breaker: Breaker::new(&config(), jitter, now), now }
    }

    /// A breaker that has just opened for the first time.
    fn opened() -> Self {
        let mut fixture = Self::new();
        fixture.calls(10, &unreachable());
        assert_eq!(fixture.breaker.state(), BreakerState::Open);
        fixture
    }

    /// A breaker that has just closed after one opening.
    fn closed_again() -> Self {
        let mut fixture = Self::opened();
        fixture.pass(500);
        fixture.calls(PROBES, &answered(FAST));
        assert_eq!(fixture.breaker.state(), BreakerState::Closed);
        fixture
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn admit(&mut self) -> Option<Ticket> {
        self.breaker.admit(self.now).map(|(ticket, _)| ticket)
    }

    fn end(&mut self, ticket: Ticket, outcome: &Outcome) -> Option<Transition> {
        self.breaker.ended(ticket, outcome, self.now)
    }

    /// Makes sequential calls and returns the transition of the last one.
    fn calls(&mut self, count: usize, outcome: &Outcome) -> Option<Transition> {
        let mut last = None;
        for _ in 0..count {
            let ticket = self.admit().expect("the call is admitted");
            last = self.end(ticket, outcome);
        }
        last
    }

    /// Waits out the pause, fails the first probe and returns the next pause.
    fn fail_again(&mut self) -> Duration {
        self.now += self.breaker.tries_in(self.now).unwrap();
        match self.calls(1, &unreachable()) {
            Some(Transition::Opened { pause, again: true, .. }) => pause,
            other => panic!("{other:?}"),
        }
    }

    fn state(&self) -> BreakerState {
        self.breaker.state()
    }
}

#[test]
fn closed_breaker_admits_every_call() {
    let mut fixture = Fixture::new();
    for _ in 0..1000 {
        assert!(fixture.admit().is_some());
    }
}

#[test]
fn fewer_calls_than_the_minimum_never_open_it() {
    let mut fixture = Fixture::new();
    fixture.calls(9, &unreachable());
    assert_eq!(fixture.state(), BreakerState::Closed);
    fixture.calls(1, &unreachable());
    assert_eq!(fixture.state(), BreakerState::Open);
}

#[test]
fn it_opens_exactly_at_the_failure_ratio() {
    let mut fixture = Fixture::new();
    fixture.calls(10, &answered(FAST));
    fixture.calls(9, &unreachable());
    assert_eq!(fixture.state(), BreakerState::Closed, "9 of 19");
    let opened = fixture.calls(1, &failed(StoreErrorKind::Schema));
    let count = Count { calls: 20, failed: 10, slow: 0 };
    let why = Why::Failures(StoreErrorKind::Schema, count);
    let pause = Duration::from_millis(500);
    assert_eq!(opened, Some(Transition::Opened { why, pause, again: false }));
}

#[test]
fn it_opens_exactly_at_the_slow_ratio() {
    let mut fixture = Fixture::new();
    fixture.calls(2, &answered(SLOW.checked_sub(Duration::from_nanos(1)).unwrap()));
    fixture.calls(7, &answered(SLOW));
    assert_eq!(fixture.state(), BreakerState::Closed, "too few");
    let Some(Transition::Opened { why, .. }) = fixture.calls(1, &answered(SLOW)) else {
        panic!("8 of 10 were slow");
    };
    assert_eq!(why, Why::Slowness(Count { calls: 10, failed: 0, slow: 8 }));
}

#[test]
fn slow_failures_count_as_slow_and_as_failed() {
    let mut fixture = Fixture::new();
    let timeout: Result<(), _> = Err(StoreError::new(StoreErrorKind::Timeout, ""));
    let Some(Transition::Opened { why, .. }) = fixture.calls(10, &Outcome::of(&timeout, SLOW))
    else {
        panic!("all failed");
    };
    let count = Count { calls: 10, failed: 10, slow: 10 };
    assert_eq!(why, Why::Failures(StoreErrorKind::Timeout, count));
}

#[test]
fn successful_call_never_opens_it() {
    let mut fixture = Fixture::new();
    fixture.calls(5, &unreachable());
    fixture.calls(5, &answered(FAST));
    assert_eq!(
        fixture.state(),
        BreakerState::Closed,
        "half of the ten failed, but the last did not"
    );
    fixture.calls(1, &unreachable());
    assert_eq!(fixture.state(), BreakerState::Open);
}

#[test]
fn calls_that_ended_before_the_window_do_not_count() {
    for (millis, forgotten) in [(4400, false), (5000, true), (60_000, true)] {
        let mut fixture = Fixture::new();
        fixture.calls(9, &unreachable());
        fixture.pass(millis);
        fixture.calls(1, &unreachable());
        let expected = if forgotten { BreakerState::Closed } else { BreakerState::Open };
        assert_eq!(fixture.state(), expected, "after {millis} ms");
    }
}

#[test]
fn a_steady_rate_of_failures_below_the_minimum_never_opens_it() {
    let mut fixture = Fixture::new();
    for _ in 0..1000 {
        fixture.calls(1, &unreachable());
        fixture.pass(600);
    }
    assert_eq!(fixture.state(), BreakerState::Closed);
}

#[test]
fn open_breaker_admits_no_call_until_its_open_time_has_passed() {
    let mut fixture = Fixture::opened();
    assert!(!fixture.breaker.admits(fixture.now) && fixture.admit().is_none());
    fixture.pass(499);
    assert!(!fixture.breaker.admits(fixture.now) && fixture.admit().is_none());
    assert_eq!(fixture.breaker.tries_in(fixture.now), Some(Duration::from_millis(1)));
    fixture.pass(1);
    assert!(fixture.breaker.admits(fixture.now) && fixture.admit().is_some());
}

#[test]
fn the_first_trip_after_a_long_uptime_stays_open_for_the_full_time() {
    let mut fixture = Fixture::new();
    fixture.pass(1000 * 60 * 60 * 24 * 365);
    fixture.calls(10, &unreachable());
    fixture.pass(499);
    assert!(fixture.admit().is_none());
}

#[test]
fn the_pause_is_spread_by_the_jitter() {
    let mut fixture = Fixture::with(|pause| pause * 6 / 5);
    let opened = fixture.calls(10, &unreachable());
    let Some(Transition::Opened { pause, .. }) = opened else { panic!("{opened:?}") };
    assert_eq!(pause, Duration::from_millis(600));
    fixture.pass(599);
    assert!(fixture.admit().is_none());
    fixture.pass(1);
    assert!(fixture.admit().is_some());
}

#[test]
fn exactly_these_error_kinds_count_as_failures() {
    for kind in StoreErrorKind::ALL {
        let mut fixture = Fixture::new();
        for _ in 0..100 {
            let Some(ticket) = fixture.admit() else { break };
            fixture.end(ticket, &failed(kind));
        }
        let counts = match kind {
            StoreErrorKind::Unreachable
            | StoreErrorKind::Timeout
            | StoreErrorKind::Forbidden
            | StoreErrorKind::Schema => true,
            StoreErrorKind::Saturated
            | StoreErrorKind::Unreadable
            | StoreErrorKind::Lagging
            | StoreErrorKind::Blocked => false,
        };
        assert_eq!(fixture.state() == BreakerState::Open, counts, "{kind}");
    }
}

#[test]
fn call_to_a_saturated_store_does_not_count() {
    let mut fixture = Fixture::new();
    fixture.calls(9, &unreachable());
    fixture.calls(100, &failed(StoreErrorKind::Saturated));
    fixture.calls(1, &unreachable());
    assert_eq!(fixture.state(), BreakerState::Open);
}
