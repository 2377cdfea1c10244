mod history;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn nth(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

/// A suspicion, and the time by seconds.
struct Fixture {
    suspicion: Suspicion,
    start: Instant,
}

impl Fixture {
    fn new() -> Self {
        Self { suspicion: Suspicion::new(SuspectConfig::default()), start: Instant::now() }
    }

    /// A known key is missing for the first time.
    fn missing(&self, n: u8, second: u32) -> Verdict {
        let now = self.start + second * SECOND;
        self.suspicion.missing(nth(n), now, now)
    }

    fn still_missing(&self, n: u8, since: u32, second: u32) -> Verdict {
        let at = |second: u32| self.start + second * SECOND;
        self.suspicion.missing(nth(n), at(since), at(second))
    }

    /// A known key is there.
    fn found(&self, n: u8, second: u32) {
        self.suspicion.found(nth(n), true, true, self.start + second * SECOND);
    }

    /// The store has told its history.
    fn hears(&self, expected: usize, found: usize, second: u32) {
        let history = History { expected, found, any: found > 0, deleted: vec![nth(255)] };
        self.suspicion.hear(Some(history), self.start + second * SECOND);
    }

    fn suspect() -> Self {
        let fixture = Self::new();
        for n in 0..5 {
            fixture.missing(n, 0);
        }
        assert!(fixture.suspicion.is_suspect());
        fixture
    }
}

#[test]
fn of_keys_that_are_introduced_the_first_few_are_witnesses() {
    let suspicion = Fixture::new().suspicion;
    for n in 0..100 {
        suspicion.introduce(nth(n));
    }
    let mut witnesses = suspicion.witnesses(100);
    witnesses.sort_by_key(|digest| *digest.as_bytes());
    assert_eq!(witnesses, (0..64).map(nth).collect::<Vec<_>>());
    suspicion.found(nth(200), false, true, Instant::now());
    assert!(suspicion.witnesses(100).contains(&nth(200)), "those of late take their place");
    let off = Suspicion::new(SuspectConfig { enabled: false, ..SuspectConfig::default() });
    off.introduce(nth(1));
    assert_eq!(off.next_witness(), None);
}

#[test]
fn one_missing_key_is_believed_when_it_is_confirmed() {
    let fixture = Fixture::new();
    assert_eq!(fixture.missing(1, 0), Verdict::Doubted);
    fixture.found(2, 1);
    assert_eq!(fixture.still_missing(1, 0, 4), Verdict::Doubted);
    assert_eq!(fixture.still_missing(1, 0, 5), Verdict::Believed);
    assert!(!fixture.suspicion.is_suspect());
}

#[test]
fn a_missing_key_is_not_believed_to_be_until_the_store_has_shown_another_since() {
    let fixture = Fixture::new();
    fixture.found(2, 0);
    fixture.missing(1, 1);
    assert_eq!(fixture.still_missing(1, 1, 60), Verdict::Doubted);
    fixture.suspicion.found(nth(3), false, true, fixture.start + 60 * SECOND);
    assert_eq!(fixture.still_missing(1, 1, 60), Verdict::Doubted, "nobody knew that one");
    fixture.found(2, 60);
    assert_eq!(fixture.still_missing(1, 1, 60), Verdict::Believed);
}

#[test]
fn the_fifth_key_within_the_window_makes_the_store_suspect_and_then_nothing_is_confirmed() {
    let fixture = Fixture::new();
    for (n, second) in [(0, 0), (1, 2), (2, 4), (3, 6)] {
        fixture.missing(n, second);
        assert!(!fixture.suspicion.is_suspect());
    }
    assert_eq!(fixture.still_missing(4, 0, 9), Verdict::Doubted);
    assert!(fixture.suspicion.is_suspect());
    assert_eq!(fixture.still_missing(0, 0, 1000), Verdict::Doubted);
}

#[test]
fn keys_that_go_one_by_one_outside_the_window_do_not_add_up() {
    let fixture = Fixture::new();
    for n in 0..20 {
        fixture.missing(n, u32::from(n) * 3);
    }
    assert!(!fixture.suspicion.is_suspect());
}

#[test]
fn the_same_key_counts_once() {
    let fixture = Fixture::new();
    for second in 0..10 {
        fixture.still_missing(1, 0, second);
    }
    assert!(!fixture.suspicion.is_suspect());
}

#[test]
fn five_distinct_known_keys_that_are_found_dispel_the_suspicion() {
    let fixture = Fixture::suspect();
    for _ in 0..10 {
        fixture.suspicion.found(nth(0), true, true, fixture.start);
    }
    assert!(fixture.suspicion.is_suspect(), "one key, however often");
    for n in 10..20 {
        fixture.suspicion.found(nth(n), false, true, fixture.start);
    }
    assert!(fixture.suspicion.is_suspect(), "keys that nobody knew");
    for n in 1..5 {
        assert!(fixture.suspicion.is_suspect());
        fixture.suspicion.found(nth(n), true, true, fixture.start);
    }
    assert!(!fixture.suspicion.is_suspect());
}

#[test]
fn a_further_missing_key_sets_the_count_of_found_ones_back_but_an_old_one_does_not() {
    let fixture = Fixture::suspect();
    for n in 0..4 {
        fixture.suspicion.found(nth(n), true, true, fixture.start);
    }
    fixture.missing(20, 1);
    fixture.found(5, 1);
    assert!(fixture.suspicion.is_suspect());
    fixture.missing(20, 2);
    fixture.missing(4, 2);
    for n in 0..4 {
        fixture.found(n, 2);
    }
    assert!(!fixture.suspicion.is_suspect());
}

#[test]
fn keys_that_are_missing_are_outweighed_by_half_as_many_again_that_are_found() {
    let fixture = Fixture::suspect();
    for n in 10..17 {
        fixture.found(n, 1);
    }
    assert!(fixture.suspicion.is_suspect(), "5 of 12 are two fifths");
    fixture.found(17, 1);
    assert!(!fixture.suspicion.is_suspect());
    for n in 0..5 {
        assert_eq!(fixture.still_missing(n, 0, 5), Verdict::Believed, "they stay missing for ever");
    }
}

#[test]
fn what_was_found_before_the_last_key_was_missing_does_not_count() {
    let fixture = Fixture::new();
    fixture.missing(0, 0);
    for n in 100..200 {
        fixture.found(n, 1);
    }
    for n in 1..5 {
        fixture.missing(n, 2);
    }
    assert!(fixture.suspicion.is_suspect());
}

#[test]
fn recorded_changes_that_explain_what_is_missing_dispel_the_suspicion() {
    let fixture = Fixture::suspect();
    fixture.suspicion.excuse(&nth(9), ChangeKind::Deleted);
    assert!(fixture.suspicion.is_suspect(), "it has nothing to do with it");
    fixture.suspicion.excuse(&nth(0), ChangeKind::Deleted);
    assert!(!fixture.suspicion.is_suspect());
}

#[test]
fn missing_keys_that_nobody_can_ask_for_any_more_are_forgotten() {
    let fixture = Fixture::suspect();
    fixture.missing(0, 599);
    assert_eq!(fixture.suspicion.still_missing(9).len(), 5);
    fixture.missing(0, 600);
    assert_eq!(fixture.suspicion.still_missing(9), [nth(0)]);
    fixture.suspicion.dismiss(&nth(0));
    assert!(fixture.suspicion.still_missing(9).is_empty());
    assert!(fixture.suspicion.is_suspect(), "until known keys are found");
}

#[test]
fn missing_keys_take_turns_to_be_asked_for() {
    let fixture = Fixture::suspect();
    for n in [3, 1, 0, 2, 4] {
        fixture.missing(n, u32::from(n) + 1);
    }
    assert_eq!(fixture.suspicion.still_missing(3), [nth(0), nth(1), nth(2)]);
}

#[test]
fn after_it_was_dispelled_it_takes_as_many_again() {
    let fixture = Fixture::suspect();
    for n in 0..5 {
        fixture.suspicion.found(nth(n), true, true, fixture.start);
    }
    for n in 0..4 {
        fixture.missing(n, 1);
    }
    assert!(!fixture.suspicion.is_suspect());
    fixture.missing(4, 1);
    assert!(fixture.suspicion.is_suspect());
}

#[test]
fn a_key_whose_change_was_recorded_does_not_count() {
    let fixture = Fixture::new();
    for n in 0..4 {
        fixture.missing(n, 0);
    }
    fixture.suspicion.excuse(&nth(0), ChangeKind::Deleted);
    fixture.missing(4, 0);
    assert!(!fixture.suspicion.is_suspect());
    // The others do.
    fixture.missing(5, 0);
    assert!(fixture.suspicion.is_suspect());
}

#[test]
fn witnesses_are_usable_keys_that_were_found_and_not_missed_or_changed_since() {
    let fixture = Fixture::new();
    assert!(fixture.suspicion.witnesses(3).is_empty());
    for n in 0..3 {
        fixture.suspicion.found(nth(n), false, n != 1, fixture.start);
    }
    let mut witnesses = fixture.suspicion.witnesses(9);
    witnesses.sort_unstable_by_key(|digest| *digest.as_bytes());
    assert_eq!(witnesses, [nth(0), nth(2)]);
    fixture.missing(0, 0);
    assert_eq!(fixture.suspicion.witnesses(9), [nth(2)]);
    fixture.suspicion.excuse(&nth(2), ChangeKind::Updated);
    assert!(fixture.suspicion.witnesses(9).is_empty());
}

#[test]
fn witnesses_take_turns() {
    let fixture = Fixture::new();
    for n in 0..4 {
        fixture.suspicion.found(nth(n), false, true, fixture.start);
    }
    let mut asked: Vec<_> = (0..4).flat_map(|_| fixture.suspicion.witnesses(1)).collect();
    asked.sort_unstable_by_key(|digest| *digest.as_bytes());
    assert_eq!(asked, [nth(0), nth(1), nth(2), nth(3)]);
}

#[test]
fn there_are_always_few_witnesses_and_the_newest_stay() {
    let fixture = Fixture::new();
    for n in 0..100 {
        fixture.suspicion.found(nth(n), false, true, fixture.start);
    }
    let mut witnesses = fixture.suspicion.witnesses(1000);
    witnesses.sort_unstable_by_key(|digest| *digest.as_bytes());
    assert_eq!(witnesses, (36..100).map(nth).collect::<Vec<_>>());
}

#[test]
fn turned_off_it_believes_everything_and_has_no_witnesses() {
    let suspicion = Suspicion::new(SuspectConfig { enabled: false, ..Default::default() });
    let now = Instant::now();
    for n in 0..10 {
        suspicion.found(nth(n), true, true, now);
        assert_eq!(suspicion.missing(nth(n), now, now), Verdict::Believed);
    }
    assert!(!suspicion.is_suspect() && suspicion.witnesses(10).is_empty());
}

proptest! {
    /// In whatever order an emptied store is asked for however few or many keys.
    #[test]
    fn an_emptied_store_never_leads_to_a_believed_absence(
        known in 1_u8..40,
        found in 0_u8..40,
        asked in prop::collection::vec((0_u8..40, 0_u32..3), 1..200),
    ) {
        let fixture = Fixture::new();
        for n in 0..found.min(known) {
            fixture.found(n, 0);
        }
        let (mut second, mut since) = (1, [None; 40]);
        for (n, pause) in asked {
            second += pause;
            let n = n % known;
            let first = *since[usize::from(n)].get_or_insert(second);
            prop_assert_eq!(fixture.still_missing(n, first, second), Verdict::Doubted);
        }
    }

    /// With nothing but the probes of every second.
    #[test]
    fn deletes_among_three_times_as_many_keys_that_are_found_are_believed_within_seconds(
        deleted in 1_u8..20,
        others in 0_u8..20,
    ) {
        let fixture = Fixture::new();
        let kept = 3 * deleted + others;
        for n in 0..deleted + kept {
            fixture.found(n, 0);
        }
        for n in 0..deleted {
            fixture.missing(n, 1);
        }
        for second in 2..12 {
            for witness in fixture.suspicion.witnesses(16) {
                fixture.suspicion.found(witness, true, true, fixture.start + second * SECOND);
            }
            for missing in fixture.suspicion.still_missing(250) {
                let (since, now) = (fixture.start + SECOND, fixture.start + second * SECOND);
                fixture.suspicion.missing(missing, since, now);
            }
        }
        prop_assert!(!fixture.suspicion.is_suspect());
        for n in 0..deleted {
            prop_assert_eq!(fixture.still_missing(n, 1, 12), Verdict::Believed);
        }
    }
}
