//! Requests that make no sense, and where a request came from.

use keystead::key::Rights;

use super::{ask, ask_with, counted};
use crate::harness::{
    backend::{Backend, Embedded},
    fixture::Fixture,
    http::{get, send},
    keys::of_acme,
};

#[tokio::test]
async fn needs_that_make_no_sense_are_invalid_whatever_the_key() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let valid = keys.create(of_acme()).await.text;
    let (long, many) = ("x".repeat(257), "x+".repeat(65));
    for (query, named) in [
        ("scope=read", "`scope`"),
        ("scopes=read&audiences=x", "`audiences`"),
        ("scopes%3Dread", "`scopes=read`"),
        ("%E2%82%AC", r"`\xe2\x82\xac`"),
        ("scopes=", "`scopes`"),
        ("scopes", "`scopes`"),
        ("audience=+", "`audience`"),
        ("scopes=a&scopes=b", "`scopes`"),
        ("scopes=%ff", "UTF-8"),
        ("scopes=read,write", "not a comma"),
        ("scopes=read%2C+write", "not a comma"),
        (&format!("scopes={long}"), "256 bytes"),
        (&format!("scopes={many}"), "64 scopes"),
        (&format!("audience={long}"), "256 bytes"),
    ] {
        for key in [valid.as_str(), "ks_live_1", ""] {
            let before = service.admin.scrape().await;
            let answer = ask(service, &format!("/auth?{query}"), key).await;
            let after = service.admin.scrape().await;
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (400, "REQUEST_INVALID"),
                "{query}"
            );
            let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(message.contains(named), "{query}: {message}");
            assert_eq!(answer.header("x-keystead-error"), Some(answer.body.as_str()), "{query}");
            let changes = after.changes_since(&before, "keystead_checks_total");
            assert_eq!(changes, [(counted("INVALID_ARGUMENT", "REQUEST_INVALID"), 1.0)].into());
        }
    }
    assert_eq!(ask(service, "/auth", &valid).await.status, 200);
}

#[tokio::test]
async fn client_address_is_counted_from_the_right_or_without_hops_that_of_the_peer() {
    for (hops, forwarded_for, allowed) in [
        (0, "203.0.113.1", "127.0.0.1/32"),
        (1, "203.0.113.1", "203.0.113.1/32"),
        (1, "203.0.113.9, 203.0.113.1", "203.0.113.1/32"),
        (2, "203.0.113.9, 203.0.113.1, 203.0.113.2", "203.0.113.1/32"),
        (1, "::ffff:203.0.113.1", "203.0.113.1/32"),
        (1, "[2001:db8::1]:80", "2001:db8::1/128"),
    ] {
        let fixture = Fixture::with(Embedded::start().await, |config| {
            config.forward_auth.trusted_hops = hops;
        });
        let Fixture { service, keys, .. } = &fixture.await;
        let allowed_networks = vec![allowed.parse().unwrap()];
        let key = keys.create(Rights { allowed_networks, ..of_acme() }).await.text;
        let headers = [("x-api-key", key.as_str()), ("x-forwarded-for", forwarded_for)];
        let answer = ask_with(service, "/auth", &headers).await;
        assert_eq!(answer.status, 200, "{hops}, {forwarded_for:?}: {answer:?}");
        let elsewhere =
            [("x-api-key", key.as_str()), ("x-forwarded-for", "198.51.100.1, 198.51.100.2")];
        let answer = ask_with(service, "/auth", &elsewhere).await;
        let expected = if hops == 0 { 200 } else { 403 };
        assert_eq!(answer.status, expected, "{hops}: {answer:?}");
    }
}

#[tokio::test]
async fn key_for_the_network_of_the_proxy_is_refused_where_fewer_addresses_came_than_are_trusted() {
    for (hops, forwarded_for) in [(1, ""), (1, " "), (2, "127.0.0.1"), (32, "127.0.0.1, 127.0.0.1")]
    {
        let fixture = Fixture::with(Embedded::start().await, |config| {
            config.forward_auth.trusted_hops = hops;
        });
        let Fixture { service, keys, .. } = &fixture.await;
        let allowed_networks = vec!["127.0.0.0/8".parse().unwrap()];
        let key = keys.create(Rights { allowed_networks, ..of_acme() }).await.text;
        let headers = [("x-api-key", key.as_str()), ("x-forwarded-for", forwarded_for)];
        let answer = ask_with(service, "/auth", &headers).await;
        let refused = (answer.status, answer.reason());
        let expected = (403, "CLIENT_NETWORK_FORBIDDEN".to_owned());
        assert_eq!(refused, expected, "{hops}, {forwarded_for:?}: {answer:?}");
        let told_nothing = ask_with(service, "/auth", &headers[..1]).await;
        assert_eq!(told_nothing.status, 403, "{hops}: {told_nothing:?}");
    }
}

#[tokio::test]
async fn other_paths_are_not_found() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await.text;
    for path in ["/auth/", "/auth/x", "/Auth", "//auth", "/auth%20"] {
        assert_eq!(
            send(service.auth, get(path, &[("x-api-key", &key)])).await.status,
            404,
            "{path}"
        );
    }
}

/// A service that looks for keys in the query of the client, and in `x-key`.
async fn reading_the_query() -> Fixture<Embedded> {
    let sources = vec!["query:key".to_owned(), "header:x-key".to_owned()];
    Fixture::with(Embedded::start().await, |config| {
        config.credential.sources = sources.try_into().unwrap();
    })
    .await
}

#[tokio::test]
async fn proxy_that_does_not_send_the_query_is_blamed_and_not_the_client() {
    let Fixture { service, keys, .. } = &reading_the_query().await;
    let key = keys.create(of_acme()).await.text;
    let answer = ask_with(service, "/auth", &[]).await;
    assert_eq!((answer.status, answer.reason().as_str()), (400, "REQUEST_INVALID"), "{answer:?}");
    assert!(answer.body.contains("x-forwarded-uri"), "{answer:?}");
    let told = ask_with(service, "/auth", &[("x-forwarded-uri", "/")]).await;
    assert_eq!((told.status, told.reason().as_str()), (401, "CREDENTIAL_MISSING"), "{told:?}");
    assert_eq!(ask_with(service, "/auth", &[("x-key", &key)]).await.status, 200);
    // Without such a source it does not matter.
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    assert_eq!(ask_with(service, "/auth", &[]).await.reason(), "CREDENTIAL_MISSING");
}

#[tokio::test]
async fn client_cannot_choose_which_uri_its_key_is_looked_for_in() {
    let Fixture { service, keys, .. } = &reading_the_query().await;
    let key = keys.create(of_acme()).await.text;
    let mine = format!("/?key={key}");
    for headers in [
        [("x-forwarded-uri", mine.as_str()), ("x-original-uri", "/")],
        [("x-forwarded-uri", "/"), ("x-original-uri", &mine)],
        [("x-forwarded-uri", &mine), ("x-forwarded-uri", "/")],
        [("x-original-uri", "/"), ("x-original-uri", &mine)],
    ] {
        let answer = ask_with(service, "/auth", &headers).await;
        assert_eq!((answer.status, answer.reason().as_str()), (400, "REQUEST_INVALID"));
        let named = ["x-forwarded-uri", "x-original-uri"].map(|name| answer.body.contains(name));
        assert_eq!(named, [true; 2], "{answer:?}");
    }
    // Without such a source nobody reads them.
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await.text;
    let headers = [("x-api-key", key.as_str()), ("x-forwarded-uri", "/a"), ("x-original-uri", "/")];
    assert_eq!(ask_with(service, "/auth", &headers).await.status, 200);
}
