use super::*;

struct Fixture {
    instance: Instance,
    store: TierWatch,
    feed: TierWatch,
}

fn fixture() -> Fixture {
    let instance = Instance::new(Clock::System);
    let watch = |tier| TierWatch::new(tier, instance.clone(), Clock::System);
    Fixture { store: watch(Dependency::Store), feed: watch(Dependency::Feed), instance }
}

fn started() -> Fixture {
    let mut fixture = fixture();
    fixture.store.observe(Ok(()));
    fixture.feed.observe(Ok(()));
    assert_eq!(fixture.instance.standing().state, InstanceState::Normal);
    fixture
}

fn failure() -> Result<(), StoreError> {
    Err(StoreError::new(StoreErrorKind::Timeout, "late"))
}

#[test]
fn an_instance_whose_store_never_answered_is_starting_and_does_not_serve() {
    let mut fixture = fixture();
    fixture.feed.observe(Ok(()));
    for _ in 0..5 {
        fixture.store.observe(failure());
    }
    let standing = fixture.instance.standing();
    assert_eq!(standing.state, InstanceState::Starting);
    assert!(!standing.state.serves());
    assert!(matches!(standing.store, TierState::Down { cause: StoreErrorKind::Timeout, .. }));
}

#[test]
fn an_instance_that_cannot_notice_changes_does_not_begin_to_serve() {
    let mut fixture = fixture();
    fixture.store.observe(Ok(()));
    fixture.feed.observe(failure());
    assert_eq!(fixture.instance.standing().state, InstanceState::Starting);
    fixture.feed.observe(Ok(()));
    assert_eq!(fixture.instance.standing().state, InstanceState::Normal);
}

#[test]
fn an_instance_whose_store_has_no_changes_does_not_wait_for_them() {
    let mut fixture = fixture();
    fixture.feed.absent();
    assert_eq!(fixture.instance.standing().state, InstanceState::Starting);
    fixture.store.observe(Ok(()));
    let standing = fixture.instance.standing();
    assert_eq!((standing.state, standing.feed), (InstanceState::Normal, TierState::None));
}

#[test]
fn an_outage_degrades_but_does_not_take_the_instance_out() {
    let mut fixture = started();
    fixture.store.observe(failure());
    assert_eq!(
        fixture.instance.standing().state,
        InstanceState::Normal,
        "one failure is not yet an outage"
    );
    fixture.store.observe(failure());
    assert_eq!(fixture.instance.standing().state, InstanceState::Degraded);
    assert!(fixture.instance.standing().state.serves());
    fixture.store.observe(Ok(()));
    assert_eq!(fixture.instance.standing().state, InstanceState::Normal);
    assert!(fixture.instance.standing().store.is_up());
}

#[test]
fn a_feed_that_fails_is_shown_and_does_not_take_the_instance_out() {
    let mut fixture = started();
    fixture.feed.observe(failure());
    fixture.feed.observe(failure());
    let standing = fixture.instance.standing();
    assert!(matches!(standing.feed, TierState::Down { .. }));
    assert!(standing.state.serves());
}

#[test]
fn since_when_is_the_first_failure_that_counted() {
    let mut fixture = started();
    fixture.store.observe(failure());
    fixture.store.observe(failure());
    let TierState::Down { since: first, .. } = fixture.instance.standing().store else {
        panic!("it is down");
    };
    fixture.store.observe(failure());
    let TierState::Down { since: later, .. } = fixture.instance.standing().store else {
        panic!("it is down");
    };
    assert_eq!(first, later);
}

#[test]
fn draining_is_final() {
    let mut fixture = started();
    fixture.instance.drain();
    fixture.store.observe(Ok(()));
    fixture.store.observe(failure());
    fixture.store.observe(failure());
    assert_eq!(fixture.instance.standing().state, InstanceState::Draining);
    assert!(!fixture.instance.standing().state.serves());
}

const COLD: Share = of(1, 19);
const LUKEWARM: Share = of(3, 17);
const WARM: Share = of(19, 1);

const fn of(answered: u64, unanswered: u64) -> Share {
    let counts = Counts { answered, unanswered };
    Share { keys: counts, checks: counts }
}

fn degraded() -> Fixture {
    let mut fixture = started();
    for _ in 0..2 {
        fixture.store.observe(failure());
    }
    assert_eq!(fixture.instance.standing().state, InstanceState::Degraded);
    fixture
}

#[test]
fn an_instance_that_answers_hardly_any_check_is_cold_until_it_answers_some() {
    let fixture = degraded();
    let assessed = |share| {
        fixture.instance.assess(share);
        fixture.instance.standing().state
    };
    assert_eq!(assessed(Share::default()), InstanceState::Degraded, "nobody asked");
    assert_eq!(assessed(LUKEWARM), InstanceState::Degraded);
    assert_eq!(assessed(COLD), InstanceState::Cold);
    assert!(!fixture.instance.standing().state.serves());
    assert_eq!(assessed(LUKEWARM), InstanceState::Cold, "it does not flap");
    assert_eq!(assessed(WARM), InstanceState::Degraded);
    assert_eq!(assessed(COLD), InstanceState::Cold);
    assert_eq!(
        assessed(Share::default()),
        InstanceState::Degraded,
        "nobody asks: it may be tried again"
    );
}

#[test]
fn a_cold_instance_is_well_as_soon_as_its_store_is() {
    let mut fixture = degraded();
    fixture.instance.assess(COLD);
    fixture.store.observe(failure());
    assert_eq!(fixture.instance.standing().state, InstanceState::Cold);
    fixture.store.observe(Ok(()));
    assert_eq!(fixture.instance.standing().state, InstanceState::Normal);
}

#[test]
fn unanswered_checks_alone_make_no_instance_cold() {
    let fixture = started();
    fixture.instance.assess(COLD);
    assert_eq!(fixture.instance.standing().state, InstanceState::Normal);
    fixture.instance.drain();
    fixture.instance.assess(COLD);
    assert_eq!(fixture.instance.standing().state, InstanceState::Draining);
}

#[test]
fn an_instance_that_begins_with_keys_in_memory_serves_before_its_store_answers() {
    let mut fixture = fixture();
    fixture.instance.begin_warm();
    assert_eq!(fixture.instance.standing().state, InstanceState::Degraded);
    assert!(fixture.instance.standing().state.serves());
    for _ in 0..2 {
        fixture.store.observe(failure());
    }
    assert_eq!(fixture.instance.standing().state, InstanceState::Degraded);
    fixture.instance.assess(COLD);
    assert_eq!(fixture.instance.standing().state, InstanceState::Cold);
    fixture.store.observe(Ok(()));
    assert_eq!(fixture.instance.standing().state, InstanceState::Normal);
}

#[test]
fn an_instance_that_does_not_believe_its_store_is_degraded_and_serves() {
    let fixture = started();
    fixture.instance.doubt(Doubt::Suspect, true);
    let standing = fixture.instance.standing();
    assert_eq!(standing.state, InstanceState::Degraded);
    assert!(standing.state.serves() && standing.store.is_up() && !standing.store_is_well());
    fixture.instance.doubt(Doubt::Suspect, false);
    assert_eq!(fixture.instance.standing().state, InstanceState::Normal);
}
