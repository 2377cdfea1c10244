//! What the history of a store says for it and against it.

use super::*;

#[test]
fn before_the_history_is_heard_nothing_is_believed_but_a_recorded_deletion() {
    let suspicion = Suspicion::new(SuspectConfig::default()).awaiting_history();
    let fixture = Fixture { suspicion, start: Instant::now() };
    assert!(!fixture.suspicion.believes_absence(&nth(1), false) && !fixture.suspicion.is_suspect());
    fixture.hears(9, 9, 0);
    for ours in [true, false] {
        assert!(fixture.suspicion.believes_absence(&nth(1), ours));
    }
}

#[test]
fn a_history_speaks_against_a_store_that_has_nothing_or_too_little_of_it() {
    let fixture = Fixture::new();
    for (expected, found, suspect) in [
        (1, 0, true),
        (1, 1, false),
        (12, 7, true),
        (13, 8, false),
        (9, 5, false),
        (1000, 600, true),
        (1000, 601, false),
        (0, 0, false),
    ] {
        fixture.hears(expected, found, 0);
        assert_eq!(fixture.suspicion.is_suspect(), suspect, "{found} of {expected}");
        assert_eq!(fixture.suspicion.believes_absence(&nth(1), false), !suspect);
        assert!(fixture.suspicion.believes_absence(&nth(255), true), "it was deleted");
    }
}

#[test]
fn of_a_key_of_ours_a_store_that_holds_nothing_says_nothing() {
    let suspicion = Suspicion::new(SuspectConfig::default()).awaiting_history();
    let fixture = Fixture { suspicion, start: Instant::now() };
    fixture.hears(0, 0, 0);
    assert!(!fixture.suspicion.believes_absence(&nth(1), true) && !fixture.suspicion.is_suspect());
    assert!(fixture.suspicion.believes_absence(&nth(1), false), "it may be made up");
    assert!(!fixture.suspicion.misses_ours(&nth(1)) && fixture.suspicion.is_suspect());
    assert!(fixture.suspicion.misses_ours(&nth(255)), "it was deleted");
    fixture.suspicion.found(nth(2), false, true, fixture.start);
    assert!(fixture.suspicion.misses_ours(&nth(1)) && !fixture.suspicion.is_suspect());
    // A store without a history, such as a table of somebody else's.
    let suspicion = Suspicion::new(SuspectConfig::default()).awaiting_history();
    suspicion.hear(None, fixture.start);
    assert!(!suspicion.misses_ours(&nth(1)) && !suspicion.is_suspect());
    assert!(suspicion.believes_absence(&nth(1), false));
}

#[test]
fn the_history_is_asked_for_every_five_seconds_and_at_once_when_a_key_is_missing() {
    let fixture = Fixture::new();
    let wants = |second: u32| fixture.suspicion.wants_history(fixture.start + second * SECOND);
    assert!(wants(0));
    fixture.hears(9, 9, 0);
    assert!(!wants(4) && wants(5));
    fixture.missing(1, 1);
    assert!(wants(1));
    fixture.hears(9, 9, 1);
    assert!(!wants(2));
    fixture.hears(9, 0, 2);
    assert!(wants(2), "until it is over");
}

#[test]
fn a_history_vouches_for_a_single_missing_key_if_it_was_asked_for_since() {
    let fixture = Fixture::new();
    fixture.hears(9, 9, 0);
    fixture.missing(1, 1);
    assert_eq!(fixture.still_missing(1, 1, 6), Verdict::Doubted);
    fixture.hears(9, 8, 2);
    assert_eq!(fixture.still_missing(1, 1, 6), Verdict::Believed);
}
