//! Connections have a greatest age.

use std::time::Duration;

use super::Site;
use crate::harness::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_renewed_at_their_greatest_age() {
    let site = Site::new().await;
    let mut config = site.config(&site.server.postgres.url());
    config.store.max_connection_age = Duration::from_secs(1);
    let (service, callers) = site.service(&config).await;
    let began = site.server.postgres.value("SELECT clock_timestamp()").await;
    let older = format!(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE application_name = 'keystead' AND backend_start < '{began}'"
    );
    drop(site.keys);
    eventually("all connections are younger", async || {
        for key in &site.warm {
            service.check_key(key).await.unwrap();
        }
        (site.server.postgres.value(&older).await == "0").then_some(())
    })
    .await;
    assert!(callers.told.lock().unwrap().iter().all(|told| told.outcome.is_ok()));
}
