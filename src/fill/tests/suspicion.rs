//! Which absences are believed from a store that lost keys.

use super::*;
use crate::store::History;

#[tokio::test(start_paused = true)]
async fn emptied_store_is_not_believed_about_an_unknown_key() {
    let fixture = fixture(Mood::Answers, 8, 10);
    assert_eq!(principal(fixture.fill.find(ours(nth(1)), soon()).await), "nobody");
    fixture.fill.find(ours(KEY), soon()).await.unwrap();
    assert_eq!(principal(fixture.fill.find(ours(nth(2)), soon()).await), "nobody");
    fixture.store.remove(&KEY);
    let unknown = fixture.fill.find(ours(nth(3)), soon()).await;
    assert_eq!(unknown, Err(Unavailable::Suspect), "the witness is missing as well");
    let freshness = remembered(&fixture, &KEY).unwrap().freshness;
    assert_eq!(freshness, crate::tier::Freshness::StaleIfError, "and is still served");
    // No other witness exists, and a single missing key raises no suspicion.
    assert_eq!(principal(fixture.fill.find(ours(nth(4)), soon()).await), "nobody");
}

#[tokio::test(start_paused = true)]
async fn probe_detects_an_emptied_store() {
    let fixture = fixture(Mood::Answers, 8, 100);
    for n in 0..8 {
        fixture.store.put(nth(n), record("acme", 1));
        fixture.fill.find(ours(nth(n)), soon()).await.unwrap();
    }
    fixture.fill.probe(soon()).await.unwrap().unwrap();
    assert!(!fixture.fill.is_suspect());
    for n in 0..8 {
        fixture.store.remove(&nth(n));
    }
    fixture.fill.probe(soon()).await.unwrap().unwrap();
    assert!(fixture.fill.is_suspect());
    assert_eq!(fixture.fill.find(ours(nth(99)), soon()).await, Err(Unavailable::Suspect));
    for n in 0..8 {
        fixture.store.put(nth(n), record("acme", 1));
    }
    fixture.fill.probe(soon()).await.unwrap().unwrap();
    assert!(!fixture.fill.is_suspect());
    assert_eq!(principal(fixture.fill.find(ours(nth(99)), soon()).await), "nobody");
}

#[tokio::test(start_paused = true)]
async fn witness_may_be_part_of_the_batch() {
    let fixture = fixture(Mood::Answers, 8, 10);
    fixture.fill.find(ours(KEY), soon()).await.unwrap();
    fixture.store.remove(&KEY);
    fixture.fill.refresh(KEY).unwrap();
    let unknown = fixture.fill.find(ours(nth(1)), soon()).await;
    assert_eq!(unknown, Err(Unavailable::Suspect));
    assert_eq!(fixture.store.queries(), 2, "one query for both");
}

#[tokio::test(start_paused = true)]
async fn store_with_a_contradicting_history_is_believed_only_about_recorded_deletions() {
    let fixture = fixture(Mood::Answers, 8, 10);
    let (expected, deleted) = (10, vec![nth(7)]);
    fixture.store.recall(History { expected, found: 5, any: true, deleted: deleted.clone() });
    fixture.fill.recall(soon()).await.unwrap().unwrap();
    assert!(fixture.fill.is_suspect());
    assert_eq!(fixture.fill.find(ours(nth(1)), soon()).await, Err(Unavailable::Suspect));
    assert_eq!(principal(fixture.fill.find(ours(nth(7)), soon()).await), "nobody");
    fixture.fill.apply(&[Change {
        revision: Revision(9),
        digest: nth(8),
        kind: ChangeKind::Deleted,
    }]);
    assert_eq!(principal(fixture.fill.find(ours(nth(8)), soon()).await), "nobody");
    fixture.store.recall(History { expected, found: 10, any: true, deleted });
    fixture.fill.recall(soon()).await.unwrap().unwrap();
    assert!(!fixture.fill.is_suspect());
    assert_eq!(principal(fixture.fill.find(ours(nth(1)), soon()).await), "nobody");
}

#[tokio::test(start_paused = true)]
async fn empty_store_is_believed_only_about_foreign_keys() {
    let fixture = fixture(Mood::Answers, 8, 10);
    fixture.store.recall(History::default());
    fixture.fill.recall(soon()).await.unwrap().unwrap();
    assert_eq!(principal(fixture.fill.find(Credential::Foreign(nth(2)), soon()).await), "nobody");
    assert!(!fixture.fill.is_suspect());
    assert_eq!(fixture.fill.find(ours(nth(1)), soon()).await, Err(Unavailable::Suspect));
    assert!(fixture.fill.is_suspect());
    fixture.store.put(nth(3), record("acme", 1));
    fixture.fill.find(ours(nth(3)), soon()).await.unwrap();
    assert_eq!(principal(fixture.fill.find(ours(nth(1)), soon()).await), "nobody");
}
