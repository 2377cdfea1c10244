//! The feed as a service has it: how soon revocations take effect, and what it
//! takes to keep one away.

mod canary;
mod cut;
mod latency;
mod losses;
mod relation;

use std::time::{Duration, Instant};

use keystead::{config::Config, key::Action};

use crate::harness::{
    DEADLINE,
    app::Service,
    eventually,
    keys::{Key, Keys},
    refusal::Refusal,
};

/// Nothing in memory ends by itself, so that what ends was ended by the feed.
pub(crate) fn for_ever(config: &mut Config) {
    config.cache.fresh_for = Duration::from_hours(1);
    config.cache.absent_for = Duration::from_hours(1);
}

/// New keys that are in the memory of all services, each of which has seen that
/// they were created.
pub(crate) async fn warm(keys: &Keys, count: usize, services: &[&Service]) -> Vec<Key> {
    let new = keys.create_many(count).await;
    for service in services {
        eventually("all keys are in memory", async || {
            let before = queries(service).await;
            for key in &new {
                service.check_key(key).await.unwrap();
            }
            (queries(service).await < before + 0.5).then_some(())
        })
        .await;
    }
    new
}

async fn queries(service: &Service) -> f64 {
    service.admin.metric("keystead_store_queries_total").await
}

/// Revokes a key and waits until the service refuses it. Returns the time from the
/// confirmed revocation to the refusal.
async fn revoke(keys: &Keys, key: &Key, service: &Service) -> Duration {
    keys.act(key, Action::Revoke).await;
    until_refused(key, service).await
}

pub(crate) async fn until_refused(key: &Key, service: &Service) -> Duration {
    let began = Instant::now();
    loop {
        match service.check_key(key).await {
            Err(status) => {
                assert_eq!(Refusal::of(&status).reason, "KEY_REVOKED");
                return began.elapsed();
            }
            Ok(_) => assert!(began.elapsed() < DEADLINE, "it is never refused"),
        }
        // Not in a tight loop, which would take the time from what it measures.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
