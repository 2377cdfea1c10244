//! Requests with very long headers.

use std::num::NonZeroUsize;

use keystead::{config::Config, key::Rights};

use super::site::{Site, bearer, refuses};
use crate::harness::{
    envoy::{EnvoyConfig, Version, on_both_envoys},
    keys::of_acme,
};

on_both_envoys! {
    headers_as_long_as_envoy_takes_are_answered_and_longer_ones_are_a_431,
    headers_of_96_kib_are_answered_without_a_setting_of_keystead,
    headers_longer_than_keystead_takes_are_a_431_and_never_let_through,
    longer_headers_are_answered_where_keystead_takes_as_many,
    identity_longer_than_envoy_takes_is_a_500_and_never_let_through,
}

const KIB: usize = 1024;

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

async fn headers_as_long_as_envoy_takes_are_answered_and_longer_ones_are_a_431(version: Version) {
    let site = Site::new(version).await;
    let key = site.fixture.keys.create(of_acme()).await;
    let presented = bearer(&key.text);
    let authorization = ("authorization", presented.as_str());
    // Whatever it is that is long.
    let filler = long(58 * KIB);
    let path = format!("/{filler}");
    let answer = site.get("/", &[authorization, ("x-other", &filler)]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(site.get("/", &[authorization, ("accept", &filler)]).await.status, 200);
    assert_eq!(site.get(&path, &[authorization]).await.status, 200);
    let malformed = site.get("/", &[("authorization", &bearer(&filler))]).await;
    refuses(&malformed, (401, "UNAUTHENTICATED", "CREDENTIAL_MALFORMED"));
    let longer = long(61 * KIB);
    let answer = site.get("/", &[authorization, ("x-other", &longer)]).await;
    assert_eq!(answer.status, 431, "{answer:?}");
    assert_eq!(site.counted().await, [3, 1, 0, 0]);
}

/// With a higher limit in Envoy than its default.
async fn headers_of_96_kib_are_answered_without_a_setting_of_keystead(version: Version) {
    let site = Site::with(version, |_| (), wide).await;
    let key = site.fixture.keys.create(of_acme()).await;
    let presented = bearer(&key.text);
    let filler = long(96 * KIB);
    for name in ["x-other", "accept"] {
        let headers = [("authorization", presented.as_str()), (name, &filler)];
        assert_eq!(site.get("/", &headers).await.status, 200, "{name}");
    }
    assert_eq!(site.counted().await, [2, 0, 0, 0]);
}

/// A long header of another purpose is no obstacle, as it is not a part of the
/// question. What is a part of it is refused by Keystead, for what it is, also where
/// an outage would let requests pass.
async fn headers_longer_than_keystead_takes_are_a_431_and_never_let_through(version: Version) {
    for open in [false, true] {
        let site = Site::with(
            version,
            |_| (),
            |shown| {
                wide(shown)
                    .with("failure_mode_allow: false", &format!("failure_mode_allow: {open}"))
            },
        )
        .await;
        let key = site.fixture.keys.create(of_acme()).await;
        let presented = bearer(&key.text);
        let authorization = ("authorization", presented.as_str());
        let filler = long(257 * KIB);
        assert_eq!(site.get("/", &[authorization, ("x-other", &filler)]).await.status, 200);
        let answer = site.get("/", &[authorization, ("accept", &filler)]).await;
        refuses(&answer, (431, "INVALID_ARGUMENT", "REQUEST_INVALID"));
        assert_eq!(site.upstream.received().len(), 1, "the first alone");
        assert_eq!(site.counted().await, [1, 1, 0, 0]);
    }
}

async fn longer_headers_are_answered_where_keystead_takes_as_many(version: Version) {
    let roomy = |config: &mut Config| {
        config.grpc.max_message_bytes = NonZeroUsize::new(400 * KIB).unwrap();
    };
    let site = Site::with(version, roomy, wide).await;
    let key = site.fixture.keys.create(of_acme()).await;
    let presented = bearer(&key.text);
    let filler = long(300 * KIB);
    let headers = [("authorization", presented.as_str()), ("accept", &filler)];
    assert_eq!(site.get("/", &headers).await.status, 200);
}

async fn identity_longer_than_envoy_takes_is_a_500_and_never_let_through(version: Version) {
    for open in [false, true] {
        let site = Site::with(
            version,
            |_| (),
            |shown| shown.with("failure_mode_allow: false", &format!("failure_mode_allow: {open}")),
        )
        .await;
        let key = site.fixture.keys.create(of_many_scopes()).await;
        let answer = site.present("/", &key.text).await;
        assert_eq!((answer.status, answer.body.as_str()), (500, ""), "{answer:?}");
        assert!(site.upstream.received().is_empty());
        let log = site.envoy.access_log(1).await;
        assert_eq!(log[0]["details"], "ext_authz_invalid", "{log:?}");
        assert_eq!(site.envoy.stats().await.ext_authz("invalid"), 1);
        assert_eq!(site.counted().await[1..], [0, 0, 0], "nothing else tells of it");
    }
    let site = Site::with(version, |_| (), wide).await;
    let key = site.fixture.keys.create(of_many_scopes()).await;
    assert_eq!(site.present("/", &key.text).await.status, 200);
}

/// As many as a key may have, each as long as it may be: 64 KiB.
fn of_many_scopes() -> Rights {
    let scopes = (0..256).map(|n| format!("{n:0>256}")).collect();
    Rights { scopes, ..of_acme() }
}

fn wide(shown: EnvoyConfig) -> EnvoyConfig {
    shown.with("max_request_headers_kb: 60", "max_request_headers_kb: 400")
}
