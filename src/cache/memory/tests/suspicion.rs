//! Cached keys that the store no longer has.

use super::*;

impl Fixture {
    /// Records that the store has a known key.
    fn has_another(&self) {
        self.suspicion.found(nth(200), true, true, Instant::now());
    }
}

#[tokio::test(start_paused = true)]
async fn missing_key_is_served_until_its_absence_is_confirmed() {
    let fixture = Fixture::new();
    fixture.knows(KEY).await;
    assert_eq!(fixture.takes(KEY, None).await, Err(Unavailable::Suspect));
    assert_eq!(fixture.freshness(&KEY), Some((Freshness::StaleIfError, Serve::AndRefresh)));
    advance(4 * SECOND).await;
    fixture.has_another();
    assert_eq!(fixture.takes(KEY, None).await, Err(Unavailable::Suspect));
    advance(SECOND).await;
    fixture.takes(KEY, None).await.unwrap();
    assert!(fixture.is_absent(&KEY));
}

#[tokio::test(start_paused = true)]
async fn key_found_again_is_fully_restored() {
    let fixture = Fixture::new();
    fixture.knows(KEY).await;
    assert_eq!(fixture.takes(KEY, None).await, Err(Unavailable::Suspect));
    fixture.knows(KEY).await;
    assert_eq!(fixture.freshness(&KEY), Some((Freshness::Fresh, Serve::AtOnce)));
    advance(60 * SECOND).await;
    // The earlier report does not count towards the confirmation.
    assert_eq!(fixture.takes(KEY, None).await, Err(Unavailable::Suspect));
}

#[tokio::test(start_paused = true)]
async fn absence_of_an_unusable_key_is_believed() {
    let fixture = Fixture::new();
    let now = Clock::System.wall();
    let revoked = KeyRecord { state: State::Revoked, ..record("acme", 1) };
    let mut expired = record("acme", 1);
    expired.rights.expires_at = Some(now - SignedDuration::from_secs(1));
    for row in [revoked, expired] {
        fixture.takes(KEY, Some(row)).await.unwrap();
        fixture.takes(KEY, None).await.unwrap();
        assert!(fixture.is_absent(&KEY));
    }
}

#[tokio::test(start_paused = true)]
async fn recorded_deletion_is_believed_at_once() {
    let fixture = Fixture::new();
    fixture.knows(KEY).await;
    assert!(fixture.memory.change(&change(2, KEY, ChangeKind::Deleted)));
    fixture.takes(KEY, None).await.unwrap();
    assert!(fixture.is_absent(&KEY));
}

#[tokio::test(start_paused = true)]
async fn suspect_store_is_not_believed_about_absences_and_known_keys_are_served() {
    let fixture = Fixture::new();
    let unknown = nth(100);
    fixture.takes(unknown, None).await.unwrap();
    for n in 0..5 {
        fixture.knows(nth(n)).await;
    }
    for n in 0..5 {
        assert_eq!(fixture.takes(nth(n), None).await, Err(Unavailable::Suspect));
    }
    assert!(fixture.suspicion.is_suspect());
    assert!(!fixture.is_absent(&unknown), "an earlier absence is not believed either");
    assert_eq!(fixture.takes(unknown, None).await, Err(Unavailable::Suspect));
    advance(60 * SECOND).await;
    for n in 0..5 {
        assert_eq!(fixture.takes(nth(n), None).await, Err(Unavailable::Suspect));
        assert_eq!(fixture.freshness(&nth(n)).unwrap().0, Freshness::StaleIfError);
    }
    fixture.takes(unknown, Some(record("new", 9))).await.unwrap();
    assert!(fixture.suspicion.is_suspect(), "an unknown key is no evidence for the store");

    for n in 0..5 {
        fixture.knows(nth(n)).await;
    }
    assert!(!fixture.suspicion.is_suspect());
    fixture.takes(nth(101), None).await.unwrap();
    assert!(fixture.is_absent(&nth(101)));
}

#[tokio::test(start_paused = true)]
async fn every_absence_is_believed_if_suspicion_is_disabled() {
    let suspect = SuspectConfig { enabled: false, ..SuspectConfig::default() };
    let fixture = Fixture::of(CacheConfig::default(), suspect);
    for n in 0..20 {
        fixture.knows(nth(n)).await;
    }
    for n in 0..20 {
        fixture.takes(nth(n), None).await.unwrap();
        assert!(fixture.is_absent(&nth(n)));
    }
}

#[tokio::test(start_paused = true)]
async fn missing_witness_is_doubted_and_its_answer_is_not_cached() {
    let fixture = Fixture::new();
    fixture.knows(KEY).await;
    let absent = answer(KEY, None).await;
    for _ in 0..2 {
        fixture.memory.take_witness(&KEY, &absent, Instant::now());
        assert_eq!(fixture.freshness(&KEY).unwrap().0, Freshness::StaleIfError);
        advance(60 * SECOND).await;
    }
    let found = answer(KEY, Some(record("other", 2))).await;
    fixture.memory.take_witness(&KEY, &found, Instant::now());
    let Some(Hit { observation: Observation { answer: Answer::Found(known), .. }, .. }) =
        fixture.memory.look(&KEY, Instant::now())
    else {
        panic!("it is gone");
    };
    assert_eq!(known.principal(), "acme");
}

#[tokio::test(start_paused = true)]
async fn witness_found_again_is_no_longer_missing() {
    let fixture = Fixture::new();
    fixture.knows(KEY).await;
    fixture.memory.take_witness(&KEY, &answer(KEY, None).await, Instant::now());
    let found = answer(KEY, Some(record("acme", 1))).await;
    fixture.memory.take_witness(&KEY, &found, Instant::now());
    assert_eq!(fixture.freshness(&KEY).unwrap().0, Freshness::Fresh);
    advance(60 * SECOND).await;
    assert_eq!(fixture.takes(KEY, None).await, Err(Unavailable::Suspect), "the period starts anew");
}

#[tokio::test(start_paused = true)]
async fn old_report_of_a_missing_key_does_not_count_towards_confirmation() {
    let fixture = Fixture::new();
    fixture.knows(KEY).await;
    assert_eq!(fixture.takes(KEY, None).await, Err(Unavailable::Suspect));
    advance(5 * 60 * SECOND).await;
    assert_eq!(fixture.takes(KEY, None).await, Err(Unavailable::Suspect));
    advance(5 * SECOND).await;
    fixture.has_another();
    fixture.takes(KEY, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn missing_uncached_key_is_no_longer_a_witness() {
    let fixture = Fixture::new();
    fixture.suspicion.found(KEY, false, true, Instant::now());
    fixture.memory.take_witness(&KEY, &answer(KEY, None).await, Instant::now());
    assert!(fixture.suspicion.witnesses(9).is_empty());
}

#[tokio::test(start_paused = true)]
async fn witness_queried_before_it_was_stored_is_not_missing() {
    let fixture = Fixture::new();
    let asked_at = Instant::now();
    advance(SECOND).await;
    fixture.knows(KEY).await;
    fixture.memory.take_witness(&KEY, &answer(KEY, None).await, asked_at);
    assert_eq!(fixture.freshness(&KEY).unwrap().0, Freshness::Fresh);
}
