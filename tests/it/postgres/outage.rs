//! Errors while the server is silent or unreachable, and recovery.

use std::{pin::pin, time::Duration};

use keystead::store::{
    Lookups, StoreErrorKind, Usage,
    postgres::{PostgresConfig, PostgresStore},
};

use super::{config, digest, knows, store, store_with, with_a_key};
use crate::harness::{
    eventually, free_port,
    postgres::{PASSWORD, Postgres, Setup},
};

/// The kind of failure; no text of it may hold the password.
async fn failure(store: &PostgresStore) -> StoreErrorKind {
    let error = knows(store, 1).await.unwrap_err();
    for shown in [error.to_string(), format!("{error:?}"), format!("{store:?}")] {
        assert!(!shown.contains(PASSWORD), "{shown}");
    }
    error.kind()
}

/// Waits until the store answers again; nothing else helps it.
async fn recovers(store: &PostgresStore) {
    eventually("the store answers again", async || knows(store, 1).await.ok().filter(|k| *k)).await;
}

fn impatient(url: &str) -> PostgresConfig {
    PostgresConfig { query_timeout: Duration::from_millis(200), ..config(url) }
}

#[tokio::test]
async fn killed_server_is_unreachable_until_it_is_back() {
    let (mut postgres, store) = with_a_key().await;
    assert!(knows(&store, 1).await.unwrap());
    postgres.kill();
    for _ in 0..8 {
        assert_eq!(failure(&store).await, StoreErrorKind::Unreachable);
    }
    postgres.start().await;
    recovers(&store).await;
}

#[tokio::test]
async fn stopped_server_is_a_timeout_until_it_goes_on() {
    let (postgres, warm) = with_a_key().await;
    drop(warm);
    let store = store_with(&impatient(&postgres.url()));
    recovers(&store).await;
    postgres.stop_all();
    assert_eq!(failure(&store).await, StoreErrorKind::Timeout);
    postgres.cont_all();
    recovers(&store).await;
}

#[tokio::test]
async fn connecting_to_a_stopped_server_ends_within_the_connect_timeout() {
    let (postgres, warm) = with_a_key().await;
    drop(warm);
    let connect_timeout = Duration::from_millis(200);
    let store = store_with(&PostgresConfig { connect_timeout, ..config(&postgres.url()) });
    postgres.stop_all();
    assert_eq!(failure(&store).await, StoreErrorKind::Unreachable);
    postgres.cont_all();
    recovers(&store).await;
}

#[tokio::test]
async fn refused_connection_is_unreachable() {
    let url = format!("postgres://keystead:{PASSWORD}@127.0.0.1:{}/keystead", free_port());
    assert_eq!(failure(&store(&url)).await, StoreErrorKind::Unreachable);
}

#[tokio::test]
async fn dead_first_host_is_passed_over() {
    let (postgres, _warm) = with_a_key().await;
    let (dead, alive) = (free_port(), postgres.port());
    let hosts = format!("127.0.0.1:{dead},127.0.0.1:{alive}");
    let url = format!("postgres://keystead:{PASSWORD}@{hosts}/keystead?sslmode=prefer");
    assert!(knows(&store(&url), 1).await.unwrap());
}

#[tokio::test]
async fn renamed_table_is_a_schema_error_that_names_the_remedy() {
    let (postgres, store) = with_a_key().await;
    // The statement is prepared already.
    assert!(knows(&store, 1).await.unwrap());
    postgres.sql("ALTER TABLE keystead.api_keys RENAME TO other").await;
    let error = knows(&store, 1).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Schema);
    assert!(error.detail().contains("keystead migrate"), "{error}");
    postgres.sql("ALTER TABLE keystead.other RENAME TO api_keys").await;
    recovers(&store).await;
}

#[tokio::test]
async fn missing_column_is_a_schema_error_that_names_it() {
    let (postgres, store) = with_a_key().await;
    postgres.sql("ALTER TABLE keystead.api_keys RENAME COLUMN hint TO tip").await;
    let error = knows(&store, 1).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Schema);
    assert!(error.detail().contains("hint"), "{error}");
}

#[tokio::test]
async fn role_without_rights_is_forbidden() {
    let (postgres, _owner) = with_a_key().await;
    postgres.add_role("reader").await;
    let store = store(&postgres.url_for("reader"));
    assert_eq!(failure(&store).await, StoreErrorKind::Forbidden);
    postgres
        .sql(
            "GRANT USAGE ON SCHEMA keystead TO reader; \
             GRANT SELECT ON keystead.api_keys TO reader",
        )
        .await;
    recovers(&store).await;
}

#[tokio::test]
async fn read_only_server_forbids_changes_and_answers_lookups() {
    let (postgres, store) = with_a_key().await;
    postgres.sql("ALTER DATABASE keystead SET default_transaction_read_only = on").await;
    let store = {
        drop(store);
        super::store(&postgres.url())
    };
    assert!(knows(&store, 1).await.unwrap());
    let error = store.touch(&[(super::id(1), super::by().at)]).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Forbidden);
}

#[tokio::test]
async fn used_up_connections_are_saturation_until_one_is_free() {
    let (postgres, warm) = with_a_key().await;
    drop(warm);
    let others = postgres.use_up_connections().await;
    let store = store(&postgres.url());
    assert_eq!(failure(&store).await, StoreErrorKind::Saturated);
    drop(others);
    recovers(&store).await;
}

#[tokio::test]
async fn wrong_or_missing_password_is_forbidden() {
    let (postgres, _warm) = with_a_key().await;
    for (password, instead) in [(PASSWORD, "wrong"), (&format!(":{PASSWORD}"), "")] {
        let store = store(&postgres.url().replace(password, instead));
        assert_eq!(failure(&store).await, StoreErrorKind::Forbidden, "{instead:?}");
    }
}

