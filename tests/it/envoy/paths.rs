//! Which need a path falls to.

use super::site::{Site, bearer, refuses};
use crate::harness::{
    envoy::{Version, on_both_envoys},
    keys::of_acme,
};

on_both_envoys! {
    path_in_another_spelling_needs_the_same_scopes,
}

/// Any valid key may do what is not `/orders`.
async fn path_in_another_spelling_needs_the_same_scopes(version: Version) {
    let site = Site::new(version).await;
    let key = site.bench.keys.create(of_acme()).await.text;
    for path in ["/orders", "/orders/1", "/ORDERS/1", "/Orders", "/orders?a=b", "/orders/"] {
        refuses(&site.present(path, &key).await, (403, "PERMISSION_DENIED", "SCOPE_MISSING"));
    }
    for path in ["//orders/1", "/x/../orders/1", "/%6frders/1", "/orders\\1", "/public/../ORDERS"] {
        refuses(&site.present(path, &key).await, (403, "PERMISSION_DENIED", "SCOPE_MISSING"));
    }
    for path in ["/orders%2F1", "/orders%5c1"] {
        let answer = site.get(path, &[("authorization", &bearer(&key))]).await;
        assert_eq!((answer.status, answer.header("location")), (307, Some("/orders/1")), "{path}");
    }
    assert!(site.upstream.received().is_empty());
    for path in ["/", "/ordersome"] {
        assert_eq!(site.present(path, &key).await.status, 200, "{path}");
    }
}
