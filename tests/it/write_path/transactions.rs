//! Transactions of others that do not come to an end.

use std::time::{Duration, Instant};

use keystead::key::Action;

use crate::{
    feed::{for_ever, until_refused, warm},
    harness::{
        backend::{Backend, Server},
        fixture::Fixture,
        keystead::Keystead,
        postgres::rows,
    },
};

/// Time limit for a revocation.
const SOON: Duration = Duration::from_secs(1);

#[tokio::test]
async fn transaction_left_open_on_one_key_does_not_hold_up_others() {
    let fixture = Fixture::with(Server::start().await, for_ever).await;
    let keys = warm(&fixture.keys, 20, &[&fixture.service]).await;
    let (held, others) = keys.split_first().unwrap();
    let idle = fixture.backend.postgres.client().await;
    let change = format!(
        "BEGIN; UPDATE keystead.api_keys SET name = 'x' WHERE id = '{}'; \
         INSERT INTO keystead.api_keys (id, digest, principal) \
         VALUES ('key_new', sha256('new'), 'acme')",
        held.id
    );
    rows(&idle, &change).await;
    for key in others {
        let began = Instant::now();
        fixture.keys.act(key, Action::Revoke).await;
        until_refused(key, &fixture.service).await;
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
    rows(&idle, "COMMIT").await;
    fixture.keys.act(held, Action::Revoke).await;
    until_refused(held, &fixture.service).await;
}

#[tokio::test]
async fn who_holds_the_key_that_is_to_be_revoked_is_named() {
    let fixture = Fixture::new(Server::start().await).await;
    let keys = fixture.keys.create_many(1).await;
    let (id, url) = (keys[0].id.as_str(), fixture.backend.postgres.url());
    let idle = fixture.backend.postgres.client().await;
    let pid = rows(&idle, "SELECT pg_backend_pid()").await.remove(0);
    let change = format!("BEGIN; UPDATE keystead.api_keys SET name = 'x' WHERE id = '{id}'");
    rows(&idle, &change).await;
    let said = Keystead::new().run(["keys", "revoke", id, "--store", &url]).await.failed(1);
    let named = format!("pid {pid} (test, role postgres)");
    assert!(said.contains(&named), "{said}");
    assert!(said.contains(&format!("pg_terminate_backend({pid})")), "{said}");
    fixture.backend.sql(&format!("SELECT pg_terminate_backend({pid})")).await;
    Keystead::new().run(["keys", "revoke", id, "--store", &url]).await.ok();
}
