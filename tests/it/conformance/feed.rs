//! The numbered changes.

use std::num::NonZeroU32;

use jiff::Timestamp;
use keystead::{
    key::{Action, Revision, State},
    store::{
        ChangeKind::{Created, Deleted, Revoked, Updated},
        Changes, Follower, KeyAdmin, Usage, Woken,
    },
};
use tokio::time::Instant;

use super::{
    Fixture,
    samples::{
        ALL, after_now, by_alice, changes, changes_since, digest, holdings, key, lookup, record,
        store_keys, successor, without_numbers,
    },
};
use crate::harness::{
    DEADLINE,
    changes::{changes_after, follower, head, page},
};

pub(super) async fn an_empty_store_has_no_changes(fixture: impl Fixture) {
    assert_eq!(head(fixture.store()).await, Revision(0));
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
        (digest(2), Revoked),
        (digest(1), Updated),
        (digest(1), Revoked),
        (digest(3), Created),
    ];
    assert_eq!(without_numbers(&changes), expected);
    assert!(changes[0].revision > Revision(0));
    assert_eq!(changes.last().unwrap().revision, head(fixture.store()).await);
}

pub(super) async fn a_rotation_is_an_update_and_a_creation(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    let seen = changes(&fixture).await;
    let rotate = Action::Rotate { retire_at: after_now(60), again: false };
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
    let mut follower = follower(fixture.store()).await;
    loop {
        let page = page(&mut follower, last, NonZeroU32::new(3).unwrap()).await;
        let Some(newest) = page.last.map(|row| row.revision) else { break };
        assert_eq!(page.changes.last().unwrap().revision, newest);
        last = newest;
        pages.push(page.changes);
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
        (both[0], Revoked),
        (both[1], Revoked),
        (digest(1), Deleted),
        (digest(2), Deleted),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(head(fixture.store()).await, changes[5].revision);
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
    let newest = head(fixture.store()).await;
    for _ in 0..2 {
        fixture.sql(&format!("DELETE FROM {}", fixture.key_changes())).await;
        assert_eq!(head(fixture.store()).await, newest);
    }
    store_keys(&fixture, &[key(3)]).await;
    let since = changes_after(fixture.store(), newest).await;
    assert_eq!(without_numbers(&since), [(digest(3), Created)]);
    assert_eq!(head(fixture.store()).await, since[0].revision);
}

pub(super) async fn numbers_are_not_given_out_again_after_a_deletion(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    fixture.sql(&format!("DELETE FROM {}", fixture.api_keys())).await;
    let newest = head(fixture.store()).await;
    store_keys(&fixture, &[key(1)]).await;
    assert!(record(&fixture, 1).await.revision > newest);
}

pub(super) async fn numbers_of_changes_that_were_undone_are_no_gap(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    let seen = head(fixture.store()).await;
    // The first of the two is stored and numbered before the second is refused.
    fixture.store().insert(&[key(2), key(1)], &by_alice()).await.unwrap_err();
    store_keys(&fixture, &[key(3)]).await;
    let since = changes_after(fixture.store(), seen).await;
    assert_eq!(without_numbers(&since), [(digest(3), Created)]);
}

pub(super) async fn changes_that_were_deleted_unread_are_reported(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1), key(2), key(3)]).await;
    let all = changes(&fixture).await;
    let (first, second) = (all[0].revision, all[1].revision);
    let mut follower = follower(fixture.store()).await;
    let table = fixture.key_changes();
    fixture.sql(&format!("DELETE FROM {table} WHERE revision = {first}")).await;
    assert_eq!(page(&mut follower, first, ALL).await.changes, all[1..], "it had been read");
    assert_eq!(follower.changes(Revision(0), ALL).await.unwrap(), None);
    fixture.sql(&format!("DELETE FROM {table} WHERE revision <= {second}")).await;
    assert_eq!(follower.changes(first, ALL).await.unwrap(), None);
    assert_eq!(page(&mut follower, second, ALL).await.changes, all[2..]);
}

