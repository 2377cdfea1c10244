//! Numbers that grow, whatever the sequence says.

use keystead::key::{Action, Revision};
use rusqlite::{Connection, config::DbConfig};

use crate::{
    feed::{for_ever, until_refused},
    harness::{
        app::Service,
        backend::{Backend, Embedded, Server},
        changes::{changes_after, head},
        fixture::Fixture,
        keys::{Key, Keys},
        postgres::logical::logical,
    },
};

/// A number far above all that were given out.
const FAR: i64 = 5_000;

/// Revokes all keys, with `spoil` before each. Each must take effect, and be numbered
/// above all that was there.
async fn each_revocation_takes_effect<B: Backend>(backend: B, spoil: impl AsyncFn(&B, &Key)) {
    let fixture = Fixture::with(backend, for_ever).await;
    let keys = fixture.keys.create_many(3).await;
    let mut newest = Revision(0);
    for key in &keys {
        spoil(&fixture.backend, key).await;
        fixture.service.check_key(key).await.unwrap();
        let before = fixture.keys.record(key).await.revision.max(newest);
        let revoked = fixture.keys.act(key, Action::Revoke).await;
        assert!(revoked.revision > before, "{} after {before}", revoked.revision);
        newest = revoked.revision;
        until_refused(key, &fixture.service).await;
    }
    let changes = changes_after(fixture.keys.engine(), Revision(0)).await;
    assert!(changes.is_sorted_by(|a, b| a.revision < b.revision));
}

#[tokio::test]
async fn sequence_below_the_numbers_in_the_tables_is_skipped_past() {
    each_revocation_takes_effect(Server::start().await, async |server: &Server, _: &Key| {
        server.sql("SELECT setval('keystead.revision_seq', 1, false)").await;
    })
    .await;
}

#[tokio::test]
async fn key_with_a_number_above_the_sequence_can_be_revoked() {
    each_revocation_takes_effect(Server::start().await, async |server: &Server, key: &Key| {
        // As logical replication writes it: no trigger runs.
        let higher = format!(
            "SET session_replication_role = replica; UPDATE keystead.api_keys \
             SET revision = (SELECT max(revision) FROM keystead.api_keys) + {FAR} WHERE id = '{}'",
            key.id
        );
        server.sql(&higher).await;
    })
    .await;
}

#[tokio::test]
async fn logical_copy_that_takes_over_numbers_changes_above_all_that_it_was_given() {
    let fixture = Fixture::with(Server::with(logical()).await, for_ever).await;
    let keys = fixture.keys.create_many(20).await;
    let origin = &fixture.backend.postgres;
    let copy = origin.logical_copy().await;
    copy.cut_over(origin).await;
    let mut config = fixture.config.clone();
    config.store.url = copy.url().parse().unwrap();
    let (there, service) = (Keys::open(&config).await, Service::ready(&config).await);
    let newest = head(there.engine()).await;
    for key in &keys {
        service.check_key(key).await.unwrap();
        assert!(there.act(key, Action::Revoke).await.revision > newest);
        until_refused(key, &service).await;
    }
}

fn without_triggers(embedded: &Embedded, statements: &str) {
    let db = Connection::open(embedded.path()).unwrap();
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    db.execute_batch(statements).unwrap();
}

#[tokio::test]
async fn sqlite_sequence_that_is_deleted_or_too_low_is_skipped_past() {
    each_revocation_takes_effect(Embedded::start().await, async |embedded: &Embedded, _: &Key| {
        embedded.sql("DELETE FROM sqlite_sequence").await;
    })
    .await;
    each_revocation_takes_effect(Embedded::start().await, async |embedded: &Embedded, _: &Key| {
        embedded.sql("UPDATE sqlite_sequence SET seq = 1").await;
    })
    .await;
}

#[tokio::test]
async fn key_with_a_number_above_the_sqlite_sequence_can_be_revoked() {
    each_revocation_takes_effect(
        Embedded::start().await,
        async |embedded: &Embedded, key: &Key| {
            without_triggers(
                embedded,
                &format!(
                    "DELETE FROM sqlite_sequence; UPDATE api_keys \
             SET revision = (SELECT max(revision) FROM api_keys) + {FAR} WHERE id = '{}'",
                    key.id
                ),
            );
        },
    )
    .await;
}
