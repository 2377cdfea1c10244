//! Settings of a connection.

use std::{num::NonZeroUsize, time::Duration};

use keystead::store::{Answer, KeyAdmin, Lookups, Page, StoreErrorKind, postgres::PostgresConfig};

use super::{config, knows, store_with, with_a_key};
use crate::harness::{
    postgres::{PASSWORD, Postgres},
    relay::Relay,
};

/// A view that shows, as the principal of a key, what the session has set.
async fn reveal(postgres: &Postgres, expression: &str) {
    postgres
        .sql(&format!(
            "CREATE VIEW keystead.revealing AS SELECT id, digest, secret, hint, \
             coalesce(nullif(({expression})::text, ''), 'nothing') AS principal, name, scopes, \
             allowed_networks, audiences, metadata, state, not_before, expires_at, created_at, last_used_at, revision FROM keystead.api_keys; \
             GRANT SELECT ON keystead.revealing TO keystead"
        ))
        .await;
}

async fn revealed(config: &PostgresConfig) -> String {
    let relation = Some("keystead.revealing".to_owned());
    let store = store_with(&PostgresConfig { relation, ..config.clone() });
    let lookup = store.find(&[super::digest(1)]).await.unwrap();
    let Some(Answer::Found(record)) = lookup.get(&super::digest(1)) else {
        panic!("the key is missing");
    };
    record.principal().to_owned()
}

#[tokio::test]
async fn server_timeout_is_nine_tenths_of_the_query_timeout_in_both_modes() {
    let (postgres, _store) = with_a_key().await;
    reveal(&postgres, "current_setting('statement_timeout')").await;
    for prepared_statements in [true, false] {
        let config = PostgresConfig { prepared_statements, ..config(&postgres.url()) };
        assert_eq!(revealed(&config).await, "4500ms", "prepared: {prepared_statements}");
    }
    let options = format!("{}?options=-c%20work_mem%3D1MB", postgres.url());
    assert_eq!(revealed(&config(&options)).await, "4500ms");
}

#[tokio::test]
async fn options_of_the_url_are_kept() {
    let (postgres, _store) = with_a_key().await;
    reveal(&postgres, "current_setting('work_mem') || current_setting('application_name')").await;
    let url = format!("{}?options=-c%20work_mem%3D1MB&application_name=ours", postgres.url());
    assert_eq!(revealed(&config(&url)).await, "1MBours");
    assert_eq!(revealed(&config(&postgres.url())).await, "4MBkeystead");
}

#[tokio::test]
async fn slow_lookup_ends_at_the_server_and_its_connection_is_kept() {
    let (postgres, _store) = with_a_key().await;
    postgres
        .sql(
            "CREATE TABLE keystead.slowness AS SELECT 0::float8 AS seconds; \
             GRANT SELECT ON keystead.slowness TO keystead",
        )
        .await;
    reveal(&postgres, "(SELECT pg_sleep(seconds) FROM keystead.slowness)").await;
    for prepared_statements in [true, false] {
        let store = store_with(&PostgresConfig {
            prepared_statements,
            relation: Some("keystead.revealing".to_owned()),
            query_timeout: Duration::from_secs(1),
            ..config(&postgres.url())
        });
        postgres.sql("UPDATE keystead.slowness SET seconds = 0").await;
        assert!(knows(&store, 1).await.unwrap());
        let connections = postgres.backends().await;
        postgres.sql("UPDATE keystead.slowness SET seconds = 60").await;
        let error = knows(&store, 1).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Timeout);
        assert!(error.detail().contains("57014"), "the server did not end it: {error}");
        assert_eq!(postgres.backends().await, connections);
        postgres.sql("UPDATE keystead.slowness SET seconds = 0").await;
        assert!(knows(&store, 1).await.unwrap());
    }
}

#[tokio::test]
async fn pages_may_take_longer_than_lookups() {
    let (postgres, _store) = with_a_key().await;
    reveal(&postgres, "current_setting('statement_timeout')").await;
    let relation = Some("keystead.revealing".to_owned());
    let max_connections = NonZeroUsize::MIN;
    let store =
        store_with(&PostgresConfig { relation, max_connections, ..config(&postgres.url()) });
    let page = Page { principal: None, after: None, limit: 10.try_into().unwrap() };
    let keys = store.list(&page).await.unwrap();
    assert_eq!(keys[0].record.rights.principal, "30s");
    // Only for the page: the next lookup on the same connection is short again.
    let lookup = store.find(&[super::digest(1)]).await.unwrap();
    match lookup.get(&super::digest(1)) {
        Some(Answer::Found(known)) => assert_eq!(known.principal(), "4500ms"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn kernel_timeouts_for_a_silent_server_are_set() {
    let (postgres, store) = with_a_key().await;
    assert!(knows(&store, 1).await.unwrap());
    let port = postgres.port();
    let sockets = std::process::Command::new("ss")
        .args(["-tno", "state", "established", &format!("( dport = :{port} )")])
        .output()
        .expect("`ss` is in the package iproute2: `apt-get install iproute2`");
    let sockets = String::from_utf8(sockets.stdout).unwrap();
    assert!(sockets.contains("timer:(keepalive,"), "{sockets}");
}

#[tokio::test]
async fn lookup_costs_one_round_trip_in_both_modes() {
    let (postgres, _store) = with_a_key().await;
    let relay = Relay::before(postgres.port()).await;
    let url =
        postgres.url().replace(&format!(":{}/", postgres.port()), &format!(":{}/", relay.port()));
    for prepared_statements in [true, false] {
        let store = store_with(&PostgresConfig { prepared_statements, ..config(&url) });
        assert!(knows(&store, 1).await.unwrap());
        let before = relay.turns();
        for lookup in 1..=10 {
            assert!(knows(&store, 1).await.unwrap());
            assert_eq!(relay.turns() - before, lookup, "prepared: {prepared_statements}");
        }
    }
}

#[tokio::test]
async fn nothing_that_can_be_shown_holds_the_password() {
    let url = format!("postgres://keystead:{PASSWORD}@127.0.0.1:1/keystead");
    let config = config(&url);
    let store = store_with(&config);
    let error = knows(&store, 1).await.unwrap_err();
    let shown = format!("{config:?} {config:#?} {store:?} {error} {error:?}");
    assert!(!shown.contains(PASSWORD), "{shown}");
}
