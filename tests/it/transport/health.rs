//! `grpc.health.v1`: the statuses that balancers and probes receive.

use futures::{FutureExt, StreamExt, future::ready};
use keystead::app::Stop;
use keystead::transport::health_pb::{
    HealthCheckRequest, HealthListRequest,
    health_check_response::ServingStatus::{self, NotServing, Serving},
    health_client::HealthClient,
};
use tonic::Code;

use crate::harness::{
    app::Service,
    backend::{Backend, on_both_stores},
    eventually,
    fixture::Fixture,
};

on_both_stores! {
    every_name_is_serving_while_all_is_well_and_others_are_not_known,
    outage_is_reported_for_the_store_alone,
    watchers_see_the_end_coming,
}

const READY: [&str; 3] = ["", "keystead.v1.Authz", "envoy.service.auth.v3.Authorization"];

async fn is(service: &Service, name: &str, expected: ServingStatus) {
    eventually(&format!("{name:?} is {expected:?}"), async || {
        (service.health(name).await.unwrap() == expected).then_some(())
    })
    .await;
}

/// The statuses that a watcher of a name receives, in order.
async fn watch(
    service: &Service,
    name: &str,
) -> impl futures::Stream<Item = ServingStatus> + Unpin + use<> {
    let request = HealthCheckRequest { service: name.to_owned() };
    let told = HealthClient::new(service.channel()).watch(request).await.unwrap().into_inner();
    // It ends with the connection, in whatever way.
    told.scan((), |(), told| ready(told.ok().map(|told| told.status()))).boxed()
}

async fn every_name_is_serving_while_all_is_well_and_others_are_not_known(backend: impl Backend) {
    let Fixture { service, .. } = &Fixture::new(backend).await;
    for name in READY.into_iter().chain(["liveness", "store"]) {
        is(service, name, Serving).await;
    }
    let listed = HealthClient::new(service.channel()).list(HealthListRequest {}).await.unwrap();
    let listed = listed.into_inner().statuses;
    assert!(listed.values().all(|health| health.status() == Serving), "{listed:?}");
    let mut names: Vec<_> = listed.into_keys().collect();
    names.sort_unstable();
    let [all, authz, envoy] = READY;
    assert_eq!(names, [all, envoy, authz, "liveness", "store"]);
    for name in ["keystead", "keystead.v1.Keys", "envoy", "Store", " "] {
        let status = service.health(name).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{name:?}");
        let mut told = watch(service, name).await;
        assert_eq!(told.next().await, Some(ServingStatus::ServiceUnknown), "{name:?}");
        let goes_on = told.next().now_or_never();
        assert_eq!(goes_on, None, "its stream stays open");
    }
}

async fn outage_is_reported_for_the_store_alone(backend: impl Backend) {
    let mut fixture = Fixture::new(backend).await;
    let mut store = watch(&fixture.service, "store").await;
    assert_eq!(store.next().await, Some(Serving));
    fixture.backend.vanish().await;
    assert_eq!(store.next().await, Some(NotServing));
    is(&fixture.service, "store", NotServing).await;
    for name in READY.into_iter().chain(["liveness"]) {
        assert_eq!(fixture.service.health(name).await.unwrap(), Serving, "{name:?}");
    }
    fixture.backend.come_back().await;
    assert_eq!(store.next().await, Some(Serving));
}

async fn watchers_see_the_end_coming(backend: impl Backend) {
    let mut fixture = Fixture::new(backend).await;
    let mut watchers = Vec::new();
    for name in READY {
        let mut told = watch(&fixture.service, name).await;
        assert_eq!(told.next().await, Some(Serving));
        watchers.push(told);
    }
    let mut liveness = watch(&fixture.service, "liveness").await;
    assert_eq!(liveness.next().await, Some(Serving));
    fixture.service.stop(Stop::AtOnce);
    for mut told in watchers {
        assert_eq!(told.next().await, Some(NotServing));
    }
    fixture.service.ended().await;
    assert_eq!(liveness.next().await, None, "it lives to its end");
}
