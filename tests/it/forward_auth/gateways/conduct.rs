//! Answers to a client of a proxy.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt, stream};
use keystead::key::Action;

use super::{Kind, Site, through_both};
use crate::harness::{backend::Backend, eventually, http::request};

through_both! {
    refusal_reaches_the_client_whole_and_the_upstream_not_at_all,
    outage_is_a_503_for_a_cold_key_and_nothing_for_a_warm_one,
    errors_of_the_upstream_stay_what_they_are,
    needs_that_make_no_sense_let_nobody_in,
    request_with_more_headers_than_keystead_reads_is_a_431,
    path_that_a_service_may_take_for_another_needs_as_much,
    preflight_reaches_the_service_without_a_key_and_without_an_identity,
    no_request_fails_while_connections_grow_old,
}

async fn refusal_reaches_the_client_whole_and_the_upstream_not_at_all(kind: Kind) {
    let site = Site::new(kind).await;
    let (revoked, powerless) = (site.orders_key().await, site.plain_key().await);
    site.fixture.keys.act(&revoked, Action::Revoke).await;
    let realm = r#"Bearer realm="keystead""#;
    let invalid = format!(r#"{realm}, error="invalid_token""#);
    let insufficient = format!(r#"{realm}, error="insufficient_scope""#);
    for (key, status, code, reason, challenge) in [
        ("", 401, "UNAUTHENTICATED", "CREDENTIAL_MISSING", realm),
        ("ks_live_1", 401, "UNAUTHENTICATED", "CREDENTIAL_MALFORMED", invalid.as_str()),
        (&revoked.text, 401, "UNAUTHENTICATED", "KEY_REVOKED", &invalid),
        (&powerless.text, 403, "PERMISSION_DENIED", "SCOPE_MISSING", &insufficient),
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let headers = [("x-api-key", key)];
            let headers = if key.is_empty() { &[][..] } else { &headers };
            let answer =
                site.gateway.send(request(method, "/orders/1", headers, "x".repeat(1000))).await;
            assert_eq!(answer.status, status, "{reason}: {answer:?}");
            let error = &answer.json()["error"];
            assert_eq!((&error["code"], &error["reason"]), (&code.into(), &reason.into()));
            assert!(!error["message"].as_str().unwrap().is_empty());
            assert_eq!(answer.header("www-authenticate"), Some(challenge), "{answer:?}");
            assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
            assert_eq!(answer.header("retry-after"), None, "{answer:?}");
        }
    }
    assert_eq!(site.upstream.received().len(), 0);
}

async fn outage_is_a_503_for_a_cold_key_and_nothing_for_a_warm_one(kind: Kind) {
    let mut site = Site::new(kind).await;
    let (warm, cold) = (site.orders_key().await, site.orders_key().await);
    let queries = "keystead_store_queries_total";
    eventually("the key is in memory", async || {
        let before = site.fixture.service.admin.metric(queries).await;
        assert_eq!(site.gateway.get("/orders/", &[("x-api-key", &warm.text)]).await.status, 200);
        (site.fixture.service.admin.metric(queries).await < before + 0.5).then_some(())
    })
    .await;
    site.fixture.backend.vanish().await;
    let seen = site.upstream.received().len();
    for _ in 0..20 {
        let answer = site.gateway.get("/orders/", &[("x-api-key", &cold.text)]).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=2).contains(&wait), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        assert_eq!(answer.header("www-authenticate"), None, "{answer:?}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("the key was not rejected"), "{answer:?}");
        // Not even many of them keep the proxy from asking about others.
        let answer = site.gateway.get("/orders/", &[("x-api-key", &warm.text)]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(site.upstream.received().len() - seen, 20);
}

async fn errors_of_the_upstream_stay_what_they_are(kind: Kind) {
    let site = Site::new(kind).await;
    let key = site.plain_key().await;
    for status in [500, 502, 503, 504, 401, 403, 404] {
        let path = format!("/status/{status}/x");
        let answer = site.gateway.get(&path, &[("x-api-key", &key.text)]).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.json()["path"], path, "it is the upstream's own");
        assert_eq!(answer.header("retry-after"), None, "{answer:?}");
    }
    // Port 1 is below those that are given out.
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let gateway = kind.start(site.fixture.service.auth, nobody).await;
    let answer = gateway.get("/", &[("x-api-key", &key.text)]).await;
    assert_eq!(answer.status, 502, "it is not Keystead that is out: {answer:?}");
}

/// Held of a parameter that is misspelt, one that is left empty, and a scope that
/// is too long.
async fn needs_that_make_no_sense_let_nobody_in(kind: Kind) {
    let site = Site::new(kind).await;
    let key = site.orders_key().await;
    let long = format!("scopes={}", "x".repeat(257));
    for needs in ["scope=orders:read", "scopes=", long.as_str()] {
        let change = ("scopes=orders:read+orders:list", needs);
        let gateway =
            kind.start_changed(change, site.fixture.service.auth, site.upstream.address).await;
        let answer = gateway.get("/orders/", &[("x-api-key", &key.text)]).await;
        let told = if kind == Kind::Nginx { 500 } else { 400 };
        assert_eq!(answer.status, told, "{needs}: {answer:?}");
        assert_eq!(answer.reason(), "REQUEST_INVALID", "{needs}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    }
    assert_eq!(site.upstream.received().len(), 0);
}

/// Held of more bytes and of more headers, with a key and without.
async fn request_with_more_headers_than_keystead_reads_is_a_431(kind: Kind) {
    let site = Site::new(kind).await;
    let key = site.plain_key().await;
    let long = "x".repeat(7500);
    let bytes: Vec<_> = ["x-a", "x-b", "x-c", "x-d"].map(|name| (name, long.as_str())).into();
    let many: Vec<_> = (0..110).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "1")).collect();
    for mut headers in [bytes, many] {
        for _ in 0..2 {
            for _ in 0..10 {
                let answer = site.gateway.get("/", &headers).await;
                assert_eq!(answer.status, 431, "{answer:?}");
                assert_eq!(answer.header("retry-after"), None, "{answer:?}");
            }
            headers.push(("x-api-key", &key.text));
        }
        let answer = site.gateway.get("/", &[("x-api-key", &key.text)]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(site.upstream.received().len(), 2);
}

async fn path_that_a_service_may_take_for_another_needs_as_much(kind: Kind) {
    let site = Site::new(kind).await;
    let (able, powerless) = (site.orders_key().await, site.plain_key().await);
    for path in [
        "/orders",
        "/orders?a=b",
        "/orders/1",
        "/ORDERS",
        "/Orders/1",
        "/orders%2F1",
        "/%6frders/1",
        "//orders/1",
        "/x/../orders/1",
        "/./orders",
        "/orders/../orders",
        "/orders%09",
        "/orders%20",
        "/orders;v=1",
        "/orders%5C1",
        "/orders.json",
        "//orders%09",
    ] {
        let answer = site.gateway.get(path, &[("x-api-key", &powerless.text)]).await;
        let told = (answer.status, answer.reason());
        assert_eq!(told, (403, "SCOPE_MISSING".to_owned()), "{path}: {answer:?}");
        assert_eq!(site.upstream.received().len(), 0, "{path}");
    }
    let answer = site.gateway.get("/orders", &[("x-api-key", &able.text)]).await;
    assert_eq!((answer.status, &answer.json()["path"]), (200, &"/orders".into()));
    // It is no prefix of names.
    for path in ["/ordersx", "/orders-old", "/orders/../x"] {
        let answer = site.gateway.get(path, &[("x-api-key", &powerless.text)]).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}

async fn preflight_reaches_the_service_without_a_key_and_without_an_identity(kind: Kind) {
    let site = Site::new(kind).await;
    let ask = |headers: &[(&str, &str)]| {
        site.gateway.send(request("OPTIONS", "/orders/1?a=b", headers, ""))
    };
    let (origin, method) =
        (("origin", "https://app.example.com"), ("access-control-request-method", "POST"));
    let answer = ask(&[origin, method, ("x-keystead-principal", "admin")]).await;
    assert_eq!((answer.status, &answer.json()["path"]), (200, &"/orders/1?a=b".into()));
    let received = site.upstream.received().remove(0);
    assert_eq!(received.method, "OPTIONS");
    assert_eq!(received.header("x-keystead-principal"), None, "{received:?}");
    // What is no preflight needs a key, as anything else.
    for headers in [&[][..], &[origin], &[method]] {
        assert_eq!(ask(headers).await.status, 401, "{headers:?}");
    }
    let answer = site.gateway.send(request("POST", "/orders/1", &[origin, method], "")).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(site.upstream.received().len(), 1);
}

async fn no_request_fails_while_connections_grow_old(kind: Kind) {
    let site = Site::with(kind, |config| {
        config.grpc.max_connection_age = Duration::from_millis(100);
    })
    .await;
    let key = site.plain_key().await;
    let requests = stream::iter(0..1000)
        .map(|_| async { site.gateway.get("/", &[("x-api-key", &key.text)]).await.status });
    let answered: Vec<_> = requests.buffer_unordered(4).collect().await;
    assert!(answered.iter().all(|status| *status == 200), "{answered:?}");
}
