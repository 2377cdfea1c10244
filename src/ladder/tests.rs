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
