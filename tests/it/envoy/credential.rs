//! Sources of the key, duplicates, and its removal before the upstream.

use keystead::config::Config;

use super::site::{Site, bearer, identity, of_key, refuses};
use crate::harness::{
    envoy::{EnvoyConfig, Version, on_both_envoys},
    keys::of_acme,
};

on_both_envoys! {
    spoofed_identity_header_never_reaches_the_service,
    key_that_was_sent_twice_is_malformed_however_headers_are_encoded,
    key_is_taken_out_of_every_place_it_may_be_in,
    header_that_is_no_text_is_passed_on_and_no_obstacle,
}

/// Everywhere at once.
fn everywhere(config: &mut Config) {
    let sources = ["authorization:Bearer", "header:x-api-key", "query:key", "cookie:key"];
    let sources = sources.map(str::to_owned).to_vec();
    config.credential.sources = sources.try_into().unwrap();
    config.ext_authz.remove_credential = true;
}

fn with_cookies(shown: EnvoyConfig) -> EnvoyConfig {
    shown.with("- exact: accept\n", "- exact: accept\n                          - exact: cookie\n")
}

fn unencoded(shown: EnvoyConfig) -> EnvoyConfig {
    shown.with("encode_raw_headers: true", "encode_raw_headers: false")
}

async fn spoofed_identity_header_never_reaches_the_service(version: Version) {
    // With the first line of defence, and without it.
    let strips = "- remove_on_match: { key_matcher: { prefix: x-keystead- } }";
    for line in [strips, "- remove: x-unrelated"] {
        let site = Site::with(version, |_| (), |shown| shown.with(strips, line)).await;
        let key = site.fixture.keys.create(of_acme()).await;
        let presented = bearer(&key.text);
        let headers = [
            ("authorization", presented.as_str()),
            ("x-keystead-principal", "root"),
            ("x-keystead-principal", "root"),
            ("X-Keystead-Scopes", "admin"),
            ("x-keystead-key-id", "key_x"),
            // Headers that it names are for one hop only.
            ("connection", "x-keystead-principal, x-keystead-key-id"),
        ];
        assert_eq!(site.get("/", &headers).await.status, 200);
        assert_eq!(identity(&site.only_received().headers), of_key(&key, None), "{line}");
    }
}

async fn key_that_was_sent_twice_is_malformed_however_headers_are_encoded(version: Version) {
    for change in [|shown| shown, unencoded] {
        let site = Site::with(version, |_| (), change).await;
        let [key, other] = [of_acme(), of_acme()].map(|rights| site.fixture.keys.create(rights));
        let (key, other) = (key.await.text, other.await.text);
        let (first, second) = (bearer(&key), bearer(&other));
        for twice in [
            [("authorization", &first), ("authorization", &second)],
            [("authorization", &first), ("authorization", &first)],
            [("x-api-key", &key), ("x-api-key", &other)],
        ] {
            let headers = twice.map(|(name, value)| (name, value.as_str()));
            let answer = site.get("/", &headers).await;
            refuses(&answer, (401, "UNAUTHENTICATED", "CREDENTIAL_MALFORMED"));
        }
        // Of one in each of two sources, the first is used.
        let headers = [("authorization", first.as_str()), ("x-api-key", "sk-other")];
        assert_eq!(site.get("/", &headers).await.status, 200);
    }
}

async fn key_is_taken_out_of_every_place_it_may_be_in(version: Version) {
    let site = Site::with(version, everywhere, with_cookies).await;
    let key = site.fixture.keys.create(of_acme()).await.text;
    let presented = bearer(&key);
    let cookies = format!("a=1; key={key}; b=2");
    let path = format!("/x?a=1&key={key}&b=2");
    let ways: [(&str, Vec<(&str, &str)>); 4] = [
        ("/x?a=1&b=2", vec![("authorization", &presented)]),
        ("/x?a=1&b=2", vec![("x-api-key", &key)]),
        (&path, vec![]),
        ("/x?a=1&b=2", vec![("cookie", &cookies)]),
    ];
    for (path, headers) in &ways {
        let answer = site.get(path, headers).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // All at once: the first counts, and none is left.
    let all = [("authorization", presented.as_str()), ("x-api-key", &key), ("cookie", &cookies)];
    assert_eq!(site.get(&path, &all).await.status, 200);
    for received in site.upstream.received() {
        assert_eq!(received.uri, "/x?a=1&b=2");
        assert!(!format!("{received:?}").contains(&key), "{received:?}");
        let cookie = received.header("cookie");
        assert!(cookie.is_none() || cookie.as_deref() == Some("a=1; b=2"), "{cookie:?}");
    }
}

/// Neither a header of another purpose, nor one that Keystead reads.
async fn header_that_is_no_text_is_passed_on_and_no_obstacle(version: Version) {
    for change in [|shown| shown, unencoded] {
        let site = Site::with(version, |_| (), change).await;
        let key = site.fixture.keys.create(of_acme()).await;
        let bytes = http::HeaderValue::from_bytes(b"caf\xe9 \xff").unwrap();
        for name in ["x-other", "accept", "x-forwarded-for"] {
            let presented = bearer(&key.text);
            let mut request =
                crate::harness::http::get("/", &[("authorization", presented.as_str())]);
            request.headers_mut().insert(name, bytes.clone());
            let answer = site.send(request).await;
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
        }
        let received = site.upstream.received();
        assert_eq!(received[0].headers["x-other"], bytes);
        let mut request = crate::harness::http::get("/", &[]);
        request.headers_mut().insert("x-api-key", bytes);
        let answer = site.send(request).await;
        refuses(&answer, (401, "UNAUTHENTICATED", "CREDENTIAL_MALFORMED"));
    }
}
