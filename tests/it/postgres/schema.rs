//! The schema: migrating, and what the triggers make of plain SQL.

use std::{num::NonZeroU32, pin::pin};

use futures::join;
use keystead::{
    key::Revision,
    store::{ChangeKind, KeyAdmin, StoreErrorKind, Usage, postgres::PostgresStore},
};

use super::{by, digest, id, key, knows, store, with_a_key};
use crate::harness::{
    changes::{changes_after, follower, head, page},
    eventually,
    postgres::{Postgres, rows},
};

/// All changes, as number of the key and kind.
async fn changes(store: &PostgresStore) -> Vec<(u32, ChangeKind)> {
    let changes = changes_after(store, Revision(0)).await;
    assert!(changes.is_sorted_by(|a, b| a.revision < b.revision));
    let number = |of| (1..100).find(|number| digest(*number) == of).expect("a known digest");
    changes.iter().map(|change| (number(change.digest), change.kind)).collect()
}

fn hex(number: u32) -> String {
    format!(r"'\x{}'", digest(number).to_hex())
}

#[tokio::test]
async fn migrating_twice_does_nothing_the_second_time() {
    let postgres = Postgres::start_new().await;
    let store = store(&postgres.url());
    assert_eq!(store.migrate().await.unwrap(), ["V1__keys"]);
    assert_eq!(store.migrate().await.unwrap(), [""; 0]);
    assert_eq!(head(&store).await, Revision(0));
    let tables = postgres
        .sql("SELECT tablename FROM pg_tables WHERE schemaname = 'keystead' ORDER BY tablename")
        .await;
    assert_eq!(
        tables,
        [
            "api_keys",
            "audit_log",
            "change_order",
            "key_changes",
            "pruned_changes",
            "refinery_schema_history"
        ]
    );
    let elsewhere = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(postgres.value(elsewhere).await, "0");
}

#[tokio::test]
async fn of_many_who_migrate_at_once_one_works_and_none_fails() {
    let postgres = Postgres::start_new().await;
    let stores: Vec<_> = (0..3).map(|_| store(&postgres.url())).collect();
    let done = futures::future::join_all(stores.iter().map(PostgresStore::migrate)).await;
    let applied: usize = done.into_iter().map(|names| names.unwrap().len()).sum();
    assert_eq!(applied, 1);
}

#[tokio::test]
async fn owner_of_the_schema_alone_may_migrate() {
    let postgres = Postgres::start_new().await;
    postgres.add_role("app").await;
    let store = store(&postgres.url_for("app"));
    assert_eq!(store.migrate().await.unwrap_err().kind(), StoreErrorKind::Forbidden);
    postgres.sql("CREATE SCHEMA keystead AUTHORIZATION app").await;
    assert_eq!(store.migrate().await.unwrap().len(), 1);
    assert_eq!(store.migrate().await.unwrap().len(), 0);
}

#[tokio::test]
async fn database_of_another_version_is_a_schema_error() {
    let (postgres, store) = with_a_key().await;
    postgres.sql("UPDATE keystead.refinery_schema_history SET checksum = '1'").await;
    let error = store.migrate().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Schema);
    assert!(error.detail().contains("another version"), "{error}");
}

#[tokio::test]
async fn plain_sql_is_numbered_like_our_own_changes() {
    let (postgres, store) = with_a_key().await;
    let insert = format!(
        "INSERT INTO keystead.api_keys (id, digest, principal, revision) \
         VALUES ('key_000002', {}, 'acme', 999)",
        hex(2)
    );
    postgres.sql(&insert).await;
    postgres.sql("UPDATE keystead.api_keys SET state = 'revoked' WHERE id = 'key_000002'").await;
    postgres.sql("DELETE FROM keystead.api_keys WHERE id = 'key_000002'").await;
    assert_eq!(
        changes(&store).await,
        [
            (1, ChangeKind::Created),
            (2, ChangeKind::Created),
            (2, ChangeKind::Revoked),
            (2, ChangeKind::Deleted)
        ]
    );
}

#[tokio::test]
async fn record_carries_the_number_of_its_last_change_whatever_was_written() {
    let (postgres, store) = with_a_key().await;
    postgres.sql("UPDATE keystead.api_keys SET name = 'new', revision = 12345").await;
    let record = store.get(&id(1)).await.unwrap().unwrap();
    assert_eq!(record.rights.name, "new");
    assert_eq!(record.revision, head(&store).await);
    postgres.sql("UPDATE keystead.api_keys SET revision = 12345").await;
    assert_eq!(store.get(&id(1)).await.unwrap().unwrap().revision, record.revision);
}

#[tokio::test]
async fn update_of_last_used_at_alone_or_of_nothing_is_no_change() {
    let (postgres, store) = with_a_key().await;
    let newest = head(&store).await;
    postgres.sql("UPDATE keystead.api_keys SET last_used_at = now()").await;
    postgres.sql("UPDATE keystead.api_keys SET principal = principal, scopes = scopes").await;
    store.touch(&[(id(1), by().at)]).await.unwrap();
    assert_eq!(head(&store).await, newest);
    assert_eq!(changes(&store).await, [(1, ChangeKind::Created)]);
}

