//! Gaps that cannot be replayed, and what only resembles them.

use super::*;
use crate::store::Row;

/// Asserts that `make` causes a gap: every entry stays, loses its coverage and is revalidated,
/// and later changes are followed.
async fn is_a_gap(fixture: &Fixture, make: impl FnOnce(&FakeStore, Digest), next: i64) {
    let (key, warmed) = (fixture.warm(1).await, Instant::now());
    sleep(A_BEAT).await;
    assert!(fixture.covers(warmed));
    fixture.store.put(key, record("another", 0));
    make(&fixture.store, key);
    fixture.store.cut();
    sleep(Duration::from_millis(400)).await;
    assert!(fixture.memory.knows(&key), "nothing is purged");
    assert!(!fixture.covers(warmed), "its changes are unknown");
    assert!(fixture.covers(Instant::now()), "later answers are covered");
    assert_eq!(fixture.principal(&key), "another", "it was revalidated");
    fixture.store.announce(next, key, ChangeKind::Updated);
    sleep(AT_ONCE).await;
    assert!(!fixture.has(&key), "later changes are followed");
}

/// Writes canaries of other instances.
async fn canaries(store: &FakeStore, count: u8) {
    for number in 0..count {
        store.canary(&Digest::from_bytes([100 + number; Digest::LEN])).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn lost_changes_are_a_gap() {
    let fixture = fixture().await;
    fixture.store.announce(100, UNKNOWN, ChangeKind::Created);
    is_a_gap(&fixture, |store, _| store.lose_changes(), 1).await;
}

#[tokio::test(start_paused = true)]
async fn reused_last_number_is_a_gap() {
    let fixture = fixture().await;
    fixture.store.announce(100, UNKNOWN, ChangeKind::Created);
    let take_over = |store: &FakeStore, key| {
        store.lose_changes();
        store.announce(100, key, ChangeKind::Created);
        store.announce(101, UNKNOWN, ChangeKind::Created);
    };
    is_a_gap(&fixture, take_over, 102).await;
}

#[tokio::test(start_paused = true)]
async fn missing_last_change_is_a_gap() {
    let fixture = fixture().await;
    fixture.store.announce(100, UNKNOWN, ChangeKind::Created);
    let take_over = |store: &FakeStore, _| {
        store.lose_changes();
        store.announce(133, UNKNOWN, ChangeKind::Created);
    };
    is_a_gap(&fixture, take_over, 134).await;
}

#[tokio::test(start_paused = true)]
async fn change_with_the_number_of_a_lost_canary_is_read() {
    let fixture = fixture().await;
    let (key, warmed) = (fixture.warm(1).await, Instant::now());
    fixture.store.announce(1, UNKNOWN, ChangeKind::Created);
    canaries(&fixture.store, 3).await;
    sleep(AT_ONCE).await;
    fixture.store.set(Mood::Fails(StoreErrorKind::Unreachable));
    fixture.store.cut();
    fixture.store.lose_changes();
    fixture.store.announce(1, UNKNOWN, ChangeKind::Created);
    fixture.store.announce(2, key, ChangeKind::Updated);
    fixture.store.set(Mood::Answers);
    canaries(&fixture.store, 3).await;
    sleep(Duration::from_millis(400)).await;
    assert!(!fixture.has(&key));
    assert!(fixture.coverage.since().unwrap() <= warmed, "nothing was missed");
}

#[tokio::test(start_paused = true)]
async fn canaries_already_read_do_not_count_towards_max_replay() {
    let fixture = fixture_with(|config| config.max_replay = 10.try_into().unwrap()).await;
    let warmed = Instant::now();
    fixture.store.announce(1, UNKNOWN, ChangeKind::Created);
    for _ in 0..10 {
        canaries(&fixture.store, 2).await;
        sleep(AT_ONCE).await;
    }
    fixture.store.cut();
    sleep(Duration::from_millis(400)).await;
    assert!(fixture.coverage.since().unwrap() <= warmed, "nothing was missed");
}

#[tokio::test(start_paused = true)]
async fn other_store_is_detected_without_a_change_since_the_start() {
    for is_a_canary in [false, true] {
        let mut fixture = idle_fixture(|_| (), None);
        if is_a_canary {
            canaries(&fixture.store, 3).await;
        } else {
            fixture.store.announce(3, UNKNOWN, ChangeKind::Created);
        }
        fixture.begin().await;
        let take_over = |store: &FakeStore, key| {
            store.lose_changes();
            store.announce(3, key, ChangeKind::Updated);
            store.announce(4, UNKNOWN, ChangeKind::Created);
        };
        is_a_gap(&fixture, take_over, 5).await;
    }
}

#[tokio::test(start_paused = true)]
async fn other_store_is_detected_without_a_change_since_a_gap() {
    let fixture = fixture().await;
    fixture.store.announce(100, UNKNOWN, ChangeKind::Created);
    let take_over = |n| {
        move |store: &FakeStore, key| {
            store.lose_changes();
            store.announce(n, key, ChangeKind::Created);
            store.announce(101, UNKNOWN, ChangeKind::Created);
        }
    };
    let warmed = Instant::now();
    sleep(AT_ONCE).await;
    take_over(99)(&fixture.store, UNKNOWN);
    fixture.store.cut();
    sleep(Duration::from_millis(400)).await;
    assert!(!fixture.covers(warmed));
    let again = |store: &FakeStore, key| {
        store.lose_changes();
        store.announce(101, key, ChangeKind::Created);
    };
    is_a_gap(&fixture, again, 102).await;
}

#[tokio::test(start_paused = true)]
async fn missing_canary_landmark_is_a_gap() {
    let mut fixture = idle_fixture(|_| (), None);
    canaries(&fixture.store, 3).await;
    fixture.begin().await;
    let take_over = |store: &FakeStore, _| {
        store.lose_changes();
        store.announce(4, UNKNOWN, ChangeKind::Created);
    };
    is_a_gap(&fixture, take_over, 5).await;
}

#[tokio::test(start_paused = true)]
async fn other_store_than_the_restored_one_is_a_gap() {
    let known = Row { revision: Revision(90), digest: UNKNOWN, kind: Some(ChangeKind::Created) };
    let covers_after = async |digest| {
        let mut fixture = idle_fixture(|_| (), Some(100));
        let warmed = Instant::now();
        fixture.coverage.resume(warmed, warmed);
        sleep(AT_ONCE).await;
        let (_, resume, _) = fixture.parts.as_mut().unwrap();
        resume.as_mut().unwrap().landmark = Some(known);
        fixture.store.announce(90, digest, ChangeKind::Created);
        fixture.store.announce(101, UNKNOWN, ChangeKind::Created);
        fixture.begin().await;
        fixture.coverage.since() == Some(warmed)
    };
    assert!(covers_after(UNKNOWN).await);
    assert!(!covers_after(Digest::from_bytes([8; Digest::LEN])).await);
}

#[tokio::test(start_paused = true)]
async fn changes_pruned_before_they_were_read_are_a_gap() {
    let fixture = fixture().await;
    fixture.store.announce(1, UNKNOWN, ChangeKind::Created);
    let prune = |store: &FakeStore, key| {
        store.set(Mood::Fails(StoreErrorKind::Unreachable));
        store.announce(2, key, ChangeKind::Updated);
        store.announce(3, UNKNOWN, ChangeKind::Updated);
        store.prune(2);
        store.set(Mood::Answers);
    };
    is_a_gap(&fixture, prune, 4).await;
}

#[tokio::test(start_paused = true)]
async fn more_changes_than_max_replay_are_a_gap() {
    let fixture = fixture_with(|config| config.max_replay = 10.try_into().unwrap()).await;
    let import = |store: &FakeStore, _| {
        store.set(Mood::Fails(StoreErrorKind::Unreachable));
        for n in 1..=11 {
            store.announce(n, UNKNOWN, ChangeKind::Created);
        }
        store.set(Mood::Answers);
    };
    is_a_gap(&fixture, import, 12).await;
}

#[tokio::test(start_paused = true)]
async fn max_replay_changes_are_no_gap() {
    let fixture = fixture_with(|config| config.max_replay = 10.try_into().unwrap()).await;
    fixture.store.announce(1, UNKNOWN, ChangeKind::Created);
    sleep(AT_ONCE).await;
    let warmed = Instant::now();
    fixture.store.set(Mood::Fails(StoreErrorKind::Unreachable));
    fixture.store.cut();
    for n in 2..=11 {
        fixture.store.announce(n, UNKNOWN, ChangeKind::Created);
    }
    fixture.store.set(Mood::Answers);
    sleep(Duration::from_millis(400)).await;
    assert!(fixture.coverage.since().unwrap() <= warmed);
}

#[tokio::test(start_paused = true)]
async fn unassigned_numbers_are_no_gap() {
    let fixture = fixture().await;
    let (key, warmed) = (fixture.warm(1).await, Instant::now());
    fixture.store.announce(7, UNKNOWN, ChangeKind::Created);
    sleep(AT_ONCE).await;
    fixture.store.cut();
    fixture.store.announce(50, key, ChangeKind::Created);
    sleep(Duration::from_millis(400)).await;
    assert!(!fixture.has(&key));
    assert!(fixture.coverage.since().unwrap() <= warmed);
}

#[tokio::test(start_paused = true)]
async fn pruning_changes_already_read_is_no_gap() {
    let fixture = fixture().await;
    fixture.store.announce(1, UNKNOWN, ChangeKind::Created);
    fixture.store.announce(2, UNKNOWN, ChangeKind::Created);
    let (key, warmed) = (fixture.warm(1).await, Instant::now());
    sleep(AT_ONCE).await;
    fixture.store.prune(1);
    fixture.store.cut();
    sleep(Duration::from_millis(400)).await;
    fixture.store.prune(2);
    fixture.store.announce(3, key, ChangeKind::Updated);
    fixture.store.cut();
    sleep(Duration::from_millis(400)).await;
    assert!(!fixture.has(&key));
    assert!(fixture.coverage.since().unwrap() <= warmed, "nothing was missed");
}
