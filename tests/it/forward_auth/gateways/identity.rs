//! The caller's identity as the upstream of a proxy receives it.

use std::collections::BTreeMap;

use keystead::key::Rights;

use super::{Kind, Site, through_both};
use crate::harness::{
    eventually,
    http::{get, request},
    keys::{Key, of_acme},
    upstream::Received,
};

through_both! {
    identity_of_a_valid_key_reaches_the_upstream_with_the_whole_request,
    spoofed_identity_header_never_reaches_the_upstream,
    client_cannot_take_the_identity_out_of_its_request,
    principal_that_is_no_legal_header_arrives_encoded,
    client_address_is_that_of_the_connection_whatever_the_client_says,
    key_in_the_query_is_found_in_the_request_of_the_client_alone,
    key_does_not_reach_the_upstream_with_the_lines_that_remove_it,
}

/// What a service could take for a word of Keystead: many cannot tell `_` from
/// `-`.
fn identity_headers(received: &Received) -> BTreeMap<String, Vec<String>> {
    let mut told = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in &received.headers {
        let name = name.as_str().replace('_', "-");
        if name.starts_with("x-keystead") {
            told.entry(name).or_default().push(value.to_str().unwrap().to_owned());
        }
    }
    told
}

/// What it may receive: no scopes are an empty header, or none.
fn is_identity_of(received: &Received, key: &Key, scopes: &str) {
    let mut told = identity_headers(received);
    if scopes.is_empty() {
        assert!(told.remove("x-keystead-scopes").is_none_or(|scopes| scopes == [""]), "{told:?}");
    }
    let mut expected = vec![("key-id", key.id.as_str()), ("principal", "acme")];
    expected.extend(Some(("scopes", scopes)).filter(|_| !scopes.is_empty()));
    let named =
        |(name, value): (&str, &str)| (format!("x-keystead-{name}"), vec![value.to_owned()]);
    assert_eq!(told, expected.into_iter().map(named).collect());
}

async fn identity_of_a_valid_key_reaches_the_upstream_with_the_whole_request(kind: Kind) {
    let site = Site::new(kind).await;
    let key = site.orders_key().await;
    let bearer = format!("Bearer {}", key.text);
    let body = "x".repeat(100_000);
    let headers = [("authorization", bearer.as_str()), ("x-mine", "1")];
    let request = request("POST", "/orders/1?a=b&c=%20", &headers, body.clone());
    let answer = site.gateway.send(request).await;
    assert_eq!(answer.status, 200, "{answer:?}");

    let [received] = &site.upstream.received()[..] else { panic!("asked more than once") };
    is_identity_of(received, &key, "orders:read orders:list");
    assert_eq!(
        (received.method.as_str(), received.uri.to_string().as_str()),
        ("POST", "/orders/1?a=b&c=%20")
    );
    assert_eq!(received.body, body);
    assert_eq!(received.header("x-mine").as_deref(), Some("1"));
    assert_eq!(received.header("authorization"), Some(bearer));
}

async fn spoofed_identity_header_never_reaches_the_upstream(kind: Kind) {
    let site = Site::new(kind).await;
    let names = ["key-id", "principal", "scopes", "error", "admin"];
    let spellings = ["x-keystead-", "x_keystead_", "x-keystead_", "x_keystead-"];
    let mut spoofed: Vec<_> = names
        .iter()
        .flat_map(|name| spellings.map(|spelling| format!("{spelling}{name}")))
        .chain(["x_keystead_key_id", "x-keystead-key_id", "x-keystead-"].map(str::to_owned))
        .collect();
    // What Keystead has no name for is none of an upstream's business; nginx
    // passes it on.
    if kind == Kind::Nginx {
        spoofed.retain(|name| name.contains('_') || names[..4].iter().any(|n| name.ends_with(n)));
    }
    let (orders, plain) = (site.orders_key().await, site.plain_key().await);
    for (path, key, scopes) in [("/orders/", orders, "orders:read orders:list"), ("/", plain, "")] {
        for name in &spoofed {
            let headers = [("x-api-key", key.text.as_str()), (name, "evil"), (name, "worse")];
            let answer = site.gateway.send(get(path, &headers)).await;
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            is_identity_of(site.upstream.received().last().unwrap(), &key, scopes);
        }
    }
}

/// A client may name headers that are for the next hop only (RFC 9110, 7.6.1),
/// which a proxy then removes: ours must not be among them.
async fn client_cannot_take_the_identity_out_of_its_request(kind: Kind) {
    let site = Site::new(kind).await;
    let key = site.orders_key().await;
    for hops in ["x-keystead-principal", "close, X-Keystead-Scopes", "x-keystead-key-id, x-mine"] {
        let headers = [("x-api-key", key.text.as_str()), ("connection", hops)];
        let answer = site.gateway.get("/orders/", &headers).await;
        assert_eq!(answer.status, 200, "{hops}: {answer:?}");
        is_identity_of(site.upstream.received().last().unwrap(), &key, "orders:read orders:list");
    }
}

