//! Starting while the store is down.

use std::time::Instant;

use keystead::transport::health_pb::health_check_response::ServingStatus::{NotServing, Serving};
use tonic::Code;

use super::{
    RECOVERY,
    fault::Fault,
    site::{Site, until_answered},
};
use crate::harness::{app::Service, eventually, proxy::Conduct};

#[tokio::test]
async fn service_started_without_its_store_serves_by_itself_when_it_comes() {
    for fault in [Fault::Killed, Fault::Stopped, Fault::Network(Conduct::Swallow)] {
        let mut site = Site::new(fault.query_timeout()).await;
        let keys = site.keys(2).await;
        fault.strike(&mut site).await;
        let service = Service::start(&site.config).await;

        eventually("the process is alive", async || {
            let liveness = service.health("liveness").await;
            liveness.is_ok_and(|status| status == Serving).then_some(())
        })
        .await;
        for name in ["", "keystead.v1.Authz", "store"] {
            assert_eq!(service.health(name).await.unwrap(), NotServing, "{name:?}");
        }
        let readiness = service.admin.get("/readyz").await;
        assert_eq!((readiness.status, readiness.body.as_str()), (503, "starting\n"));
        assert_eq!(service.admin.get("/livez").await.status, 200);
        assert_eq!(service.check_key(&keys[0]).await.unwrap_err().code(), Code::Unavailable);

        fault.mend(&mut site).await;
        let mended = Instant::now();
        for name in ["", "keystead.v1.Authz", "store"] {
            eventually("it serves", async || {
                (service.health(name).await.unwrap() == Serving).then_some(())
            })
            .await;
        }
        assert!(mended.elapsed() < RECOVERY, "{:?}", mended.elapsed());
        assert_eq!(service.admin.get("/readyz").await.status, 200);
        for key in &keys {
            until_answered(&service, key).await;
        }
    }
}
