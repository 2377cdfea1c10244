//! Refusals that rest on evidence, and what each looks like.

use keystead::key::{Action, Rights};

use super::{ask, ask_with, counted, of_acme_with};
use crate::harness::{
    app::Service,
    backend::{Backend, Embedded},
    fixture::Fixture,
    http::{Answer, get, send},
    keys::{forged, from_now, of_acme},
};

const REALM: &str = r#"Bearer realm="keystead""#;

/// A row of the table of refusals.
struct Row {
    status: u16,
    code: &'static str,
    reason: &'static str,
    /// What follows [`REALM`]; `None` where there is no challenge.
    challenge: Option<&'static str>,
}

const fn row(
    status: u16,
    code: &'static str,
    reason: &'static str,
    challenge: Option<&'static str>,
) -> Row {
    Row { status, code, reason, challenge }
}

const fn unauthenticated(reason: &'static str) -> Row {
    row(401, "UNAUTHENTICATED", reason, Some(r#", error="invalid_token""#))
}

/// Asks, and holds that the answer is the row, and that it alone was counted.
async fn refused(service: &Service, path: &str, headers: &[(&str, &str)], row: &Row) -> Answer {
    let before = service.admin.scrape().await;
    let answer = send(service.auth, get(path, headers)).await;
    let after = service.admin.scrape().await;
    let error = &answer.json()["error"];
    let told = (answer.status, error["code"].as_str(), error["reason"].as_str());
    assert_eq!(told, (row.status, Some(row.code), Some(row.reason)), "{answer:?}");
    assert!(!error["message"].as_str().unwrap().is_empty(), "{answer:?}");
    let challenge = row.challenge.map(|more| format!("{REALM}{more}"));
    assert_eq!(answer.header("www-authenticate").map(str::to_owned), challenge);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(answer.header("x-keystead-error"), Some(answer.body.as_str()));
    for identity in ["key-id", "principal", "scopes"] {
        assert_eq!(answer.header(&format!("x-keystead-{identity}")), None);
    }
    let changes = after.changes_since(&before, "keystead_checks_total");
    assert_eq!(changes, [(counted(row.code, row.reason), 1.0)].into());
    answer
}

#[tokio::test]
async fn missing_credential_is_a_401_with_a_challenge() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    let row = row(401, "UNAUTHENTICATED", "CREDENTIAL_MISSING", Some(""));
    for headers in [&[][..], &[("authorization", "Basic YTpi")], &[("x-api-key", "")]] {
        refused(service, "/auth", headers, &row).await;
    }
}

#[tokio::test]
async fn key_that_is_presented_twice_is_malformed_even_if_both_are_the_same() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await.text;
    let (bearer, both) = (format!("Bearer {key}"), format!("{key}, {key}"));
    for headers in [
        [("x-api-key", key.as_str()), ("x-api-key", &key)],
        [("x-api-key", &key), ("x-api-key", "other")],
        [("authorization", &bearer), ("authorization", &bearer)],
        [("x-api-key", &both), ("x-other", "")],
    ] {
        refused(service, "/auth", &headers, &unauthenticated("CREDENTIAL_MALFORMED")).await;
    }
}

#[tokio::test]
async fn every_denial_names_its_reason() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let good = keys.create(of_acme()).await;
    service.check_key(&good).await.unwrap();
    let forged = forged(&good.text);
    let unknown = keys.draw().key.expose().to_owned();
    let (revoked, disabled) = (keys.create(of_acme()).await, keys.create(of_acme()).await);
    keys.act(&revoked, Action::Revoke).await;
    keys.act(&disabled, Action::Disable).await;
    let expired = keys.create(Rights { expires_at: Some(from_now(-1)), ..of_acme() }).await;
    let early = keys.create(Rights { not_before: Some(from_now(3600)), ..of_acme() }).await;
    for (key, reason) in [
        (&forged, "CREDENTIAL_MALFORMED"),
        (&"ks_live_1".to_owned(), "CREDENTIAL_MALFORMED"),
        (&unknown, "KEY_UNKNOWN"),
        (&"sk-nobody-has-this".to_owned(), "KEY_UNKNOWN"),
        (&revoked.text, "KEY_REVOKED"),
        (&disabled.text, "KEY_DISABLED"),
        (&expired.text, "KEY_EXPIRED"),
        (&early.text, "KEY_NOT_YET_VALID"),
    ] {
        let row = unauthenticated(reason);
        let answer = refused(service, "/auth", &[("x-api-key", key)], &row).await;
        assert!(!format!("{answer:?}").contains(key.as_str()), "the key is shown: {answer:?}");
    }
}

#[tokio::test]
async fn every_missing_right_is_named() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let rights = Rights {
        audiences: vec!["orders".to_owned()],
        allowed_networks: vec!["203.0.113.0/24".parse().unwrap()],
        ..of_acme_with(&["orders:read", "orders:list"])
    };
    let key = keys.create(rights).await;
    let from = |ip| [("x-api-key", key.text.as_str()), ("x-forwarded-for", ip)];
    for path in [
        "/auth?scopes=orders:read&audience=orders",
        "/auth?audience=orders&scopes=orders:read+orders:list",
        "/auth?scopes=orders%3Aread%20orders:list&audience=orders",
        "/auth?audience=orders",
    ] {
        assert_eq!(ask_with(service, path, &from("203.0.113.7")).await.status, 200, "{path}");
    }
    let insufficient = Some(r#", error="insufficient_scope""#);
    for (path, ip, reason, challenge) in [
        ("/auth?audience=orders&scopes=orders:write", "203.0.113.7", "SCOPE_MISSING", insufficient),
        (
            "/auth?audience=orders&scopes=orders:read+x",
            "203.0.113.7",
            "SCOPE_MISSING",
            insufficient,
        ),
        ("/auth?audience=orders", "203.0.114.7", "CLIENT_NETWORK_FORBIDDEN", None),
        ("/auth?audience=orders", "unknown", "CLIENT_NETWORK_FORBIDDEN", None),
        ("/auth?audience=other", "203.0.113.7", "AUDIENCE_FORBIDDEN", None),
        ("/auth", "203.0.113.7", "AUDIENCE_FORBIDDEN", None),
    ] {
        refused(service, path, &from(ip), &row(403, "PERMISSION_DENIED", reason, challenge)).await;
    }
}

#[tokio::test]
async fn client_that_takes_no_json_gets_text_and_a_grpc_client_gets_a_grpc_status() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    let answer = ask_with(service, "/auth", &[("accept", "text/plain")]).await;
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(answer.body.starts_with("CREDENTIAL_MISSING: "), "{answer:?}");
    let error = answer.header("x-keystead-error").unwrap();
    assert!(error.contains(r#""reason":"CREDENTIAL_MISSING""#), "{answer:?}");

    let answer = ask_with(service, "/auth", &[("content-type", "application/grpc+proto")]).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (401, Some("16")), "{answer:?}");
    assert!(answer.header("grpc-status-details-bin").is_some(), "{answer:?}");
    assert_eq!(answer.body, "no API key was presented");

    let answer = ask(service, "/auth", "ks_live_1").await;
    assert_eq!(answer.reason(), "CREDENTIAL_MALFORMED");
}
