//! An instance that cannot help says so.

use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};

use super::{
    fault::Fault,
    site::{Site, load, until_answered},
};
use crate::harness::{app::Service, eventually, proxy::Conduct};

#[tokio::test]
async fn instance_that_leaves_most_checks_unanswered_is_taken_out_until_its_store_is_back() {
    let fault = Fault::Network(Conduct::Refuse);
    let mut site = Site::new(fault.query_timeout()).await;
    let keys = site.keys(200).await;
    let service = Service::ready(&site.config).await;
    fault.strike(&mut site).await;

    eventually("it is cold", async || {
        load(&service, &keys).await;
        (service.admin.status().await["ladder"] == "cold").then_some(())
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
        (service.admin.status().await["ladder"] == "normal").then_some(())
    })
    .await;
    until_answered(&service, &keys[0]).await;
    assert_eq!(service.admin.get("/readyz").await.status, 200);
}