pub(super) async fn a_canary_comes_back_numbered_and_changes_no_key(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    let before = record(&fixture, 1).await;
    let mut follower = follower(fixture.store()).await;
    let seen = follower.head().await.unwrap();
    fixture.store().canary(&digest(7)).await.unwrap();
    store_keys(&fixture, &[key(2)]).await;
    fixture.store().canary(&digest(8)).await.unwrap();
    let page = page(&mut follower, seen, ALL).await;
    assert_eq!(without_numbers(&page.changes), [(digest(2), Created)]);
    assert_eq!(page.canaries, [digest(7), digest(8)]);
    let last = page.last.unwrap();
    assert_eq!((last.digest, last.kind), (digest(8), None), "the last canary");
    assert_eq!(last.revision, follower.head().await.unwrap());
    assert!(last.revision > page.changes[0].revision && page.changes[0].revision > seen);
    assert_eq!(record(&fixture, 1).await, before);
    assert_eq!(lookup(&fixture, digest(7)).await, None);
    assert_eq!(fixture.audit_log().await.len(), 2, "an entry for each key");
}

pub(super) async fn old_canaries_are_deleted_by_newer_ones_and_are_no_gap(fixture: impl Fixture) {
    let (table, hour_ago) = (fixture.key_changes(), fixture.instant(after_now(-1_000_000_000)));
    for number in 0..5 {
        fixture.store().canary(&digest(number)).await.unwrap();
    }
    fixture.sql(&format!("UPDATE {table} SET changed_at = {hour_ago}")).await;
    fixture.store().canary(&digest(5)).await.unwrap();
    let page = page(&mut follower(fixture.store()).await, Revision(0), ALL).await;
    assert_eq!(page.canaries, [digest(5)]);
    assert_eq!(page.last.unwrap().revision, head(fixture.store()).await);
}

pub(super) async fn a_follower_learns_of_every_change_whoever_makes_it(fixture: impl Fixture) {
    let mut follower = follower(fixture.store()).await;
    let table = fixture.api_keys();
    for number in 0..3 {
        store_keys(&fixture, &[key(number)]).await;
        let stored = learns(&mut follower, number * 3).await;
        assert_eq!(stored, [(digest(number), Created)]);
        fixture.store().act(&key(number).id, Action::Disable, None, &by_alice()).await.unwrap();
        assert_eq!(learns(&mut follower, number * 3 + 1).await, [(digest(number), Updated)]);
        let id = key(number).id;
        fixture.sql(&format!("UPDATE {table} SET name = 'x' WHERE id = '{id}'")).await;
        assert_eq!(learns(&mut follower, number * 3 + 2).await, [(digest(number), Updated)]);
    }
}

/// What is new after this number of changes, once the follower has woken for it.
async fn learns(
    follower: &mut impl Follower,
    seen: u32,
) -> Vec<(keystead::key::Digest, keystead::store::ChangeKind)> {
    let deadline = Instant::now() + DEADLINE;
    if follower.announces() {
        assert_eq!(follower.wait(deadline).await.unwrap(), Woken::Announced);
    }
    let all = page(follower, Revision(0), ALL).await;
    assert_eq!(follower.head().await.unwrap(), all.last.unwrap().revision);
    without_numbers(&all.changes).split_off(usize::try_from(seen).unwrap())
}

pub(super) async fn a_word_to_itself_comes_back_where_changes_are_announced(fixture: impl Fixture) {
    let (mut one, mut other) = (follower(fixture.store()).await, follower(fixture.store()).await);
    for _ in 0..3 {
        one.beat().await.unwrap();
        if one.announces() {
            assert_eq!(one.wait(Instant::now() + DEADLINE).await.unwrap(), Woken::Beat);
        }
    }
    // It wakes nobody else.
    assert_eq!(other.wait(Instant::now()).await.unwrap(), Woken::Elapsed);
    other.head().await.unwrap();
    assert_eq!(other.wait(Instant::now()).await.unwrap(), Woken::Elapsed);
}
