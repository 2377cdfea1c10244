//! Sharing the file with other processes, and the connections among callers.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use futures::future::join;
use keystead::{
    key::{Action, Digest, Revision, State},
    store::{ChangeKind, KeyAdmin, StoreErrorKind, Usage, WriteError, sqlite::SqliteStore},
};
use tokio::time::timeout;

use super::fixture::{Embedded, by_alice, config_in, failure, key};
use crate::{
    conformance::Fixture as _,
    harness::changes::{changes_after, head},
};

/// Makes every query of the keys go on for ever, for those who come next.
const HANG: &str = "
    ALTER TABLE api_keys RENAME TO hidden;
    CREATE VIEW api_keys AS
        WITH RECURSIVE endless (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM endless)
        SELECT hidden.* FROM endless, hidden WHERE n < 0;";

const UNHANG: &str = "
    DROP VIEW api_keys;
    ALTER TABLE hidden RENAME TO api_keys;";

#[tokio::test]
async fn two_stores_on_one_file_see_what_the_other_writes() {
    let serving = Embedded::start().await;
    let cli = SqliteStore::open(&config_in(&serving.directory)).unwrap();
    for number in 0..20 {
        cli.insert(&[key(number)], &by_alice()).await.unwrap();
        assert!(serving.has(number).await.unwrap());
        serving.insert(100 + number).await;
        assert!(cli.get(&key(100 + number).id).await.unwrap().is_some());
    }
    assert_eq!(head(&serving.store).await, head(&cli).await);
}

#[tokio::test]
async fn two_stores_that_change_one_key_at_once_lose_no_update() {
    let serving = Embedded::start().await;
    let cli = SqliteStore::open(&config_in(&serving.directory)).unwrap();
    let by = by_alice();
    for number in 0..50 {
        serving.insert(number).await;
        let id = key(number).id;
        let (disabled, revoked) = join(
            serving.store.act(&id, Action::Disable, None, &by),
            cli.act(&id, Action::Revoke, None, &by),
        )
        .await;
        revoked.unwrap();
        assert!(matches!(disabled, Ok(_) | Err(WriteError::Refused { .. })), "{disabled:?}");
        let record = serving.store.get(&id).await.unwrap().unwrap();
        assert_eq!(record.state, State::Revoked);
    }
}

#[tokio::test]
async fn a_lock_that_is_held_too_long_is_saturation_and_passes() {
    let embedded = Embedded::with(|config| config.query_timeout = Duration::from_millis(200));
    embedded.insert(1).await;
    let other = embedded.connection();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let began = Instant::now();
    let uses = [(key(1).id, by_alice().at)];
    let touched = embedded.store.touch(&uses).await;
    assert_eq!(failure(touched, "another process is writing"), StoreErrorKind::Saturated);
    // It has no other use for the lock than to wait for it.
    assert!(began.elapsed() >= Duration::from_millis(150));

    let inserted = embedded.store.insert(&[key(2)], &by_alice()).await;
    let Err(WriteError::Store(error)) = inserted else { panic!("{inserted:?}") };
    assert_eq!(error.kind(), StoreErrorKind::Saturated);

    other.execute_batch("ROLLBACK").unwrap();
    embedded.store.touch(&uses).await.unwrap();
    assert!(!embedded.has(2).await.unwrap());
    embedded.insert(2).await;
}

#[tokio::test]
async fn readers_do_not_wait_for_a_writer() {
    let embedded = Embedded::with(|config| config.query_timeout = Duration::from_secs(1));
    embedded.insert(1).await;
    let other = embedded.connection();
    other.execute_batch("BEGIN IMMEDIATE; DELETE FROM api_keys").unwrap();
    assert!(embedded.has(1).await.unwrap());
    other.execute_batch("COMMIT").unwrap();
    assert!(!embedded.has(1).await.unwrap());
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_interrupted() {
    let embedded = Embedded::with(|config| {
        config.query_timeout = Duration::from_millis(200);
        config.max_readers = NonZeroUsize::MIN;
    });
    embedded.insert(1).await;
    embedded.sql(HANG).await;
    for _ in 0..3 {
        // The only connection is free again each time.
        let outcome = embedded.has(1).await;
        assert_eq!(failure(outcome, ""), StoreErrorKind::Timeout);
    }
    embedded.sql(UNHANG).await;
    recovers(&embedded).await;
}

#[tokio::test]
async fn a_query_whose_caller_has_gone_is_interrupted() {
    let embedded = Embedded::with(|config| {
        config.query_timeout = Duration::from_mins(2);
        config.max_readers = NonZeroUsize::MIN;
    });
    embedded.insert(1).await;
    embedded.sql(HANG).await;
    timeout(Duration::from_millis(100), embedded.has(1)).await.unwrap_err();
    embedded.sql(UNHANG).await;
    timeout(Duration::from_mins(1), embedded.has(1)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_finds_no_connection_free_is_saturation() {
    let embedded = Embedded::with(|config| {
        config.query_timeout = Duration::from_secs(1);
        config.max_readers = NonZeroUsize::MIN;
    });
    embedded.insert(1).await;
    embedded.sql(HANG).await;
    let (first, second) = join(embedded.has(1), embedded.has(1)).await;
    assert_eq!(failure(first, ""), StoreErrorKind::Timeout);
    assert_eq!(failure(second, "store.guard.max_in_flight"), StoreErrorKind::Saturated);
    embedded.sql(UNHANG).await;
    recovers(&embedded).await;
}

/// Until an interrupted query has let go of its connection.
async fn recovers(embedded: &Embedded) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !matches!(embedded.has(1).await, Ok(true)) {
        assert!(Instant::now() < deadline, "the store did not recover");
    }
}

#[tokio::test]
async fn replacing_a_row_reports_the_digest_that_it_had() {
    let embedded = Embedded::start().await;
    embedded.insert(1).await;
    let seen = head(&embedded.store).await;
    let two = embedded.digest(&key(2).digest);
    let replace = format!(
        "INSERT OR REPLACE INTO api_keys (id, digest, principal)
         VALUES ('key_000001', {two}, 'acme')"
    );
    embedded.sql(&replace).await;
    assert_eq!(
        changed_since(&embedded, seen).await,
        [(key(1).digest, ChangeKind::Updated), (key(2).digest, ChangeKind::Created)]
    );
}

#[tokio::test]
async fn changes_are_numbered_once_even_with_recursive_triggers() {
    let embedded = Embedded::start().await;
    embedded.insert(1).await;
    let seen = head(&embedded.store).await;
    embedded
        .sql(
            "PRAGMA recursive_triggers = ON;
             UPDATE api_keys SET name = 'x', revision = 999;
             UPDATE api_keys SET revision = 999;",
        )
        .await;
    let updated = (key(1).digest, ChangeKind::Updated);
    assert_eq!(changed_since(&embedded, seen).await, [updated, updated]);
    let record = embedded.store.get(&key(1).id).await.unwrap().unwrap();
    assert_eq!(record.revision, head(&embedded.store).await);
}

async fn changed_since(embedded: &Embedded, seen: Revision) -> Vec<(Digest, ChangeKind)> {
    let changes = changes_after(&embedded.store, seen).await;
    changes.into_iter().map(|change| (change.digest, change.kind)).collect()
}
