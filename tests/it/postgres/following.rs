//! The connection that follows the changes.

use std::time::Duration;

use keystead::{
    key::Action,
    store::{
        CanaryError, Changes, Follower, KeyAdmin, StoreErrorKind, Woken, postgres::PostgresConfig,
    },
};
use tokio::time::Instant;

use super::{by, config, digest, id, key, knows, store, store_with, with_a_key};
use crate::harness::{
    DEADLINE,
    changes::{changes_after, follower},
    eventually,
    pgbouncer::{PgBouncer, PoolMode},
};

#[tokio::test]
async fn following_takes_one_connection_outside_the_pool_and_gives_it_back() {
    let (postgres, store) = with_a_key().await;
    assert!(knows(&store, 1).await.unwrap());
    assert_eq!(postgres.backends().await.len(), 1);
    let following = follower(&store).await;
    assert_eq!(postgres.backends().await.len(), 2);
    drop(following);
    eventually("the server closes it", async || {
        (postgres.backends().await.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connection_that_is_ended_fails_the_wait_at_once() {
    let (postgres, store) = with_a_key().await;
    let mut following = follower(&store).await;
    let waiting = following.wait(Instant::now() + DEADLINE);
    let ending = postgres
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^LISTEN'");
    let (woken, ended) = tokio::join!(waiting, ending);
    assert_eq!(ended.len(), 1);
    assert_eq!(woken.unwrap_err().kind(), StoreErrorKind::Unreachable);
}

#[tokio::test]
async fn follower_of_a_stopped_server_ends_by_its_timeouts() {
    let (postgres, _store) = with_a_key().await;
    let limit = Duration::from_millis(300);
    let connect_timeout = limit;
    let impatient =
        PostgresConfig { query_timeout: limit, connect_timeout, ..config(&postgres.url()) };
    let store = store_with(&impatient);
    let mut following = eventually("it follows", async || store.follow().await.ok()).await.unwrap();
    postgres.stop_all();
    assert_eq!(following.head().await.unwrap_err().kind(), StoreErrorKind::Timeout);
    assert_eq!(store.follow().await.unwrap_err().kind(), StoreErrorKind::Unreachable);
    postgres.cont_all();
}

#[tokio::test]
async fn many_announcements_are_merged_into_one_and_none_is_missed() {
    let (_postgres, store) = with_a_key().await;
    let mut following = follower(&store).await;
    for number in 2..50 {
        store.insert(&[key(number)], &by()).await.unwrap();
    }
    let (mut told, mut seen) = (0, 0);
    while seen < 49 {
        assert_eq!(following.wait(Instant::now() + DEADLINE).await.unwrap(), Woken::Announced);
        told += 1;
        seen = changes_after(&store, keystead::key::Revision(0)).await.len();
    }
    assert!(told < 49, "{told}");
}

#[tokio::test]
async fn import_is_announced_once_however_many_keys_it_has() {
    let (postgres, store) = with_a_key().await;
    let client = postgres.client().await;
    let mut following = follower(&store).await;
    let keys: Vec<_> = (2..6_000).map(key).collect();
    store.insert(&keys, &by()).await.unwrap();
    assert_eq!(following.wait(Instant::now() + DEADLINE).await.unwrap(), Woken::Announced);
    assert_eq!(following.wait(Instant::now()).await.unwrap(), Woken::Elapsed);
    drop(client);
}

#[tokio::test]
async fn standby_is_polled_and_takes_no_canaries() {
    let (mut postgres, warm) = with_a_key().await;
    drop(warm);
    postgres.kill();
    std::fs::write(postgres.home().join("data/standby.signal"), "").unwrap();
    postgres.start().await;
    assert_eq!(postgres.value("SELECT pg_is_in_recovery()").await, "t");
    let store = store(&postgres.url());
    let mut following = follower(&store).await;
    assert!(!following.announces());
    assert_eq!(following.head().await.unwrap(), keystead::key::Revision(1));
    let soon = Instant::now() + Duration::from_millis(20);
    following.beat().await.unwrap();
    assert_eq!(following.wait(soon).await.unwrap(), Woken::Elapsed);
    let canary = store.canary(&digest(9)).await.unwrap_err();
    assert!(matches!(canary, CanaryError::ReadOnly(_)), "{canary}");
}

#[tokio::test]
async fn canary_needs_a_right_of_its_own_and_a_whole_token() {
    let (postgres, owner) = with_a_key().await;
    owner.canary(&digest(7)).await.unwrap();
    postgres.add_role("serving").await;
    postgres.sql("GRANT USAGE ON SCHEMA keystead TO serving").await;
    let serving = store(&postgres.url_for("serving"));
    let refused = serving.canary(&digest(8)).await.unwrap_err();
    assert!(matches!(refused, CanaryError::ReadOnly(_)), "{refused}");
    postgres.sql("GRANT EXECUTE ON FUNCTION keystead.canary(bytea) TO serving").await;
    serving.canary(&digest(8)).await.unwrap();
    // One that cannot be read would stop every follower.
    let refused = "DO $$ BEGIN PERFORM keystead.canary('short'); RAISE 'it was taken'; \
        EXCEPTION WHEN check_violation THEN END $$";
    postgres.sql(refused).await;
}

#[tokio::test]
async fn following_listens_through_pgbouncer_in_session_mode_and_polls_in_transaction_mode() {
    let (postgres, direct) = with_a_key().await;
    for (mode, prepared_statements) in [(PoolMode::Session, true), (PoolMode::Transaction, false)] {
        let pgbouncer = PgBouncer::before(&postgres, mode).await;
        let config = PostgresConfig { prepared_statements, ..config(&pgbouncer.url()) };
        let mut following = follower(&store_with(&config)).await;
        assert_eq!(following.announces(), prepared_statements);
        let seen = following.head().await.unwrap();
        let action = if prepared_statements { Action::Disable } else { Action::Enable };
        direct.act(&id(1), action, None, &by()).await.unwrap();
        if prepared_statements {
            let woken = following.wait(Instant::now() + DEADLINE).await.unwrap();
            assert_eq!(woken, Woken::Announced);
        }
        assert!(following.head().await.unwrap() > seen);
        drop(pgbouncer);
    }
}
