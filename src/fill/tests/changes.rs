//! Keys that change during or after a lookup.

use super::*;

#[tokio::test(start_paused = true)]
async fn lookup_begun_before_a_change_cannot_restore_the_old_record() {
    let fixture = fixture(Mood::Hangs, 8, 10);
    let old = fixture.fill.find(ours(KEY), soon());
    let change = async {
        until(|| fixture.store.queries() == 1).await;
        fixture.store.put(KEY, record("changed", 2));
        fixture.fill.apply(&[change(2, KEY, ChangeKind::Updated)]);
        // A caller after the change must not get the old answer.
        let new = fixture.fill.find(ours(KEY), soon());
        let release = async {
            until(|| fixture.store.queries() == 2).await;
            fixture.store.set(Mood::Answers);
        };
        tokio::join!(new, release).0
    };
    let (old, new) = tokio::join!(old, change);
    assert_eq!(principal(old), "acme");
    assert_eq!(principal(new), "changed");
    assert_eq!(principal(remembered(&fixture, &KEY).ok_or(Unavailable::Internal)), "changed");
}

#[tokio::test(start_paused = true)]
async fn answer_as_new_as_a_change_is_cached() {
    for (revision, remembered_at_once) in [(2, true), (1, false)] {
        let fixture = fixture(Mood::Hangs, 8, 10);
        fixture.coverage.confirm(Instant::now());
        fixture.store.put(KEY, record("acme", revision));
        let asked = fixture.fill.find(ours(KEY), soon());
        let change = async {
            until(|| fixture.store.queries() == 1).await;
            fixture.fill.apply(&[change(2, KEY, ChangeKind::Updated)]);
            fixture.store.set(Mood::Answers);
        };
        let (asked, ()) = tokio::join!(asked, change);
        asked.unwrap();
        assert_eq!(remembered(&fixture, &KEY).is_some(), remembered_at_once, "{revision}");
    }
}

#[tokio::test(start_paused = true)]
async fn changed_cached_key_is_refreshed_at_once() {
    let fixture = fixture(Mood::Answers, 8, 10);
    fixture.fill.find(ours(KEY), soon()).await.unwrap();
    fixture.store.put(KEY, record("changed", 2));
    fixture.fill.apply(&[
        change(2, KEY, ChangeKind::Updated),
        change(3, nth(1), ChangeKind::Updated),
        change(4, nth(2), ChangeKind::Created),
    ]);
    assert_eq!(remembered(&fixture, &KEY), None, "the outdated record is not served meanwhile");
    until(|| remembered(&fixture, &KEY).is_some()).await;
    assert_eq!(principal(remembered(&fixture, &KEY).ok_or(Unavailable::Internal)), "changed");
    assert_eq!(fixture.store.queries(), 2);
    for n in [1, 2] {
        assert_eq!(remembered(&fixture, &nth(n)), None, "uncached keys are not refreshed");
    }
}

#[tokio::test(start_paused = true)]
async fn creation_of_a_just_read_key_causes_no_query() {
    let fixture = fixture(Mood::Answers, 8, 10);
    fixture.coverage.confirm(Instant::now());
    fixture.fill.find(ours(KEY), soon()).await.unwrap();
    fixture.fill.apply(&[change(1, KEY, ChangeKind::Created)]);
    assert!(remembered(&fixture, &KEY).is_some());
    assert_eq!(fixture.store.queries(), 1);
}

#[tokio::test(start_paused = true)]
async fn answers_of_a_lagging_standby_are_stale_and_its_absences_are_not_believed() {
    let fixture = fixture(Mood::Answers, 8, 10);
    let as_of = Instant::now();
    fixture.store.tune(|channel| channel.lags_since = Some(as_of));
    tokio::time::advance(Duration::from_secs(10)).await;
    let found = fixture.fill.find(ours(KEY), soon()).await.unwrap();
    assert_eq!(found.freshness, crate::tier::Freshness::StaleIfError);
    assert_eq!(found.validated_at, as_of);
    let lagging = Err(Unavailable::Store(StoreErrorKind::Lagging));
    assert_eq!(fixture.fill.find(ours(nth(1)), soon()).await, lagging);
    assert!(remembered(&fixture, &nth(1)).is_none());
    tokio::time::advance(crate::cache::CacheConfig::default().stale_if_error_for).await;
    assert_eq!(
        fixture.fill.find(ours(KEY), soon()).await,
        lagging,
        "the record is too old to be served"
    );
}