#[tokio::test]
async fn new_digest_deletes_the_old_and_creates_the_new() {
    let (postgres, store) = with_a_key().await;
    postgres.sql(&format!("UPDATE keystead.api_keys SET digest = {}", hex(2))).await;
    let mut changes = changes(&store).await.split_off(1);
    changes.sort_unstable_by_key(|(number, _)| *number);
    assert_eq!(changes, [(1, ChangeKind::Deleted), (2, ChangeKind::Created)]);
    assert!(!knows(&store, 1).await.unwrap() && knows(&store, 2).await.unwrap());
}

#[tokio::test]
async fn emptied_table_is_not_recorded_as_deletions() {
    let (postgres, store) = with_a_key().await;
    postgres.sql("TRUNCATE keystead.api_keys").await;
    assert_eq!(changes(&store).await, [(1, ChangeKind::Created)]);
}

#[tokio::test]
async fn changes_cannot_be_emptied_by_truncate() {
    let (postgres, store) = with_a_key().await;
    let truncate = "DO $$ BEGIN TRUNCATE keystead.key_changes; RAISE 'it was emptied'; \
        EXCEPTION WHEN raise_exception THEN \
        IF SQLERRM = 'it was emptied' THEN RAISE; END IF; END $$";
    postgres.sql(truncate).await;
    assert_eq!(changes(&store).await, [(1, ChangeKind::Created)]);
}

#[tokio::test]
async fn role_that_may_write_the_table_needs_no_rights_on_what_triggers_write() {
    let (postgres, store) = with_a_key().await;
    postgres.add_role("billing").await;
    postgres
        .sql(
            "GRANT USAGE ON SCHEMA keystead TO billing; \
             GRANT SELECT, UPDATE ON keystead.api_keys TO billing; SET ROLE billing; \
             UPDATE keystead.api_keys SET state = 'disabled'",
        )
        .await;
    assert_eq!(changes(&store).await, [(1, ChangeKind::Created), (1, ChangeKind::Updated)]);
}

#[tokio::test]
async fn numbers_become_visible_in_order_whichever_transaction_takes_one_first() {
    let (postgres, store) = with_a_key().await;
    store.insert(&[key(2)], &by()).await.unwrap();
    let (first, second) = (postgres.client().await, postgres.client().await);
    let change = |number| {
        format!("BEGIN; UPDATE keystead.api_keys SET name = 'x' WHERE id = '{}'", id(number))
    };
    let after = head(&store).await;
    first.batch_execute(&change(1)).await.unwrap();
    second.batch_execute(&change(2)).await.unwrap();

    // The second gets no number while the first, which has one, can still commit.
    first.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await.unwrap();
    let second_ends = async { second.batch_execute("COMMIT").await.unwrap() };
    let first_ends = async {
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        eventually("the second transaction waits for the first", async || {
            (postgres.value(waits).await == "1").then_some(())
        })
        .await;
        assert_eq!(head(&store).await, after);
        first.batch_execute("COMMIT").await.unwrap();
    };
    join!(second_ends, first_ends);

    let seen = changes_after(&store, after).await;
    let digests: Vec<_> = seen.iter().map(|change| change.digest).collect();
    assert_eq!(digests, [digest(1), digest(2)]);
}

#[tokio::test]
async fn every_table_has_a_primary_key() {
    let (postgres, _store) = with_a_key().await;
    let without = "SELECT c.relname FROM pg_class AS c \
        WHERE c.relnamespace = 'keystead'::regnamespace AND c.relkind IN ('r', 'p') \
        AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary)";
    assert_eq!(postgres.sql(without).await, [""; 0]);
}

#[tokio::test]
async fn reader_that_goes_on_from_the_last_number_misses_no_change() {
    const WRITERS: u32 = 4;
    const CHANGES: u32 = 25;
    let (postgres, store) = with_a_key().await;
    let keys: Vec<_> = (2..=WRITERS).map(key).collect();
    store.insert(&keys, &by()).await.unwrap();
    let start = head(&store).await;

    // Transactions of different lengths, so that they would end in another order
    // than they began.
    let write = async |number: u32| {
        let client = postgres.client().await;
        for round in 0..CHANGES {
            let id = id(number);
            let begin =
                format!("BEGIN; UPDATE keystead.api_keys SET name = '{round}' WHERE id = '{id}'");
            rows(&client, &begin).await;
            for _ in 0..(number + round) % 5 {
                rows(&client, "SELECT 1").await;
            }
            rows(&client, "COMMIT").await;
        }
    };
    let (mut seen, mut after) = (0, start);
    let mut follower = follower(&store).await;
    let mut read = async || {
        for change in page(&mut follower, after, NonZeroU32::MAX).await.changes {
            (seen, after) = (seen + 1, change.revision);
        }
    };
    let mut writing = pin!(async { join!(write(1), write(2), write(3), write(4)) });
    while futures::poll!(&mut writing).is_pending() {
        read().await;
    }
    read().await;
    assert_eq!(seen, WRITERS * CHANGES);
}
