//! Behind PgBouncer, mostly in transaction mode, where a session is whoever's turn
//! it is.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use futures::future::join_all;
use keystead::{
    key::{Action, Revision, State},
    store::{KeyAdmin, Lookups, Page, StoreErrorKind, Usage, WriteError, postgres::PostgresConfig},
};

use super::{by, config, digest, id, key, knows, store_with};
use crate::harness::{
    changes::{changes_after, head},
    eventually,
    pgbouncer::{PgBouncer, PoolMode},
    postgres::Postgres,
};

fn unprepared(url: &str) -> PostgresConfig {
    PostgresConfig { prepared_statements: false, ..config(url) }
}

#[tokio::test]
async fn every_call_works_in_transaction_mode() {
    let postgres = Postgres::start_new().await;
    let pgbouncer = PgBouncer::before(&postgres, PoolMode::Transaction).await;
    let store = store_with(&unprepared(&pgbouncer.url()));

    assert_eq!(store.migrate().await.unwrap().len(), 1);
    assert_eq!(store.migrate().await.unwrap().len(), 0);
    store.insert(&[key(1), key(2)], &by()).await.unwrap();
    let refused = store.insert(&[key(3), key(2)], &by()).await;
    assert!(matches!(refused, Err(WriteError::Duplicates(at)) if at == [1]));
    let revoked = store.act(&id(1), Action::Revoke, None, &by()).await.unwrap();
    assert_eq!(revoked.state, State::Revoked);
    store.touch(&[(id(2), by().at)]).await.unwrap();
    assert_eq!(store.get(&id(2)).await.unwrap().unwrap().last_used_at, Some(by().at));
    let page = Page { principal: None, after: None, limit: NonZeroU32::MIN };
    assert_eq!(store.list(&page).await.unwrap()[0].record.id, id(1));
    let changes = changes_after(&store, Revision(0)).await;
    assert_eq!(changes.len(), 3);
    assert_eq!(head(&store).await, changes[2].revision);
    assert!(!knows(&store, 3).await.unwrap());
    drop(pgbouncer);
}

#[tokio::test]
async fn session_mode_needs_no_setting() {
    let postgres = Postgres::start_new().await;
    let pgbouncer = PgBouncer::before(&postgres, PoolMode::Session).await;
    // One connection, so that whatever one call leaves behind, the next one meets.
    let max_connections = NonZeroUsize::MIN;
    let query_timeout = Duration::from_secs(1);
    let direct = store_with(&config(&postgres.url()));
    direct.migrate().await.unwrap();
    let store =
        store_with(&PostgresConfig { max_connections, query_timeout, ..config(&pgbouncer.url()) });
    assert_eq!(store.migrate().await.unwrap().len(), 0);
    store.insert(&[key(1)], &by()).await.unwrap();
    for _ in 0..3 {
        assert!(knows(&store, 1).await.unwrap());
    }

    // The time-out at the server is the one for lookups, and its connection is kept.
    let locked = postgres.client().await;
    locked.batch_execute("BEGIN; LOCK TABLE keystead.api_keys").await.unwrap();
    let error = knows(&store, 1).await.unwrap_err();
    assert!(error.detail().contains("57014"), "the server did not end it: {error}");
    locked.batch_execute("COMMIT").await.unwrap();
    assert!(knows(&store, 1).await.unwrap());
    drop(pgbouncer);
}

#[tokio::test]
async fn clients_that_share_connections_get_their_own_answers() {
    let postgres = Postgres::start_new().await;
    let pgbouncer = PgBouncer::before(&postgres, PoolMode::Transaction).await;
    let stores: Vec<_> = (0..3).map(|_| store_with(&unprepared(&pgbouncer.url()))).collect();
    stores[0].migrate().await.unwrap();
    let keys: Vec<_> = (0..50).map(key).collect();
    stores[0].insert(&keys, &by()).await.unwrap();

    for number in 0..50 {
        let lookups = stores.iter().zip(number..).map(|(store, number)| knows(store, number));
        let known: Vec<_> = join_all(lookups).await.into_iter().map(Result::unwrap).collect();
        let expected: Vec<_> = (number..number + 3).map(|number| number < 50).collect();
        assert_eq!(known, expected);
    }
    let used = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'keystead'";
    assert!(postgres.value(used).await.parse::<u32>().unwrap() <= 2);
    // Nothing was left behind for the next client.
    let idle = "SELECT count(*) FROM pg_stat_activity \
                WHERE usename = 'keystead' AND state <> 'idle'";
    assert_eq!(postgres.value(idle).await, "0");
    drop(pgbouncer);
}

#[tokio::test]
async fn failed_statement_leaves_no_open_transaction() {
    let postgres = Postgres::start_new().await;
    let pgbouncer = PgBouncer::before(&postgres, PoolMode::Transaction).await;
    let store = store_with(&unprepared(&pgbouncer.url()));
    store.migrate().await.unwrap();
    store.insert(&[key(1)], &by()).await.unwrap();
    postgres.sql("ALTER TABLE keystead.api_keys RENAME TO other").await;
    for _ in 0..4 {
        let error = store.find(&[digest(1)]).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Schema);
    }
    postgres.sql("ALTER TABLE keystead.other RENAME TO api_keys").await;
    for number in [1, 2, 1, 2] {
        assert_eq!(knows(&store, number).await.unwrap(), number == 1);
    }
    drop(pgbouncer);
}

#[tokio::test]
async fn dead_server_of_a_live_pgbouncer_is_an_outage_until_it_is_back() {
    let mut postgres = Postgres::start_new().await;
    let pgbouncer = PgBouncer::before(&postgres, PoolMode::Transaction).await;
    let query_timeout = Duration::from_secs(1);
    let store = store_with(&PostgresConfig { query_timeout, ..unprepared(&pgbouncer.url()) });
    store.migrate().await.unwrap();
    store.insert(&[key(1)], &by()).await.unwrap();
    postgres.kill();
    for _ in 0..3 {
        // PgBouncer either tells, or lets its clients wait for the server.
        let kind = knows(&store, 1).await.unwrap_err().kind();
        assert!(matches!(kind, StoreErrorKind::Unreachable | StoreErrorKind::Timeout), "{kind}");
    }
    postgres.start().await;
    eventually("the store answers again", async || knows(&store, 1).await.ok().filter(|k| *k))
        .await;
    drop(pgbouncer);
}
