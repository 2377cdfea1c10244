//! Tests of the half-open state and of the ramp-up after closing.

use super::*;

#[test]
fn the_first_call_after_the_pause_makes_it_half_open() {
    let mut fixture = Fixture::opened();
    fixture.pass(500);
    assert_eq!(fixture.state(), BreakerState::Open, "no call was made yet");
    let admitted = fixture.breaker.admit(fixture.now);
    assert!(matches!(admitted, Some((_, Some(Transition::HalfOpened)))), "{admitted:?}");
    assert_eq!(fixture.state(), BreakerState::HalfOpen);
    assert!(matches!(fixture.breaker.admit(fixture.now), Some((_, None))), "reported once");
}

#[test]
fn probes_are_counted_at_admission_and_not_at_their_end() {
    let mut fixture = Fixture::opened();
    fixture.pass(500);
    let mut probes: Vec<_> = (0..PROBES).map(|_| fixture.admit().unwrap()).collect();
    assert!(fixture.admit().is_none() && !fixture.breaker.admits(fixture.now));
    // However long they take and however many are answered.
    fixture.pass(60_000);
    assert!(fixture.admit().is_none());
    let first = probes.pop().unwrap();
    fixture.end(first, &answered(FAST));
    assert!(fixture.admit().is_none());
}

#[test]
fn a_probe_that_fails_opens_it_again_at_once() {
    let mut fixture = Fixture::opened();
    fixture.pass(500);
    let (first, second) = (fixture.admit().unwrap(), fixture.admit().unwrap());
    fixture.end(first, &answered(FAST));
    assert!(matches!(
        fixture.end(second, &unreachable()),
        Some(Transition::Opened { again: true, .. })
    ));
    assert!(fixture.admit().is_none());
}

#[test]
fn a_probe_that_is_slow_opens_it_again() {
    let mut fixture = Fixture::opened();
    fixture.pass(500);
    let opened = fixture.calls(1, &answered(SLOW));
    let why = Why::Slowness(Count { calls: 1, failed: 0, slow: 1 });
    let pause = Duration::from_secs(1);
    assert_eq!(opened, Some(Transition::Opened { why, pause, again: true }));
}

#[test]
fn open_time_doubles_with_each_failed_probe_up_to_a_bound() {
    let mut fixture = Fixture::opened();
    let pauses: Vec<_> = (0..200).map(|_| fixture.fail_again().as_millis()).collect();
    assert_eq!(pauses[..5], [1000, 2000, 4000, 4000, 4000]);
    assert_eq!(pauses.last(), Some(&4000));
}

#[test]
fn it_closes_when_all_probes_are_answered_in_time_and_reports_the_duration() {
    let mut fixture = Fixture::opened();
    fixture.pass(500);
    fixture.calls(PROBES - 1, &answered(FAST));
    assert_eq!(fixture.state(), BreakerState::HalfOpen);
    fixture.pass(250);
    let closed = fixture.calls(1, &answered(FAST));
    assert_eq!(closed, Some(Transition::Closed { after: Duration::from_millis(750) }));
    assert_eq!(fixture.breaker.tries_in(fixture.now), None);
}

#[test]
fn reported_duration_counts_from_the_first_opening() {
    let mut fixture = Fixture::opened();
    fixture.fail_again();
    fixture.fail_again();
    fixture.pass(2000);
    let closed = fixture.calls(PROBES, &answered(FAST));
    assert_eq!(closed, Some(Transition::Closed { after: Duration::from_millis(3500) }));
}

#[test]
fn after_closing_permits_grow_linearly_from_the_number_of_probes_to_all() {
    let mut fixture = Fixture::closed_again();
    let began = fixture.now;
    let permits = |after| fixture.breaker.permits(began + Duration::from_millis(after));
    let grown = [0, 399, 400, 800, 1200, 1600, 1999, 2000, 60_000].map(permits);
    assert_eq!(grown, [3, 3, 4, 5, 6, 7, 7, 8, 8]);
    for taken in 3..PERMITS {
        let more = fixture.breaker.more_than(taken).unwrap();
        assert_eq!(fixture.breaker.permits(more), taken + 1);
        assert_eq!(fixture.breaker.permits(more - Duration::from_nanos(1)), taken);
    }
    assert_eq!(fixture.breaker.more_than(PERMITS), None, "the ramp-up never exceeds all permits");
    fixture.pass(2000);
    assert!(fixture.admit().is_some());
}

