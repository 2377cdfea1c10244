//! A feed that is cut off: until when a revocation can go unnoticed.

use std::time::{Duration, Instant};

use crate::harness::{
    app::Service,
    backend::{Backend, Server},
    eventually,
    keys::Keys,
    refusal::Refusal,
};

const FRESH_FOR: Duration = Duration::from_secs(1);

/// The spread of `cache.fresh_for`.
const AT_MOST: Duration = Duration::from_millis(1100);

/// Shorter than what remains of `FRESH_FOR`, so that the word of the feed does
/// not outlive it.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// For an instance that shares two cores with other tests, and its query.
const ALLOWANCE: Duration = Duration::from_secs(1);

const REVOCATIONS: usize = 3;

/// Of two instances one may no longer read the changes. The other one shows that
/// a revocation takes effect at once where the feed works.
#[tokio::test]
async fn instance_whose_feed_is_cut_refuses_a_revoked_key_that_is_in_use_within_fresh_for() {
    let server = Server::start().await;
    server.postgres.add_role("serving").await;
    server
        .sql(
            "GRANT USAGE ON SCHEMA keystead TO serving; \
             GRANT SELECT ON keystead.api_keys, keystead.key_changes TO serving",
        )
        .await;
    let mut config = server.config();
    config.cache.fresh_for = FRESH_FOR;
    config.feed.heartbeat_every = HEARTBEAT;
    let healthy = Service::ready(&config).await;
    config.store.url = server.postgres.url_for("serving").parse().unwrap();
    let cut = Service::ready(&config).await;
    let keys = Keys::open(&server.config()).await.create_many(REVOCATIONS).await;

    server.sql("REVOKE SELECT ON keystead.key_changes FROM serving").await;
    cut.admin.until_metric("keystead_feed_connected", 0.0).await;
    eventually("the cut is shown", async || {
        (cut.admin.status().await["tiers"]["feed"]["state"] == "down").then_some(())
    })
    .await;
    for key in &keys {
        healthy.check_key(key).await.unwrap();
        cut.check_key(key).await.unwrap();
        let revoke = "UPDATE keystead.api_keys SET state = 'revoked' WHERE id";
        server.sql(&format!("{revoke} = '{}'", key.id.as_str())).await;
        let revoked = Instant::now();
        let [of_healthy, of_cut] =
            tokio::join!(refused(&healthy, key, revoked), refused(&cut, key, revoked)).into();
        println!("felt after {of_healthy:?} with the feed, {of_cut:?} without");
        assert!(of_healthy < ALLOWANCE, "{of_healthy:?}");
        assert!(of_cut < AT_MOST + ALLOWANCE, "{of_cut:?}");
    }
}

async fn refused(service: &Service, key: &crate::harness::keys::Key, since: Instant) -> Duration {
    eventually("it is refused", async || {
        let status = service.check_key(key).await.err()?;
        assert_eq!(Refusal::of(&status).reason, "KEY_REVOKED");
        Some(since.elapsed())
    })
    .await
}
