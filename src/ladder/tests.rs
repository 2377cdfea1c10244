use super::*;

struct Bench {
    ladder: Ladder,
    store: TierWatch,
    feed: TierWatch,
}

fn bench() -> Bench {
    let ladder = Ladder::new(Clock::System);
    let watch = |tier| TierWatch::new(tier, ladder.clone(), Clock::System);
    Bench { store: watch(Dependency::Store), feed: watch(Dependency::Feed), ladder }
}

fn started() -> Bench {
    let mut bench = bench();
    bench.store.observe(Ok(()));
    bench.feed.observe(Ok(()));
    assert_eq!(bench.ladder.standing().rung, Rung::Normal);
    bench
}

fn failure() -> Result<(), StoreError> {
    Err(StoreError::new(StoreErrorKind::Timeout, "late"))
}

#[test]
fn an_instance_whose_store_never_answered_is_starting_and_does_not_serve() {
    let mut bench = bench();
    bench.feed.observe(Ok(()));
    for _ in 0..5 {
        bench.store.observe(failure());
    }
    let standing = bench.ladder.standing();
    assert_eq!(standing.rung, Rung::Starting);
    assert!(!standing.rung.serves());
    assert!(matches!(standing.store, TierState::Down { cause: StoreErrorKind::Timeout, .. }));
}

#[test]
fn an_instance_that_cannot_notice_changes_does_not_begin_to_serve() {
    let mut bench = bench();
    bench.store.observe(Ok(()));
    bench.feed.observe(failure());
    assert_eq!(bench.ladder.standing().rung, Rung::Starting);
    bench.feed.observe(Ok(()));
    assert_eq!(bench.ladder.standing().rung, Rung::Normal);
}

#[test]
fn an_instance_whose_store_has_no_changes_does_not_wait_for_them() {
    let mut bench = bench();
    bench.feed.absent();
    assert_eq!(bench.ladder.standing().rung, Rung::Starting);
    bench.store.observe(Ok(()));
    let standing = bench.ladder.standing();
    assert_eq!((standing.rung, standing.feed), (Rung::Normal, TierState::None));
}

#[test]
fn an_outage_degrades_but_does_not_take_the_instance_out() {
    let mut bench = started();
    bench.store.observe(failure());
    assert_eq!(bench.ladder.standing().rung, Rung::Normal, "one failure is not yet an outage");
    bench.store.observe(failure());
    assert_eq!(bench.ladder.standing().rung, Rung::Degraded);
    assert!(bench.ladder.standing().rung.serves());
    bench.store.observe(Ok(()));
    assert_eq!(bench.ladder.standing().rung, Rung::Normal);
    assert!(bench.ladder.standing().store.is_up());
}

#[test]
fn a_feed_that_fails_is_shown_and_does_not_take_the_instance_out() {
    let mut bench = started();
    bench.feed.observe(failure());
    bench.feed.observe(failure());
    let standing = bench.ladder.standing();
    assert!(matches!(standing.feed, TierState::Down { .. }));
    assert!(standing.rung.serves());
}

#[test]
fn since_when_is_the_first_failure_that_counted() {
    let mut bench = started();
    bench.store.observe(failure());
    bench.store.observe(failure());
    let TierState::Down { since: first, .. } = bench.ladder.standing().store else {
        panic!("it is down");
    };
    bench.store.observe(failure());
    let TierState::Down { since: later, .. } = bench.ladder.standing().store else {
        panic!("it is down");
    };
    assert_eq!(first, later);
}

#[test]
fn draining_is_final() {
    let mut bench = started();
    bench.ladder.drain();
    bench.store.observe(Ok(()));
    bench.store.observe(failure());
    bench.store.observe(failure());
    assert_eq!(bench.ladder.standing().rung, Rung::Draining);
    assert!(!bench.ladder.standing().rung.serves());
}

const COLD: Share = of(1, 19);
const LUKEWARM: Share = of(3, 17);
const WARM: Share = of(19, 1);

const fn of(answered: u64, unanswered: u64) -> Share {
    let counts = Counts { answered, unanswered };
    Share { keys: counts, checks: counts }
}

fn degraded() -> Bench {
    let mut bench = started();
    for _ in 0..2 {
        bench.store.observe(failure());
    }
    assert_eq!(bench.ladder.standing().rung, Rung::Degraded);
    bench
}

#[test]
fn an_instance_that_answers_hardly_any_check_is_cold_until_it_answers_some() {
    let bench = degraded();
    let assessed = |share| {
        bench.ladder.assess(share);
        bench.ladder.standing().rung
    };
    assert_eq!(assessed(Share::default()), Rung::Degraded, "nobody asked");
    assert_eq!(assessed(LUKEWARM), Rung::Degraded);
    assert_eq!(assessed(COLD), Rung::Cold);
    assert!(!bench.ladder.standing().rung.serves());
    assert_eq!(assessed(LUKEWARM), Rung::Cold, "it does not flap");
    assert_eq!(assessed(WARM), Rung::Degraded);
    assert_eq!(assessed(COLD), Rung::Cold);
    assert_eq!(assessed(Share::default()), Rung::Degraded, "nobody asks: it may be tried again");
}

#[test]
fn a_cold_instance_is_well_as_soon_as_its_store_is() {
    let mut bench = degraded();
    bench.ladder.assess(COLD);
    bench.store.observe(failure());
    assert_eq!(bench.ladder.standing().rung, Rung::Cold);
    bench.store.observe(Ok(()));
    assert_eq!(bench.ladder.standing().rung, Rung::Normal);
}

#[test]
fn unanswered_checks_alone_make_no_instance_cold() {
    let bench = started();
    bench.ladder.assess(COLD);
    assert_eq!(bench.ladder.standing().rung, Rung::Normal);
    bench.ladder.drain();
    bench.ladder.assess(COLD);
    assert_eq!(bench.ladder.standing().rung, Rung::Draining);
}

#[test]
fn an_instance_that_begins_with_keys_in_memory_serves_before_its_store_answers() {
    let mut bench = bench();
    bench.ladder.begin_warm();
    assert_eq!(bench.ladder.standing().rung, Rung::Degraded);
    assert!(bench.ladder.standing().rung.serves());
    for _ in 0..2 {
        bench.store.observe(failure());
    }
    assert_eq!(bench.ladder.standing().rung, Rung::Degraded);
    bench.ladder.assess(COLD);
    assert_eq!(bench.ladder.standing().rung, Rung::Cold);
    bench.store.observe(Ok(()));
    assert_eq!(bench.ladder.standing().rung, Rung::Normal);
}

#[test]
fn an_instance_that_does_not_believe_its_store_is_degraded_and_serves() {
    let bench = started();
    bench.ladder.doubt(Doubt::Suspect, true);
    let standing = bench.ladder.standing();
    assert_eq!(standing.rung, Rung::Degraded);
    assert!(standing.rung.serves() && standing.store.is_up() && !standing.store_is_well());
    bench.ladder.doubt(Doubt::Suspect, false);
    assert_eq!(bench.ladder.standing().rung, Rung::Normal);
}
