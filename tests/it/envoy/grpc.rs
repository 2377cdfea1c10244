//! A gRPC client, which is refused as gRPC has it.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tonic::{
    Code, Request, Status,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient},
    server::health_reporter,
};

use super::site::{Site, bearer};
use crate::harness::{
    app::channel_to,
    backend::Backend,
    beside,
    envoy::{Version, on_both_envoys},
    keys::of_acme,
    refusal::Refusal,
};

on_both_envoys! {
    grpc_client_of_envoy_gets_answers_denials_and_outages_as_keystead_sends_them,
}

/// A service that a proxy protects: any that speaks gRPC will do.
async fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reporter, service) = health_reporter();
    reporter.set_service_status("orders", ServingStatus::Serving).await;
    let serving =
        Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener));
    beside(serving);
    address
}

async fn ask(site: &Site, key: Option<&str>) -> Result<HealthCheckResponse, Status> {
    let (channel, _) = channel_to(site.envoy.address).await;
    let mut request = Request::new(HealthCheckRequest { service: "orders".to_owned() });
    if let Some(key) = key {
        request.metadata_mut().insert("authorization", bearer(key).parse().unwrap());
    }
    HealthClient::new(channel).check(request).await.map(tonic::Response::into_inner)
}

async fn grpc_client_of_envoy_gets_answers_denials_and_outages_as_keystead_sends_them(
    version: Version,
) {
    let behind = service().await;
    let mut site = Site::with(version, |_| (), |shown| shown.with_grpc(behind)).await;
    let [known, unseen] = [of_acme(), of_acme()].map(|rights| site.fixture.keys.create(rights));
    let (known, unseen) = (known.await.text, unseen.await.text);
    assert_eq!(ask(&site, Some(&known)).await.unwrap().status, ServingStatus::Serving as i32);

    let rows = [
        (None, "CREDENTIAL_MISSING", "no API key was presented"),
        (
            Some("ks_live_forged"),
            "CREDENTIAL_MALFORMED",
            "what was presented is not an API key: a part of it is missing; copy it anew",
        ),
    ];
    for (key, reason, message) in rows {
        let refusal = Refusal::of(&ask(&site, key).await.unwrap_err());
        refusal.is_honest();
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unauthenticated, reason));
        assert_eq!(refusal.message, message);
    }

    site.fixture.backend.vanish().await;
    ask(&site, Some(&known)).await.expect("it is in memory");
    let refusal = Refusal::of(&ask(&site, Some(&unseen)).await.unwrap_err());
    // With RetryInfo and the pushback.
    refusal.is_honest();
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "STORE_UNREACHABLE"));
}
