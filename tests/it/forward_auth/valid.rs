//! A valid key.

use keystead::key::Rights;

use super::{ask, ask_with, counted, of_acme_with, on_its_own};
use crate::harness::{
    backend::{Backend, Embedded},
    eventually,
    fixture::Fixture,
    http::{Connection, request, send},
    keys::{Keys, of_acme},
};

#[tokio::test]
async fn valid_key_is_answered_with_its_identity_and_no_body() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme_with(&["read", "orders:write"])).await;
    let before = service.admin.scrape().await;
    let answer = ask(service, "/auth", &key.text).await;
    let after = service.admin.scrape().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    for (name, value) in [
        ("x-keystead-key-id", key.id.as_str()),
        ("x-keystead-principal", "acme"),
        ("x-keystead-scopes", "read orders:write"),
        ("cache-control", "no-store"),
        ("content-length", "0"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
    assert_eq!(answer.headers.len(), 6, "and `date`: {answer:?}");
    let changes = after.changes_since(&before, "keystead_checks_total");
    assert_eq!(changes, [(counted("OK", ""), 1.0)].into());
    let took = r#"keystead_check_duration_seconds_count{surface="forward_auth"}"#;
    assert_eq!(after.get(took).to_bits(), 1_f64.to_bits());
}

/// A proxy may take a header that is missing for leave to pass on what a client
/// sent under its name.
#[tokio::test]
async fn identity_header_without_a_value_is_there_and_empty() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    let answer = ask(service, "/auth", &key.text).await;
    assert_eq!((answer.status, answer.header("x-keystead-scopes")), (200, Some("")));
}

#[tokio::test]
async fn identity_that_is_no_legal_header_is_encoded() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let principal = "Größe\r\nx-admin: 1 ".to_owned();
    let key = keys.create(Rights { principal, ..of_acme_with(&["a b", "%"]) }).await;
    let answer = ask(service, "/auth", &key.text).await;
    let expected = "Gr%C3%B6%C3%9Fe%0D%0Ax-admin: 1%20";
    assert_eq!(answer.header("x-keystead-principal"), Some(expected));
    assert_eq!(answer.header("x-keystead-scopes"), Some("a%20b %25"));
}

#[tokio::test]
async fn every_method_is_answered_alike_and_head_without_a_body() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PURGE"] {
        let asking = |key: &str| request(method, "/auth", &[("x-api-key", key)], "");
        let valid = send(service.auth, asking(&key.text)).await;
        assert_eq!((valid.status, valid.header("x-keystead-principal")), (200, Some("acme")));
        let refused = send(service.auth, asking("ks_live_1")).await;
        assert_eq!((refused.status, refused.body.is_empty()), (401, method == "HEAD"), "{method}");
        assert!(refused.header("www-authenticate").is_some(), "{method}");
    }
}

#[tokio::test]
async fn body_of_a_request_is_not_waited_for() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    let endless = crate::harness::wire::endless();
    let headers = [("x-api-key", key.text.as_str()), ("expect", "100-continue")];
    let answer = send(service.auth, request("POST", "/auth", &headers, endless)).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn many_requests_are_answered_over_one_connection() {
    let fixture = Fixture::with(Embedded::start().await, on_its_own).await;
    let key = fixture.keys.create(of_acme()).await;
    let mut connection = Connection::open(fixture.service.auth).await;
    for path in ["/auth", "/auth?", "/auth?scopes=read", "/auth?nonsense", "/other", "/auth"] {
        let expected = match path {
            "/auth" | "/auth?" => 200,
            "/auth?scopes=read" => 403,
            "/auth?nonsense" => 400,
            _ => 404,
        };
        let asking = request("GET", path, &[("x-api-key", &key.text)], "");
        assert_eq!(connection.send(asking).await.unwrap().status, expected, "{path}");
    }
}

#[tokio::test]
async fn use_of_a_key_is_noted() {
    let Fixture { service, keys, config, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    assert_eq!(ask(service, "/auth", &key.text).await.status, 200);
    let others = Keys::open(config).await;
    eventually("the use is in the store", async || {
        others.record(&key).await.last_used_at.map(drop)
    })
    .await;
}

#[tokio::test]
async fn key_is_found_in_each_source_and_the_first_one_wins() {
    let sources = ["authorization:Token", "header:x-key", "query:key", "cookie:key"];
    let sources: Vec<_> = sources.map(str::to_owned).into();
    let fixture = Fixture::with(Embedded::start().await, |config| {
        config.credential.sources = sources.try_into().unwrap();
    });
    let Fixture { service, keys, .. } = &fixture.await;
    let text = &keys.create(of_acme()).await.text;
    let (token, cookie) = (format!("token {text}"), format!("a=b; key={text}"));
    let (target, encoded) =
        (format!("/x?key={text}"), format!("/x?a&k%65y={}", text.replace('_', "%5f")));
    for headers in [
        &[("authorization", token.as_str())][..],
        &[("x-key", text)],
        &[("x-forwarded-uri", &target)],
        &[("x-forwarded-uri", &encoded)],
        &[("x-original-uri", &target)],
        &[("x-forwarded-uri", &target), ("x-original-uri", &target)],
        &[("cookie", &cookie)],
        // Others are not looked at.
        &[("x-key", text), ("x-forwarded-uri", "/?key=other"), ("cookie", "key=other")],
        &[("authorization", "Bearer other"), ("x-key", text)],
    ] {
        assert_eq!(ask_with(service, "/auth", headers).await.status, 200, "{headers:?}");
    }
    let query_of_its_own = format!("/auth?key={text}");
    assert_eq!(ask_with(service, &query_of_its_own, &[]).await.status, 400);
    let first = [("x-key", "other"), ("cookie", cookie.as_str())];
    assert_eq!(ask_with(service, "/auth", &first).await.reason(), "KEY_UNKNOWN");
}
