//! A valid key: what the upstream, later filters and the access log see.

use keystead::key::Rights;
use serde_json::json;

use super::Ask;
use crate::harness::{
    backend::{Backend, Embedded},
    fixture::Fixture,
    keys::of_acme,
};

const IDENTITY: [&str; 3] = ["x-keystead-key-id", "x-keystead-principal", "x-keystead-scopes"];

fn of_globex() -> Rights {
    Rights {
        principal: "Globex GmbH, Köln".to_owned(),
        scopes: vec!["read".to_owned(), "orders:write".to_owned()],
        metadata: [("plan".to_owned(), "gold \"1\"\n".to_owned())].into(),
        ..Rights::default()
    }
}

/// The key's identity as the upstream sees it.
fn identity(headers: &std::collections::BTreeMap<String, Vec<String>>) -> [Option<&str>; 3] {
    IDENTITY.map(|name| match headers.get(name)?.as_slice() {
        [one] => Some(one.as_str()),
        several => panic!("{name}: {several:?}"),
    })
}

#[tokio::test]
async fn upstream_and_access_log_get_the_identity_of_the_key() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_globex()).await;
    let asks = [
        Ask::bearer(&key.text),
        Ask::bearer(&key.text).raw(),
        Ask::new().header("x-api-key", &key.text),
    ];
    for ask in asks {
        let allowed = ask.allowed(service.channel()).await;
        // Whether Envoy tells of such headers or not (`allowed_headers`).
        let removed = &allowed.response.headers_to_remove;
        assert!(removed.contains(&"x_keystead_principal".to_owned()), "{removed:?}");
        let (headers, path) = allowed.upstream(&ask);
        let principal = "Globex GmbH, K%C3%B6ln";
        let expected = [Some(key.id.as_str()), Some(principal), Some("read orders:write")];
        assert_eq!(identity(&headers), expected);
        // Nothing else is changed.
        assert_eq!(path, "/orders?page=1");
        assert_eq!(headers.len(), 4, "{headers:?}");
        let metadata = json!({
            "key_id": key.id.as_str(),
            "principal": "Globex GmbH, Köln",
            "scopes": ["read", "orders:write"],
            "metadata": {"plan": "gold \"1\"\n"},
        });
        assert_eq!(allowed.metadata(), metadata);
    }
}

#[tokio::test]
async fn spoofed_identity_header_never_reaches_the_upstream() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let (globex, acme) = (keys.create(of_globex()).await, keys.create(of_acme()).await);
    for key in [globex, acme] {
        let spoofed = IDENTITY.iter().fold(Ask::bearer(&key.text).raw(), |ask, name| {
            ask.header(name, "admin").header(name, "root")
        });
        let allowed = spoofed.allowed(service.channel()).await;
        let (headers, _) = allowed.upstream(&spoofed);
        assert!(identity(&headers).iter().all(|seen| *seen != Some("admin")), "{headers:?}");
        let metadata = allowed.metadata();
        let scopes = metadata["scopes"].as_array().unwrap().len();
        assert_eq!(headers.contains_key("x-keystead-scopes"), scopes > 0, "{headers:?}");
    }
}

#[tokio::test]
async fn identity_header_spelled_with_underscores_never_reaches_the_upstream() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    let spoofed = IDENTITY.iter().fold(Ask::bearer(&key.text), |ask, name| {
        ask.header(&name.replace('-', "_"), "admin").header(&name.replacen('-', "_", 1), "admin")
    });
    let ask = spoofed.header("x_other", "stays");
    for ask in [ask.clone(), ask.raw()] {
        let (headers, _) = ask.allowed(service.channel()).await.upstream(&ask);
        assert!(!format!("{headers:?}").contains("admin"), "{headers:?}");
        assert_eq!(headers["x_other"], ["stays"]);
    }
}

#[tokio::test]
async fn request_as_envoy_sends_it_is_read() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_globex()).await;
    let ask = Ask::bearer(&key.text)
        .header("user-agent", "curl/8.5.0")
        .header("accept", "*/*")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-for", "203.0.113.7")
        .header("x-request-id", "2c8b7e3e-8f5c-4d4e-9d0a-6f6f1f2e3d4c")
        .header("x-envoy-expected-rq-timeout-ms", "15000")
        .header("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7")
        .header("cookie", "theme=dark; session=31d4d96e407aad42")
        .extension("keystead.scopes", "read orders:write")
        .extension("virtual_host", "local_service");
    for ask in [ask.clone(), ask.raw()] {
        let (headers, _) = ask.allowed(service.channel()).await.upstream(&ask);
        assert_eq!(identity(&headers)[0], Some(key.id.as_str()));
        assert_eq!(headers["cookie"], ["theme=dark; session=31d4d96e407aad42"]);
    }
}

#[tokio::test]
async fn warm_key_goes_on_while_the_store_is_down() {
    let mut fixture = Fixture::new(Embedded::start().await).await;
    let key = fixture.keys.create(of_acme()).await;
    let ask = Ask::bearer(&key.text);
    ask.allowed(fixture.service.channel()).await;
    fixture.backend.vanish().await;
    for _ in 0..10 {
        ask.allowed(fixture.service.channel()).await;
    }
}