async fn principal_that_is_no_legal_header_arrives_encoded(kind: Kind) {
    let site = Site::new(kind).await;
    let principal = "Größe 100%\r\nx-admin: 1".to_owned();
    let key = site.fixture.keys.create(Rights { principal, ..of_acme() }).await;
    let answer = site.gateway.get("/", &[("x-api-key", &key.text)]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let [received] = &site.upstream.received()[..] else { panic!("asked more than once") };
    let expected = "Gr%C3%B6%C3%9Fe 100%25%0D%0Ax-admin: 1";
    assert_eq!(received.header("x-keystead-principal").as_deref(), Some(expected));
    assert_eq!(received.header("x-admin"), None);
}

async fn client_address_is_that_of_the_connection_whatever_the_client_says(kind: Kind) {
    let site = Site::new(kind).await;
    let restricted_to = |network: &str| {
        let allowed_networks = vec![network.parse().unwrap()];
        site.fixture.keys.create(Rights { allowed_networks, ..of_acme() })
    };
    let (ours, theirs) =
        (restricted_to("127.0.0.1/32").await, restricted_to("203.0.113.0/24").await);
    for said in [&[][..], &["203.0.113.1"], &["203.0.113.1", "203.0.113.2, 203.0.113.3"], &[""]] {
        let from = |key: &Key| {
            let mut headers = vec![("x-api-key", key.text.clone())];
            headers.extend(said.iter().map(|ip| ("x-forwarded-for", (*ip).to_owned())));
            let headers: Vec<_> = headers.iter().map(|(name, v)| (*name, v.as_str())).collect();
            get("/", &headers)
        };
        assert_eq!(site.gateway.send(from(&ours)).await.status, 200, "{said:?}");
        let refused = site.gateway.send(from(&theirs)).await;
        assert_eq!((refused.status, refused.reason().as_str()), (403, "CLIENT_NETWORK_FORBIDDEN"));
    }
}

async fn key_in_the_query_is_found_in_the_request_of_the_client_alone(kind: Kind) {
    let sources = vec!["query:api_key".to_owned()];
    let site = Site::with(kind, |config| {
        config.credential.sources = sources.try_into().unwrap();
    })
    .await;
    let key = site.plain_key().await;
    let with_key = format!("/?a=b&api_key={}", key.text);
    assert_eq!(site.gateway.get(&with_key, &[]).await.status, 200);
    for name in ["x-forwarded-uri", "x-original-uri"] {
        let answer = site.gateway.get("/", &[(name, with_key.as_str())]).await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (401, "CREDENTIAL_MISSING"),
            "{name}"
        );
    }
}

/// The example for Caddy has no log.
#[tokio::test]
async fn key_in_the_query_is_not_in_the_access_log_of_nginx() {
    let sources = vec!["query:api_key".to_owned()];
    let site = Site::with(Kind::Nginx, |config| {
        config.credential.sources = sources.try_into().unwrap();
    })
    .await;
    let key = site.plain_key().await;
    let with_key = |path: &str| format!("{path}?api_key={}", key.text);
    let referrer = with_key("https://example.test/");
    for (path, status) in [("/a", 200), ("/orders/1", 403), ("/status/500/x", 500)] {
        let answer = site.gateway.get(&with_key(path), &[("referer", &referrer)]).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    let log = eventually("all is logged", async || {
        Some(site.gateway.written("access.log")).filter(|log| log.lines().count() == 3)
    })
    .await;
    for line in [r#""GET /a HTTP/1.1" 200"#, r#""GET /orders/1 HTTP/1.1" 403"#] {
        assert!(log.contains(line), "{log}");
    }
    assert!(!log.contains(&key.text), "{log}");
}

async fn key_does_not_reach_the_upstream_with_the_lines_that_remove_it(kind: Kind) {
    let site = Site::new(kind).await;
    let key = site.orders_key().await;
    let change = match kind {
        Kind::Nginx => ("# proxy_set_header ", "proxy_set_header "),
        Kind::Caddy => ("# request_header -", "request_header -"),
    };
    let (keystead, upstream) = (site.fixture.service.auth, site.upstream.address);
    let gateway = kind.start_changed(change, keystead, upstream).await;
    let bearer = format!("Bearer {}", key.text);
    for header in [("authorization", bearer.as_str()), ("x-api-key", &key.text)] {
        let answer = gateway.get("/orders/1", &[header, ("x-mine", "1")]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let received = site.upstream.received().pop().unwrap();
        is_identity_of(&received, &key, "orders:read orders:list");
        assert_eq!(received.header("x-mine").as_deref(), Some("1"));
        assert!(!format!("{received:?}").contains(&key.text), "{received:?}");
    }
}
