//! Which need a path falls to.

use super::site::{Site, bearer, refuses};
use crate::harness::{
    envoy::{Version, on_both_envoys},
    http::request,
    keys::of_acme,
};

on_both_envoys! {
    path_in_another_spelling_needs_the_same_scopes,
    preflight_of_a_page_that_may_call_is_answered_without_a_key,
}

/// Any valid key may do what is not `/orders`.
async fn path_in_another_spelling_needs_the_same_scopes(version: Version) {
    let site = Site::new(version).await;
    let key = site.fixture.keys.create(of_acme()).await.text;
    for path in ["/orders", "/orders/1", "/ORDERS/1", "/Orders", "/orders?a=b", "/orders/"] {
        refuses(&site.present(path, &key).await, (403, "PERMISSION_DENIED", "SCOPE_MISSING"));
    }
    for path in [
        "//orders/1",
        "/x/../orders/1",
        "/orders/../orders",
        "/%6frders/1",
        "/orders\\1",
        "/public/../ORDERS",
        "/orders%09",
        "/orders%20",
        "/orders;v=1",
        "/orders.json",
        "//orders%09",
    ] {
        refuses(&site.present(path, &key).await, (403, "PERMISSION_DENIED", "SCOPE_MISSING"));
    }
    for path in ["/orders%2F1", "/orders%5c1"] {
        let answer = site.get(path, &[("authorization", &bearer(&key))]).await;
        assert_eq!((answer.status, answer.header("location")), (307, Some("/orders/1")), "{path}");
    }
    assert!(site.upstream.received().is_empty());
    for path in ["/", "/ordersome", "/orders/../x", "/orders-old"] {
        assert_eq!(site.present(path, &key).await.status, 200, "{path}");
    }
}

async fn preflight_of_a_page_that_may_call_is_answered_without_a_key(version: Version) {
    let site = Site::new(version).await;
    let ask = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization"),
        ];
        site.send(request("OPTIONS", "/orders/1", &headers, ""))
    };
    let origin = "https://app.example.com";
    let answer = ask(origin).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
    assert!(answer.header("access-control-allow-headers").unwrap().contains("authorization"));
    let answer = ask("https://elsewhere.example.com").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (401, None));
    // A page that may call can read why it was refused.
    let answer = site.get("/orders/1", &[("origin", origin)]).await;
    refuses(&answer, (401, "UNAUTHENTICATED", "CREDENTIAL_MISSING"));
    assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
    assert!(site.upstream.received().is_empty());
}
