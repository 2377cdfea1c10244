//! The numbered changes.

use std::num::NonZeroU32;

use jiff::Timestamp;
use keystead::{
    key::{Action, Revision, State},
    store::{
        ChangeKind::{Created, Deleted, Updated},
        Store,
    },
};

use super::{
    Fixture,
    samples::{
        after_now, by_alice, changes, changes_since, digest, holdings, key, lookup, record,
        store_keys, successor, without_numbers,
    },
};

pub(super) async fn an_empty_store_has_no_changes(fixture: impl Fixture) {
    assert_eq!(fixture.store().head().await.unwrap(), Revision(0));
    assert_eq!(changes(&fixture).await, []);
}

pub(super) async fn every_write_is_one_change_of_its_kind_in_order(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1), key(2)]).await;
    for (number, action) in
        [(1, Action::Disable), (2, Action::Revoke), (1, Action::Enable), (1, Action::Revoke)]
    {
        fixture.store().act(&key(number).id, action, None, &by_alice()).await.unwrap();
    }
    store_keys(&fixture, &[key(3)]).await;

    let changes = changes(&fixture).await;
    let expected = [
        (digest(1), Created),
        (digest(2), Created),
        (digest(1), Updated),
        (digest(2), Updated),
        (digest(1), Updated),
        (digest(1), Updated),
        (digest(3), Created),
    ];
    assert_eq!(without_numbers(&changes), expected);
    assert!(changes[0].revision > Revision(0));
    assert_eq!(changes.last().unwrap().revision, fixture.store().head().await.unwrap());
}

pub(super) async fn a_rotation_is_an_update_and_a_creation(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    let seen = changes(&fixture).await;
    let rotate = Action::Rotate { retire_at: after_now(60) };
    let id = key(1).id;
    fixture.store().act(&id, rotate, Some(&successor(2)), &by_alice()).await.unwrap();
    let both = changes_since(&fixture, &seen).await;
    assert_eq!(both, [(digest(1), Updated), (digest(2), Created)]);
}

pub(super) async fn a_record_has_the_number_of_its_last_change(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1), key(2)]).await;
    let after = fixture.store().act(&key(1).id, Action::Disable, None, &by_alice()).await.unwrap();
    let changes = changes(&fixture).await;
    assert_eq!(record(&fixture, 2).await.revision, changes[1].revision);
    assert_eq!(record(&fixture, 1).await.revision, changes[2].revision);
    assert_eq!(after.revision, changes[2].revision);
}

