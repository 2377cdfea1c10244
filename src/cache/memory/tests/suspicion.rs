//! Keys that the store lacks although they were known.

use super::*;

impl Bench {
    /// The store has a key that was known.
    fn has_another(&self) {
        self.suspicion.found(nth(200), true, true, Instant::now());
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_goes_missing_goes_on_until_that_is_confirmed() {
    let bench = Bench::new();
    bench.knows(KEY).await;
    assert_eq!(bench.takes(KEY, None).await, Err(Unavailable::Suspect));
    assert_eq!(bench.freshness(&KEY), Some((Freshness::StaleIfError, Serve::AndRefresh)));
    advance(4 * SECOND).await;
    bench.has_another();
    assert_eq!(bench.takes(KEY, None).await, Err(Unavailable::Suspect));
    advance(SECOND).await;
    bench.takes(KEY, None).await.unwrap();
    assert!(bench.is_absent(&KEY));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_found_again_is_as_good_as_before() {
    let bench = Bench::new();
    bench.knows(KEY).await;
    assert_eq!(bench.takes(KEY, None).await, Err(Unavailable::Suspect));
    bench.knows(KEY).await;
    assert_eq!(bench.freshness(&KEY), Some((Freshness::Fresh, Serve::AtOnce)));
    advance(60 * SECOND).await;
    // What was missed before does not count towards the confirmation.
    assert_eq!(bench.takes(KEY, None).await, Err(Unavailable::Suspect));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_could_not_be_used_anyway_is_not_missed() {
    let bench = Bench::new();
    let now = Clock::System.wall();
    let revoked = KeyRecord { state: State::Revoked, ..record("acme", 1) };
    let mut expired = record("acme", 1);
    expired.rights.expires_at = Some(now - SignedDuration::from_secs(1));
    for row in [revoked, expired] {
        bench.takes(KEY, Some(row)).await.unwrap();
        bench.takes(KEY, None).await.unwrap();
        assert!(bench.is_absent(&KEY));
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorded_deletion_is_believed_at_once() {
    let bench = Bench::new();
    bench.knows(KEY).await;
    assert!(bench.memory.change(&change(2, KEY, ChangeKind::Deleted)));
    bench.takes(KEY, None).await.unwrap();
    assert!(bench.is_absent(&KEY));
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_suspect_no_absence_counts_and_known_keys_go_on() {
    let bench = Bench::new();
    let unknown = nth(100);
    bench.takes(unknown, None).await.unwrap();
    for n in 0..5 {
        bench.knows(nth(n)).await;
    }
    for n in 0..5 {
        assert_eq!(bench.takes(nth(n), None).await, Err(Unavailable::Suspect));
    }
    assert!(bench.suspicion.is_suspect());
    assert!(!bench.is_absent(&unknown), "an absence from before does not count either");
    assert_eq!(bench.takes(unknown, None).await, Err(Unavailable::Suspect));
    advance(60 * SECOND).await;
    for n in 0..5 {
        assert_eq!(bench.takes(nth(n), None).await, Err(Unavailable::Suspect));
        assert_eq!(bench.freshness(&nth(n)).unwrap().0, Freshness::StaleIfError);
    }
    bench.takes(unknown, Some(record("new", 9))).await.unwrap();
    assert!(bench.suspicion.is_suspect(), "a key that nobody knew says nothing for the store");

    for n in 0..5 {
        bench.knows(nth(n)).await;
    }
    assert!(!bench.suspicion.is_suspect());
    bench.takes(nth(101), None).await.unwrap();
    assert!(bench.is_absent(&nth(101)));
}

#[tokio::test(start_paused = true)]
async fn with_the_doubt_turned_off_every_absence_is_believed() {
    let suspect = SuspectConfig { enabled: false, ..SuspectConfig::default() };
    let bench = Bench::of(CacheConfig::default(), suspect);
    for n in 0..20 {
        bench.knows(nth(n)).await;
    }
    for n in 0..20 {
        bench.takes(nth(n), None).await.unwrap();
        assert!(bench.is_absent(&nth(n)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_witness_that_is_missing_is_doubted_but_nothing_is_taken_from_its_answer() {
    let bench = Bench::new();
    bench.knows(KEY).await;
    let absent = answer(KEY, None).await;
    for _ in 0..2 {
        bench.memory.take_witness(&KEY, &absent, Instant::now());
        assert_eq!(bench.freshness(&KEY).unwrap().0, Freshness::StaleIfError);
        advance(60 * SECOND).await;
    }
    let found = answer(KEY, Some(record("other", 2))).await;
    bench.memory.take_witness(&KEY, &found, Instant::now());
    let Some(Held { sighting: Sighting { answer: Answer::Found(known), .. }, .. }) =
        bench.memory.look(&KEY, Instant::now())
    else {
        panic!("it is gone");
    };
    assert_eq!(known.principal(), "acme");
}

#[tokio::test(start_paused = true)]
async fn a_witness_that_is_found_again_is_not_missing_any_more() {
    let bench = Bench::new();
    bench.knows(KEY).await;
    bench.memory.take_witness(&KEY, &answer(KEY, None).await, Instant::now());
    let found = answer(KEY, Some(record("acme", 1))).await;
    bench.memory.take_witness(&KEY, &found, Instant::now());
    assert_eq!(bench.freshness(&KEY).unwrap().0, Freshness::Fresh);
    advance(60 * SECOND).await;
    assert_eq!(bench.takes(KEY, None).await, Err(Unavailable::Suspect), "it counts from now");
}

#[tokio::test(start_paused = true)]
async fn what_was_missing_long_ago_and_not_asked_about_since_is_doubted_anew() {
    let bench = Bench::new();
    bench.knows(KEY).await;
    assert_eq!(bench.takes(KEY, None).await, Err(Unavailable::Suspect));
    advance(5 * 60 * SECOND).await;
    assert_eq!(bench.takes(KEY, None).await, Err(Unavailable::Suspect));
    advance(5 * SECOND).await;
    bench.has_another();
    bench.takes(KEY, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_witness_that_is_not_held_any_more_is_no_witness_any_more() {
    let bench = Bench::new();
    bench.suspicion.found(KEY, false, true, Instant::now());
    bench.memory.take_witness(&KEY, &answer(KEY, None).await, Instant::now());
    assert!(bench.suspicion.witnesses(9).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_witness_that_was_asked_for_before_it_was_stored_is_not_missed() {
    let bench = Bench::new();
    let asked_at = Instant::now();
    advance(SECOND).await;
    bench.knows(KEY).await;
    bench.memory.take_witness(&KEY, &answer(KEY, None).await, asked_at);
    assert_eq!(bench.freshness(&KEY).unwrap().0, Freshness::Fresh);
}
