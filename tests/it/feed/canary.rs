//! The measure of how soon a revocation takes effect.

use std::time::Duration;

use crate::harness::{
    backend::{Backend, Server, on_both_stores},
    eventually,
    fixture::Fixture,
};

on_both_stores! {
    latency_of_revocations_is_measured_all_the_time,
}

const COUNT: &str = "keystead_revocation_latency_seconds_count";

async fn latency_of_revocations_is_measured_all_the_time(backend: impl Backend) {
    let fixture = Fixture::with(backend, |config| {
        config.feed.canary_every = Duration::from_millis(100);
    })
    .await;
    let admin = fixture.service.admin;
    let scrape = eventually("ten canaries are back", async || {
        let scrape = admin.scrape().await;
        (scrape.names().any(|name| name == COUNT) && scrape.get(COUNT) > 9.5).then_some(scrape)
    })
    .await;
    let within = scrape.get(r#"keystead_revocation_latency_seconds_bucket{le="5"}"#);
    assert_eq!(within.to_bits(), scrape.get(COUNT).to_bits(), "none was lost");
    assert!(scrape.get("keystead_revocation_latency_seconds_sum") > 0.0);
    assert!(scrape.get("keystead_feed_lag_seconds") < 60.0);
}

#[tokio::test]
async fn serving_role_needs_only_the_documented_rights_and_sends_canaries_when_permitted() {
    let server = Server::start().await;
    server.postgres.add_role("serving").await;
    // As docs/postgresql.md says.
    server
        .sql(
            "GRANT USAGE ON SCHEMA keystead TO serving; \
             GRANT SELECT ON keystead.api_keys, keystead.key_changes TO serving; \
             GRANT UPDATE (last_used_at) ON keystead.api_keys TO serving",
        )
        .await;
    let url = server.postgres.url_for("serving");
    let fixture = Fixture::with(server, |config| {
        config.store.url = url.parse().unwrap();
        config.feed.canary_every = Duration::from_millis(100);
    })
    .await;
    let admin = fixture.service.admin;
    admin.until_metric("keystead_feed_connected", 1.0).await;
    let measures = async || admin.scrape().await.names().any(|name| name == COUNT);
    assert!(!measures().await);
    fixture.backend.sql("GRANT EXECUTE ON FUNCTION keystead.canary(bytea) TO serving").await;
    // Tried again when the feed connects anew.
    fixture
        .backend
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'serving'")
        .await;
    eventually("it is measured", async || measures().await.then_some(())).await;
}
