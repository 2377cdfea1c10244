//! Every denial as a client sees it, and what the service sees of a valid key.

use keystead::key::{Action, Rights};

use super::site::{Site, bearer, identity, of_key, refuses};
use crate::harness::{
    envoy::{Version, on_both_envoys},
    http::get,
    keys::{from_now, of_acme},
};

on_both_envoys! {
    valid_key_reaches_the_service_with_its_identity_and_is_named_in_the_access_log,
    denials_reach_the_client_with_status_challenge_and_reason,
    denials_of_rights_reach_the_client,
    needs_that_make_no_sense_are_a_400,
    refusal_is_plain_text_for_a_client_that_reads_no_json,
}

async fn valid_key_reaches_the_service_with_its_identity_and_is_named_in_the_access_log(
    version: Version,
) {
    let site = Site::new(version).await;
    let scopes = ["orders:read", "orders:list"].map(str::to_owned).to_vec();
    let audiences = vec!["orders".to_owned()];
    let key = site.fixture.keys.create(Rights { scopes, audiences, ..of_acme() }).await;
    let answer = site.present("/orders/1?page=2", &key.text).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(identity(&answer.headers), [None, None, None], "the client learns nothing");
    let received = site.only_received();
    assert_eq!(identity(&received.headers), of_key(&key, Some("orders:read orders:list")));
    assert_eq!(received.uri, "/orders/1?page=2");
    assert_eq!(received.header("authorization"), Some(bearer(&key.text)));
    assert_eq!(site.counted().await, [1, 0, 0, 0]);

    site.get("/orders", &[]).await;
    let log = site.envoy.access_log(2).await;
    assert_eq!(
        (&log[0]["principal"], &log[0]["key_id"]),
        (&"acme".into(), &key.id.as_str().into())
    );
    assert_eq!((&log[0]["path"], &log[0]["status"]), (&"/orders/1".into(), &200.into()));
    assert_eq!((&log[1]["principal"], &log[1]["status"]), (&serde_json::Value::Null, &401.into()));
}

async fn denials_reach_the_client_with_status_challenge_and_reason(version: Version) {
    let site = Site::new(version).await;
    let keys = &site.fixture.keys;
    let [revoked, disabled] = [keys.create(of_acme()).await, keys.create(of_acme()).await];
    keys.act(&revoked, Action::Revoke).await;
    keys.act(&disabled, Action::Disable).await;
    let expired = Rights { expires_at: Some(from_now(-1)), ..of_acme() };
    let early = Rights { not_before: Some(from_now(3600)), ..of_acme() };
    let [expired, early] = [keys.create(expired).await, keys.create(early).await];
    // A store in which no key is found says nothing of one that was minted.
    let valid = keys.create(of_acme()).await;
    assert_eq!(site.present("/", &valid.text).await.status, 200);
    let presented = [
        ("ks_live_forged".to_owned(), "CREDENTIAL_MALFORMED"),
        (keys.draw().key.expose().to_owned(), "KEY_UNKNOWN"),
        ("sk-nobody-has-this".to_owned(), "KEY_UNKNOWN"),
        (revoked.text, "KEY_REVOKED"),
        (disabled.text, "KEY_DISABLED"),
        (expired.text, "KEY_EXPIRED"),
        (early.text, "KEY_NOT_YET_VALID"),
    ];
    for (key, reason) in &presented {
        let answer = site.present("/", key).await;
        refuses(&answer, (401, "UNAUTHENTICATED", reason));
        let challenge = r#"Bearer realm="keystead", error="invalid_token""#;
        assert_eq!(answer.header("www-authenticate"), Some(challenge));
    }
    let nothing = site.get("/", &[]).await;
    refuses(&nothing, (401, "UNAUTHENTICATED", "CREDENTIAL_MISSING"));
    assert_eq!(nothing.header("www-authenticate"), Some(r#"Bearer realm="keystead""#));
    assert_eq!(site.counted().await, [1, presented.len() as u64 + 1, 0, 0]);
    assert_eq!(site.upstream.received().len(), 1);
}

async fn denials_of_rights_reach_the_client(version: Version) {
    let site = Site::new(version).await;
    let keys = &site.fixture.keys;
    let scoped = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let all = || scoped(&["orders:read", "orders:list"]);
    let lacking = Rights { scopes: scoped(&["orders:read"]), ..of_acme() };
    let elsewhere = Rights { allowed_networks: vec!["10.0.0.0/8".parse().unwrap()], ..of_acme() };
    let other = Rights { audiences: vec!["invoices".to_owned()], scopes: all(), ..of_acme() };
    let rows = [
        (lacking, "SCOPE_MISSING"),
        (elsewhere, "CLIENT_NETWORK_FORBIDDEN"),
        (other, "AUDIENCE_FORBIDDEN"),
    ];
    for (rights, reason) in rows {
        let key = keys.create(Rights { scopes: rights.scopes.clone(), ..rights }).await;
        let path = if reason == "CLIENT_NETWORK_FORBIDDEN" { "/" } else { "/orders" };
        refuses(&site.present(path, &key.text).await, (403, "PERMISSION_DENIED", reason));
    }
    assert_eq!(site.counted().await, [0, 3, 0, 0]);
}

async fn needs_that_make_no_sense_are_a_400(version: Version) {
    let many = (0..1000).map(|n| format!("s{n}")).collect::<Vec<_>>().join(" ");
    let scopes = format!("keystead.scopes: {many}");
    let site = Site::with(
        version,
        |_| (),
        |shown| shown.with("keystead.scopes: orders:read orders:list", &scopes),
    )
    .await;
    let key = site.fixture.keys.create(of_acme()).await;
    let answer = site.present("/orders", &key.text).await;
    refuses(&answer, (400, "INVALID_ARGUMENT", "REQUEST_INVALID"));
    assert_eq!(site.counted().await, [0, 1, 0, 0]);
}

async fn refusal_is_plain_text_for_a_client_that_reads_no_json(version: Version) {
    let site = Site::new(version).await;
    let answer = site.send(get("/", &[("accept", "text/plain")])).await;
    assert_eq!(answer.status, 401);
    assert!(answer.body.starts_with("CREDENTIAL_MISSING: "), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
}
