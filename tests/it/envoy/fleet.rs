//! Two replicas of the program on one PostgreSQL server behind Envoy, under load,
//! of which one goes away in each way there is.

mod replicas;
mod traffic;

use std::time::{Duration, Instant};

use self::{
    replicas::Fleet,
    traffic::{CALLERS, Traffic},
};
use crate::harness::{
    envoy::{EnvoyConfig, Version, on_both_envoys},
    eventually,
};

on_both_envoys! {
    rolling_restart_fails_no_request_even_without_retries,
    killed_replica_fails_no_request,
    hung_replica_fails_no_request_is_left_soon_and_used_again_afterwards,
    store_outage_fails_no_request_of_a_warm_key,
}

/// Until Envoy has left a replica that says nothing, by its health alone: two
/// checks in a row that fail, one a second, each after half a second.
const LEFT_AFTER: Duration = Duration::from_secs(3);

/// Time that Envoy waits for a replica before it tries another.
const TRY: Duration = Duration::from_millis(180);

/// What a busy machine adds.
const ALLOWANCE: Duration = Duration::from_secs(1);

async fn rolling_restart_fails_no_request_even_without_retries(version: Version) {
    let change = |shown: EnvoyConfig| shown.patient().with("num_retries: 2", "num_retries: 0");
    let mut fleet = Fleet::start(version, change).await;
    let traffic = Traffic::on(&fleet);
    traffic.goes_on().await;
    for replica in 0..2 {
        fleet.restart(replica).await;
        // As a roll-out does, which waits until the new one is ready.
        fleet.until_ready(replica).await;
    }
    fleet.envoy.until_healthy(2).await;
    fleet.until_both_answer().await;
    let samples = traffic.stop().await;
    samples.all_succeeded();
}

async fn killed_replica_fails_no_request(version: Version) {
    let mut fleet = Fleet::start(version, EnvoyConfig::patient).await;
    let traffic = Traffic::on(&fleet);
    traffic.goes_on().await;
    fleet.kill(0).await;
    fleet.envoy.until_healthy(1).await;
    traffic.goes_on().await;
    fleet.start_again(0).await;
    fleet.envoy.until_healthy(2).await;
    fleet.until_both_answer().await;
    traffic.stop().await.all_succeeded();
}

/// Those that were with it wait for one time-out, and are answered by the other.
async fn hung_replica_fails_no_request_is_left_soon_and_used_again_afterwards(version: Version) {
    // The time-out of a try is that of the example; the second may take longer on
    // a busy machine.
    let change = |shown: EnvoyConfig| shown.with("timeout: 0.4s", "timeout: 20s");
    let fleet = Fleet::start(version, change).await;
    let traffic = Traffic::on(&fleet);
    traffic.goes_on().await;
    let stopped = Instant::now();
    fleet.signal(0, "STOP").await;
    fleet.envoy.until_healthy(1).await;
    let left = stopped.elapsed();
    assert!(left < LEFT_AFTER + ALLOWANCE, "it was left after {left:?}");
    traffic.goes_on().await;
    fleet.signal(0, "CONT").await;
    fleet.envoy.until_healthy(2).await;
    fleet.until_both_answer().await;
    let samples = traffic.stop().await;
    samples.all_succeeded();
    // Each caller a few times at most, and not all the time for some seconds.
    let late = samples.slower_than(TRY);
    assert!(late <= 5 * CALLERS, "{late} waited for the one that hung");
}

async fn store_outage_fails_no_request_of_a_warm_key(version: Version) {
    let mut fleet = Fleet::start(version, EnvoyConfig::patient).await;
    let traffic = Traffic::on(&fleet);
    traffic.goes_on().await;
    fleet.database.postgres.kill();
    eventually("both know of the outage", async || {
        (fleet.instance(0).await == "degraded" && fleet.instance(1).await == "degraded")
            .then_some(())
    })
    .await;
    // Envoy still considers them healthy, and they keep answering.
    traffic.goes_on().await;
    fleet.until_both_answer().await;
    fleet.envoy.until_healthy(2).await;
    fleet.database.postgres.start().await;
    eventually("both are well again", async || {
        (fleet.instance(0).await == "normal" && fleet.instance(1).await == "normal").then_some(())
    })
    .await;
    traffic.stop().await.all_succeeded();
}
