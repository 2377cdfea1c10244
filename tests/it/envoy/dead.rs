//! No replica answers at all.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::harness::{
    envoy::{Envoy, EnvoyConfig, Version, on_both_envoys},
    http::{get, send},
    upstream::Upstream,
};

on_both_envoys! {
    dead_keystead_is_a_503_and_never_a_403,
    hung_keystead_is_a_503_and_never_a_403,
    dead_keystead_lets_no_spoofed_identity_through_where_it_fails_open,
    route_without_checks_lets_no_spoofed_identity_through,
    header_with_underscores_that_reads_like_an_identity_is_refused,
}

/// What a client claims.
const SPOOFED: [(&str, &str); 4] = [
    ("x-keystead-principal", "root"),
    ("X-Keystead-Scopes", "admin"),
    ("x-keystead-key-id", "key_x"),
    ("x-keystead-made-up", "1"),
];

/// Port 1 is below those that are given out.
fn nobody() -> SocketAddr {
    ([127, 0, 0, 1], 1).into()
}

async fn dead_keystead_is_a_503_and_never_a_403(version: Version) {
    is_a_plain_503(version, [nobody(), nobody()]).await;
}

async fn hung_keystead_is_a_503_and_never_a_403(version: Version) {
    // The kernel accepts connections, and nobody reads what they say.
    let [one, other] = [TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0")];
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    let addresses = [one.local_addr().unwrap(), other.local_addr().unwrap()];
    is_a_plain_503(version, addresses).await;
}

async fn is_a_plain_503(version: Version, replicas: [SocketAddr; 2]) {
    let upstream = Upstream::start().await;
    let envoy = Envoy::start(version, &EnvoyConfig::new(&replicas, upstream.address)).await;
    let answer = send(envoy.address, get("/", &[("authorization", "Bearer ks_live_x")])).await;
    assert_eq!((answer.status, answer.body.as_str()), (503, ""), "{answer:?}");
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(envoy.stats().await.ext_authz("error"), 1);
    assert!(upstream.received().is_empty());
}

async fn dead_keystead_lets_no_spoofed_identity_through_where_it_fails_open(version: Version) {
    let upstream = Upstream::start().await;
    let config = EnvoyConfig::new(&[nobody()], upstream.address)
        .with("failure_mode_allow: false", "failure_mode_allow: true");
    let envoy = Envoy::start(version, &config).await;
    assert_eq!(send(envoy.address, get("/", &SPOOFED)).await.status, 200);
    assert_eq!(envoy.stats().await.ext_authz("failure_mode_allowed"), 1);
    claims_nothing(&upstream);
}

async fn route_without_checks_lets_no_spoofed_identity_through(version: Version) {
    let upstream = Upstream::start().await;
    let envoy = Envoy::start(version, &EnvoyConfig::new(&[nobody()], upstream.address)).await;
    for way in ["/public/x", "/orders/%2e%2e/public/x", "//public///x"] {
        assert_eq!(send(envoy.address, get(way, &SPOOFED)).await.status, 200, "{way}");
    }
    assert_eq!(send(envoy.address, get("/public/../orders", &[])).await.status, 503);
    let redirected = send(envoy.address, get("/public%2f..%2forders", &[])).await;
    assert_eq!((redirected.status, redirected.header("location")), (307, Some("/orders")));
    claims_nothing(&upstream);
    assert_eq!(upstream.received().len(), 3);
}

async fn header_with_underscores_that_reads_like_an_identity_is_refused(version: Version) {
    let upstream = Upstream::start().await;
    let envoy = Envoy::start(version, &EnvoyConfig::new(&[nobody()], upstream.address)).await;
    let spoofed = get("/public/x", &[("x_keystead_principal", "root")]);
    assert_eq!(send(envoy.address, spoofed).await.status, 400);
    assert!(upstream.received().is_empty());
}

fn claims_nothing(upstream: &Upstream) {
    for received in upstream.received() {
        let claims = received.headers.keys().any(|name| name.as_str().contains("keystead"));
        assert!(!claims, "{received:?}");
    }
}