#[test]
fn all_permits_exist_before_the_first_outage() {
    let fixture = Fixture::new();
    assert_eq!(fixture.breaker.permits(fixture.now), PERMITS);
    assert_eq!(fixture.breaker.more_than(PERMITS), None);
}

#[test]
fn zero_ramp_up_and_more_probes_than_permits_are_valid_settings() {
    let mut config = config();
    config.breaker.ramp_up_for = Duration::ZERO;
    config.breaker.half_open_calls = NonZeroUsize::new(PERMITS + 2).unwrap();
    let now = Instant::now();
    let mut fixture = Fixture { breaker: Breaker::new(&config, |pause| pause, now), now };
    fixture.calls(10, &unreachable());
    fixture.pass(500);
    fixture.calls(PERMITS + 2, &answered(FAST));
    assert_eq!(fixture.state(), BreakerState::Closed);
    assert_eq!(fixture.breaker.permits(fixture.now), PERMITS);
}

#[test]
fn window_is_empty_after_closing() {
    let mut fixture = Fixture::closed_again();
    fixture.calls(9, &unreachable());
    assert_eq!(fixture.state(), BreakerState::Closed);
    fixture.calls(1, &unreachable());
    assert_eq!(fixture.state(), BreakerState::Open);
}

#[test]
fn opening_during_ramp_up_doubles_the_open_time_and_later_resets_it() {
    for (millis, pause) in [(1999, 1000), (2000, 500)] {
        let mut fixture = Fixture::closed_again();
        fixture.pass(millis);
        let Some(Transition::Opened { pause: lasts, again, .. }) =
            fixture.calls(10, &unreachable())
        else {
            panic!("all failed");
        };
        assert_eq!((lasts.as_millis(), again), (pause, false), "after {millis} ms");
    }
}

#[test]
fn probe_with_an_unreadable_answer_succeeds() {
    let mut fixture = Fixture::opened();
    fixture.pass(500);
    fixture.calls(PROBES, &failed(StoreErrorKind::Unreadable));
    assert_eq!(fixture.state(), BreakerState::Closed);
}

#[test]
fn probe_without_evidence_is_released() {
    let mut fixture = Fixture::opened();
    fixture.pass(500);
    for outcome in [Outcome::Nothing, failed(StoreErrorKind::Saturated)] {
        for _ in 0..100 {
            let probes: Vec<_> = (0..PROBES).map(|_| fixture.admit().unwrap()).collect();
            assert!(fixture.admit().is_none());
            for probe in probes {
                assert_eq!(fixture.end(probe, &outcome), None);
            }
        }
    }
    assert_eq!(fixture.state(), BreakerState::HalfOpen);
    fixture.calls(PROBES, &answered(FAST));
    assert_eq!(fixture.state(), BreakerState::Closed);
}

#[test]
fn call_admitted_before_a_state_change_does_not_count() {
    let mut fixture = Fixture::new();
    let late: Vec<_> = (0..30).map(|_| fixture.admit().unwrap()).collect();
    let mut late = late.into_iter();
    fixture.calls(10, &unreachable());
    // Open: late failures neither reopen nor extend it.
    assert_eq!(fixture.end(late.next().unwrap(), &unreachable()), None);
    fixture.pass(500);
    let probe = fixture.admit().unwrap();
    // Half-open: late failures, answers and dropped calls do not count as probes.
    for outcome in [unreachable(), answered(FAST), answered(FAST), answered(FAST), Outcome::Nothing]
    {
        assert_eq!(fixture.end(late.next().unwrap(), &outcome), None);
    }
    assert_eq!(fixture.state(), BreakerState::HalfOpen);
    fixture.calls(PROBES - 1, &answered(FAST));
    assert!(fixture.admit().is_none());
    fixture.end(probe, &answered(FAST));
    assert_eq!(fixture.state(), BreakerState::Closed);
    // Closed again: calls admitted earlier do not count.
    for ticket in late {
        assert_eq!(fixture.end(ticket, &unreachable()), None);
    }
    assert_eq!(fixture.state(), BreakerState::Closed);
}
