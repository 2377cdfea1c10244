//! A Keystead that does not answer.

use std::time::{Duration, Instant};

use keystead::key::Rights;
use tokio::net::TcpListener;

use super::{Kind, on_its_own, through_both};
use crate::harness::{
    admin::Admin,
    backend::{Backend, Embedded},
    eventually,
    fixture::Fixture,
    gateway::Gateway,
    keys::of_acme,
    keystead::Keystead,
    upstream::Upstream,
};

through_both! {
    keystead_that_hangs_or_is_dead_is_a_503_in_good_time,
}

/// The time-outs of the examples together, and what a busy machine adds.
const IN_GOOD_TIME: Duration = Duration::from_secs(5);

/// How the example for nginx names an instance.
const INSTANCE: &str = "server 127.0.0.1:9465 max_fails=0;";

async fn is_an_outage(gateway: &Gateway, key: &str) {
    let began = Instant::now();
    let answer = gateway.get("/", &[("x-api-key", key)]).await;
    let took = began.elapsed();
    assert!(took < IN_GOOD_TIME, "{took:?}: {answer:?}");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.reason(), "KEYSTEAD_UNREACHABLE", "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
}

/// nginx asks another instance; the example for Caddy has one.
#[tokio::test]
async fn dead_or_hung_instance_is_passed_over_by_nginx() {
    let upstream = Upstream::start().await;
    let fixture = Fixture::with(Embedded::start().await, on_its_own).await;
    let key = fixture.keys.create(of_acme()).await;
    // Nobody listens on port 1; the other one takes connections and says nothing.
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for other in ["127.0.0.1:1".to_owned(), hung.local_addr().unwrap().to_string()] {
        let both = format!("server {other} max_fails=0;\n    {INSTANCE}");
        let change = (INSTANCE, both.as_str());
        let gateway =
            Kind::Nginx.start_changed(change, fixture.service.auth, upstream.address).await;
        for _ in 0..10 {
            let answer = gateway.get("/", &[("x-api-key", &key.text)]).await;
            assert_eq!(answer.status, 200, "{other}: {answer:?}");
        }
    }
}

/// The answer about the first key is more than nginx has room for, which it takes
/// for a failure of whoever sent it.
#[tokio::test]
async fn key_with_too_many_scopes_for_nginx_takes_no_instance_from_the_others() {
    let upstream = Upstream::start().await;
    let fixture = Fixture::with(Embedded::start().await, on_its_own).await;
    let scopes = (0..256).map(|n| format!("{n:0>256}")).collect();
    let huge = fixture.keys.create(Rights { scopes, ..of_acme() }).await;
    let key = fixture.keys.create(of_acme()).await;
    let both = format!("{INSTANCE}\n    {INSTANCE}");
    let change = (INSTANCE, both.as_str());
    let gateway = Kind::Nginx.start_changed(change, fixture.service.auth, upstream.address).await;
    for _ in 0..6 {
        is_an_outage(&gateway, &huge.text).await;
        let answer = gateway.get("/", &[("x-api-key", &key.text)]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

async fn keystead_that_hangs_or_is_dead_is_a_503_in_good_time(kind: Kind) {
    let (keystead, upstream) = (Keystead::new(), Upstream::start().await);
    let made = keystead.run(["keys", "create", "--json", "--principal", "acme"]).await.json();
    let key = made["key"].as_str().unwrap();
    let mut server = keystead.serve(&[]).await;
    Admin(server.admin).until_ready().await;
    let gateway = kind.start(server.admin, upstream.address).await;
    let passes = async || gateway.get("/", &[("x-api-key", key)]).await.status == 200;
    assert!(passes().await);

    server.signal("STOP").await;
    let seen = upstream.received().len();
    for _ in 0..3 {
        is_an_outage(&gateway, key).await;
    }
    assert_eq!(upstream.received().len(), seen);
    server.signal("CONT").await;
    eventually("requests pass again", async || passes().await.then_some(())).await;

    server.signal("KILL").await;
    server.ended().await;
    let seen = upstream.received().len();
    for _ in 0..3 {
        is_an_outage(&gateway, key).await;
    }
    assert_eq!(upstream.received().len(), seen);
}