#[tokio::test]
async fn missing_database_is_a_schema_error() {
    let postgres = Postgres::start_new().await;
    let store = store(&format!("{}2", postgres.url()));
    assert_eq!(failure(&store).await, StoreErrorKind::Schema);
}

#[tokio::test]
async fn what_is_no_postgresql_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let store = store(&format!("postgres://keystead:{PASSWORD}@127.0.0.1:{port}/keystead"));
    let answer_http = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400\r\n\r\n").await;
        }
    };
    tokio::select! {
        kind = failure(&store) => assert_eq!(kind, StoreErrorKind::Unreachable),
        () = answer_http => {}
    }
}

#[tokio::test]
async fn dropped_lookup_never_poisons_a_connection() {
    let (postgres, store) = with_a_key().await;
    assert!(knows(&store, 1).await.unwrap());
    let before = postgres.backends().await;

    let lock = postgres.client().await;
    let locking = "BEGIN; LOCK TABLE keystead.api_keys IN ACCESS EXCLUSIVE MODE";
    lock.batch_execute(locking).await.unwrap();
    let asked = [digest(1)];
    {
        let mut lookup = pin!(store.find(&asked));
        eventually("the lookup waits for the lock", async || {
            let pending = futures::poll!(&mut lookup).is_pending();
            assert!(pending, "the lookup went past the lock");
            let waiting = "SELECT count(*) FROM pg_stat_activity \
                           WHERE application_name = 'keystead' AND wait_event_type = 'Lock'";
            (postgres.value(waiting).await == "1").then_some(())
        })
        .await;
    }
    lock.batch_execute("ROLLBACK").await.unwrap();

    // Every answer belongs to its question.
    for number in [2, 1, 2, 1] {
        assert_eq!(knows(&store, number).await.unwrap(), number == 1);
    }
    eventually("the server closes the connection", async || {
        let now = postgres.backends().await;
        (now.len() == 1 && now != before).then_some(())
    })
    .await;
}

/// A store with four permits and a connection for each; their backends are stopped, the
/// server keeps accepting connections.
async fn with_stopped_backends(
    postgres: &Postgres,
    tcp_user_timeout: Duration,
) -> (PostgresStore, Vec<String>) {
    let connect_timeout = Duration::from_millis(300);
    let config = impatient(&postgres.url());
    let store = store_with(&PostgresConfig { connect_timeout, tcp_user_timeout, ..config });
    let backends = eventually("there is a connection for each permit", async || {
        let _ = futures::future::join_all((0..8).map(|_| knows(&store, 1))).await;
        Some(postgres.backends().await).filter(|backends| backends.len() == 4)
    })
    .await;
    postgres.signal("STOP", &backends);
    (store, backends)
}

#[tokio::test]
async fn cancelled_lookup_keeps_its_permit_until_the_server_has_ended_it() {
    let (postgres, warm) = with_a_key().await;
    drop(warm);
    let (store, stopped) = with_stopped_backends(&postgres, Duration::from_mins(1)).await;
    for _ in 0..3 {
        let kinds = futures::future::join_all((0..8).map(|_| failure(&store))).await;
        assert_eq!(kinds, [StoreErrorKind::Timeout; 8]);
        assert_eq!(postgres.backends().await, stopped, "the same four");
    }
    postgres.signal("CONT", &stopped);
    recovers(&store).await;
    eventually("what was given up is closed", async || {
        let now = postgres.backends().await;
        now.iter().all(|pid| !stopped.contains(pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn server_silent_about_cancelled_lookups_counts_as_vanished_after_a_while() {
    let (postgres, warm) = with_a_key().await;
    drop(warm);
    let (store, stopped) = with_stopped_backends(&postgres, Duration::from_millis(500)).await;
    assert_eq!(failure(&store).await, StoreErrorKind::Timeout);
    recovers(&store).await;
    assert_ne!(postgres.backends().await, stopped, "by connections of another server");
    postgres.signal("CONT", &stopped);
}

#[tokio::test]
async fn connection_slower_than_its_caller_waits_serves_the_next_caller() {
    // The server waits a second after it has checked the password.
    let settings = vec![("post_auth_delay", "1".to_owned())];
    let postgres = Postgres::with(Setup { settings, ..Setup::default() }).await;
    let store = store(&postgres.url());
    let patience = Duration::from_millis(100);
    let outcome = eventually("a lookup is answered in time", async || {
        let asked = [digest(1)];
        tokio::time::timeout(patience, store.find(&asked)).await.ok()
    });
    // The schema is missing, and the server says so.
    assert_eq!(outcome.await.unwrap_err().kind(), StoreErrorKind::Schema);
}

#[tokio::test]
async fn cancelled_callers_leave_no_more_connections_than_permits() {
    let settings = vec![("post_auth_delay", "1".to_owned())];
    let postgres = Postgres::with(Setup { settings, ..Setup::default() }).await;
    let store = store(&postgres.url());
    let asked = [digest(1)];
    for _ in 0..50 {
        let mut lookup = pin!(store.find(&asked));
        assert!(futures::poll!(&mut lookup).is_pending());
        tokio::task::yield_now().await;
    }
    eventually("the connections are made", async || {
        (postgres.backends().await.len() == 4).then_some(())
    })
    .await;
    let lookups = futures::future::join_all((0..50).map(|_| store.find(&asked)));
    assert!(lookups.await.iter().all(Result::is_err));
    assert_eq!(postgres.backends().await.len(), 4);
}
