//! An instance that cannot help says so, and one that can stays in.

use std::time::{Duration, Instant};

use keystead::transport::health_pb::health_check_response::ServingStatus::{NotServing, Serving};

use super::{
    fault::Fault,
    site::{Site, load, until_answered},
};
use crate::harness::{app::Service, eventually, proxy::Conduct};

/// Longer than the window over which checks are counted.
const LONGER_THAN_THE_WINDOW: Duration = Duration::from_secs(13);

#[tokio::test]
async fn instance_that_answers_hardly_any_check_is_taken_out_until_its_store_is_back() {
    let fault = Fault::Network(Conduct::Refuse);
    let mut site = Site::new(fault.query_timeout()).await;
    let keys = site.keys(200).await;
    let service = Service::ready(&site.config).await;
    fault.strike(&mut site).await;

    eventually("it is cold", async || {
        load(&service, &keys).await;
        (service.admin.status().await["state"] == "cold").then_some(())
    })
    .await;
    for name in ["", "keystead.v1.Authz"] {
        eventually("it says so", async || {
            (service.health(name).await.unwrap() == NotServing).then_some(())
        })
        .await;
    }
    assert_eq!(service.health("liveness").await.unwrap(), Serving);
    let readiness = service.admin.get("/readyz").await;
    assert_eq!((readiness.status, readiness.body.as_str()), (503, "cold\n"));

    fault.mend(&mut site).await;
    eventually("all is well again", async || {
        (service.admin.status().await["state"] == "normal").then_some(())
    })
    .await;
    until_answered(&service, &keys[0]).await;
    assert_eq!(service.admin.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn instance_that_answers_warm_keys_stays_in_beside_many_cold_ones() {
    let fault = Fault::Network(Conduct::Refuse);
    let mut site = Site::new(fault.query_timeout()).await;
    let keys = site.keys(95).await;
    let (warm, cold) = keys.split_at(15);
    let service = Service::ready(&site.config).await;
    load(&service, warm).await;
    fault.strike(&mut site).await;
    eventually("its store is down", async || {
        (service.admin.status().await["state"] == "degraded").then_some(())
    })
    .await;

    let (began, mut rounds) = (Instant::now(), 0);
    while began.elapsed() < LONGER_THAN_THE_WINDOW {
        let (answered, _) = load(&service, warm).await;
        assert_eq!(answered.of_code(tonic::Code::Ok), warm.len(), "{answered:?}");
        let (unanswered, _) = load(&service, cold).await;
        assert_eq!(unanswered.of_code(tonic::Code::Unavailable), cold.len(), "{unanswered:?}");
        assert_eq!(service.health("").await.unwrap(), Serving, "round {rounds}");
        assert_eq!(service.admin.status().await["state"], "degraded", "round {rounds}");
        rounds += 1;
    }
    assert!(rounds > 10, "{rounds} rounds are too few to tell");
}
