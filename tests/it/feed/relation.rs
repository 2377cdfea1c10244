//! A table that was brought along has no feed.

use crate::harness::{
    app::Service,
    backend::{Backend, Server},
    keys::{Keys, of_acme},
};

#[tokio::test]
async fn relation_of_somebody_else_is_served_without_a_feed_and_says_so() {
    let server = Server::start().await;
    let key = Keys::open(&server.config()).await.create(of_acme()).await;
    let mut config = server.config();
    config.store.relation = Some("keystead.api_keys".to_owned());
    let service = Service::ready(&config).await;
    service.check_key(&key).await.unwrap();
    let status = service.admin.status().await;
    assert_eq!(status["tiers"]["feed"], serde_json::json!({"state": "none"}));
    let read_only = service.admin.metric(r#"keystead_write_path{state="read_only"}"#).await;
    assert_eq!(read_only.to_bits(), 1.0_f64.to_bits());
    assert_eq!((&status["state"], &status["dominant_cause"]), (&"normal".into(), &().into()));
    let scrape = service.admin.scrape().await;
    assert_eq!(scrape.get("keystead_feed_connected").to_bits(), 0);
    assert!(!scrape.names().any(|name| name.starts_with("keystead_feed_lag")), "{scrape:?}");
    // Its own listener would be a second application of that name.
    let listens = "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'LISTEN|key_changes' \
        AND application_name = 'keystead'";
    assert_eq!(server.postgres.value(listens).await, "0");
}