pub(super) async fn changes_go_on_page_by_page(fixture: impl Fixture) {
    let keys: Vec<_> = (0..7).map(key).collect();
    store_keys(&fixture, &keys).await;
    let all = changes(&fixture).await;
    let mut pages = Vec::new();
    let mut last = Revision(0);
    loop {
        let limit = NonZeroU32::new(3).unwrap();
        let page = fixture.store().changes(last, limit).await.unwrap();
        let Some(newest) = page.last() else { break };
        last = newest.revision;
        pages.push(page);
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
    assert_eq!(pages.concat(), all);
}

pub(super) async fn use_is_no_change(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    let (seen, revision) = (changes(&fixture).await, record(&fixture, 1).await.revision);
    fixture.store().touch(&[(key(1).id, after_now(1))]).await.unwrap();
    let (table, at) = (fixture.api_keys(), fixture.instant(after_now(2)));
    fixture.sql(&format!("UPDATE {table} SET last_used_at = {at}")).await;
    let record = record(&fixture, 1).await;
    assert_eq!(record.last_used_at, Some(after_now(2)));
    assert_eq!(record.revision, revision);
    assert_eq!(changes(&fixture).await, seen);
}

pub(super) async fn plain_sql_is_seen_as_changes(fixture: impl Fixture) {
    let (table, one, two) =
        (fixture.api_keys(), fixture.digest(&digest(1)), fixture.digest(&digest(2)));
    let insert = format!(
        "INSERT INTO {table} (id, digest, principal) VALUES ('a', {one}, 'acme'), ('b', {two}, 'acme')"
    );
    fixture.sql(&insert).await;
    let a = lookup(&fixture, digest(1)).await.unwrap();
    assert_eq!((a.rights.principal.as_str(), a.state), ("acme", State::Active));
    assert!(a.created_at > Timestamp::UNIX_EPOCH);

    fixture.sql(&format!("UPDATE {table} SET state = 'revoked'")).await;
    assert_eq!(lookup(&fixture, digest(1)).await.unwrap().state, State::Revoked);
    fixture.sql(&format!("DELETE FROM {table} WHERE id = 'a'")).await;
    assert_eq!(lookup(&fixture, digest(1)).await, None);
    fixture.sql(&format!("DELETE FROM {table}")).await;

    let changes = changes(&fixture).await;
    let mut kinds = without_numbers(&changes);
    // In which order one statement takes its rows is up to the engine.
    kinds[..2].sort_by_key(|(digest, _)| *digest.as_bytes());
    kinds[2..4].sort_by_key(|(digest, _)| *digest.as_bytes());
    let mut both = [digest(1), digest(2)];
    both.sort_by_key(|digest| *digest.as_bytes());
    let expected = [
        (both[0], Created),
        (both[1], Created),
        (both[0], Updated),
        (both[1], Updated),
        (digest(1), Deleted),
        (digest(2), Deleted),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(fixture.store().head().await.unwrap(), changes[5].revision);
}

pub(super) async fn a_plain_change_of_the_digest_is_a_deletion_and_a_creation(
    fixture: impl Fixture,
) {
    store_keys(&fixture, &[key(1)]).await;
    let seen = changes(&fixture).await;
    let (table, two) = (fixture.api_keys(), fixture.digest(&digest(2)));
    fixture.sql(&format!("UPDATE {table} SET digest = {two}, name = 'moved'")).await;

    let moved = changes_since(&fixture, &seen).await;
    assert_eq!(moved, [(digest(1), Deleted), (digest(2), Created)]);
    assert_eq!(lookup(&fixture, digest(1)).await, None);
    let record = lookup(&fixture, digest(2)).await.unwrap();
    assert_eq!(record.id, key(1).id);
    assert_eq!(record.revision, changes(&fixture).await[2].revision);
}

pub(super) async fn a_plain_update_that_changes_nothing_is_no_change(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    let before = holdings(&fixture).await;
    let table = fixture.api_keys();
    for nothing in ["name = name", "state = 'active'", "digest = digest", "revision = revision"] {
        fixture.sql(&format!("UPDATE {table} SET {nothing}")).await;
        assert_eq!(holdings(&fixture).await, before, "{nothing}");
    }
}

pub(super) async fn a_revision_that_somebody_wrote_is_put_right(fixture: impl Fixture) {
    let (table, one) = (fixture.api_keys(), fixture.digest(&digest(1)));
    store_keys(&fixture, &[key(2)]).await;
    for statement in [
        format!(
            "INSERT INTO {table} (id, digest, principal, revision) \
             VALUES ('key_000001', {one}, 'acme', 999)"
        ),
        format!("UPDATE {table} SET name = 'x', revision = 999 WHERE id = 'key_000001'"),
        format!("UPDATE {table} SET revision = 999 WHERE id = 'key_000001'"),
        format!("UPDATE {table} SET revision = 0 WHERE id = 'key_000001'"),
    ] {
        fixture.sql(&statement).await;
        let changes = changes(&fixture).await;
        let last = changes.iter().rfind(|change| change.digest == digest(1)).unwrap();
        assert_eq!(record(&fixture, 1).await.revision, last.revision, "{statement}");
    }
}

pub(super) async fn the_head_stays_when_old_changes_are_deleted(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1), key(2)]).await;
    fixture.sql(&format!("DELETE FROM {}", fixture.api_keys())).await;
    let head = fixture.store().head().await.unwrap();
    for _ in 0..2 {
        fixture.sql(&format!("DELETE FROM {}", fixture.key_changes())).await;
        assert_eq!(fixture.store().head().await.unwrap(), head);
    }
    store_keys(&fixture, &[key(3)]).await;
    let limit = NonZeroU32::new(9).unwrap();
    let since = fixture.store().changes(head, limit).await.unwrap();
    assert_eq!(without_numbers(&since), [(digest(3), Created)]);
    assert_eq!(fixture.store().head().await.unwrap(), since[0].revision);
}

pub(super) async fn numbers_are_not_given_out_again_after_a_deletion(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    fixture.sql(&format!("DELETE FROM {}", fixture.api_keys())).await;
    let head = fixture.store().head().await.unwrap();
    store_keys(&fixture, &[key(1)]).await;
    assert!(record(&fixture, 1).await.revision > head);
}
