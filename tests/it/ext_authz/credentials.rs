//! Where a request carries its key, and a request without it.

use tonic::Code::Unauthenticated;

use super::{Ask, refused};
use crate::harness::{
    backend::{Backend, Embedded},
    fixture::Fixture,
    keys::of_acme,
};

const ALL: [&str; 5] =
    ["authorization:Bearer", "header:x-api-key", "query:key", "cookie:key", "cookie:old"];

async fn removing(remove: bool) -> Fixture<Embedded> {
    Fixture::with(Embedded::start().await, |config| {
        config.credential.sources = ALL.map(str::to_owned).to_vec().try_into().unwrap();
        config.ext_authz.remove_credential = remove;
    })
    .await
}

fn each_source(key: &str) -> [Ask; 6] {
    [
        Ask::bearer(key),
        Ask::new().header("x-api-key", key),
        Ask::new().path(format!("/orders?page=1&key={key}&x=%20")),
        Ask::new().path(format!("/orders?k%65y={}&page=1", key.replace('_', "%5F"))),
        Ask::new().header("cookie", format!("theme=dark; key={key}; session=31d4")),
        Ask::new().header("cookie", format!("old=\"{key}\"")),
    ]
}

#[tokio::test]
async fn key_is_found_in_each_kind_of_source_in_either_encoding() {
    let fixture = removing(false).await;
    let key = fixture.keys.create(of_acme()).await;
    for ask in each_source(&key.text) {
        for ask in [ask.clone(), ask.raw()] {
            let allowed = ask.allowed(fixture.service.channel()).await;
            let (headers, path) = allowed.upstream(&ask);
            assert_eq!(headers["x-keystead-key-id"], [key.id.as_str()]);
            // It stays where it was.
            let seen = format!("{headers:?} {path}").replace("%5F", "_");
            assert!(seen.contains(&key.text), "{seen}");
        }
    }
}

#[tokio::test]
async fn key_that_is_removed_is_nowhere_in_what_the_upstream_sees() {
    let fixture = removing(true).await;
    let key = fixture.keys.create(of_acme()).await;
    let everywhere = Ask::bearer(&key.text)
        .header("x-api-key", &key.text)
        .path(format!("/orders?key={0}&page=1&key={0}&k%65y={0}", key.text))
        .header("cookie", format!("key={}; theme=dark; old={}", key.text, key.text));
    for ask in each_source(&key.text).into_iter().chain([everywhere]) {
        for ask in [ask.clone(), ask.raw()] {
            let allowed = ask.allowed(fixture.service.channel()).await;
            let (headers, path) = allowed.upstream(&ask);
            let seen = format!("{headers:?} {path}").replace("%5F", "_");
            assert!(!seen.contains(&key.text), "{seen}");
            assert!(path.contains("page=1"), "{path}");
            if let Some(cookie) = headers.get("cookie") {
                assert!(cookie[0].contains("theme=dark"), "{cookie:?}");
            }
        }
    }
}

#[tokio::test]
async fn key_in_a_second_cookie_header_or_under_a_name_alike_is_removed_too() {
    let fixture = removing(true).await;
    let [key, other] = &fixture.keys.create_many(2).await[..] else { panic!("two were asked for") };
    let ask = Ask::bearer(&key.text)
        .header("cookie", "a=1")
        .header("cookie", format!("key={}; b=2", other.text))
        .header("x_api_key", &other.text)
        .header("x-api_key", &other.text);
    for ask in [ask.clone(), ask.raw()] {
        let (headers, _) = ask.allowed(fixture.service.channel()).await.upstream(&ask);
        assert!(!format!("{headers:?}").contains(&other.text), "{headers:?}");
        assert_eq!(headers["cookie"], ["a=1; b=2"]);
    }
}

#[tokio::test]
async fn query_without_its_key_is_written_anew_as_envoy_does_it() {
    let fixture = removing(true).await;
    let key = fixture.keys.create(of_acme()).await.text;
    for (query, left) in [
        (format!("z=1&flag&key={key}&a=2&z=3"), "/?a=2&flag=&z=1&z=3"),
        (format!("key={key}"), "/"),
    ] {
        let ask = Ask::new().path(format!("/?{query}"));
        let (_, path) = ask.allowed(fixture.service.channel()).await.upstream(&ask);
        assert_eq!(path, left);
    }
}

#[tokio::test]
async fn credential_of_another_scheme_stays() {
    let fixture = removing(true).await;
    let key = fixture.keys.create(of_acme()).await;
    let basic = "Basic dXNlcjpwYXNz";
    let ask = Ask::new().header("authorization", basic).header("x-api-key", &key.text);
    let (headers, _) = ask.allowed(fixture.service.channel()).await.upstream(&ask);
    assert_eq!(headers["authorization"], [basic]);
    assert_eq!(headers.get("x-api-key"), None);
}

#[tokio::test]
async fn of_two_credentials_in_one_source_none_is_taken() {
    let fixture = removing(false).await;
    let [key, other] = &fixture.keys.create_many(2).await[..] else { panic!("two were asked for") };
    let (key, other) = (key.text.as_str(), other.text.as_str());
    let row = (Unauthenticated, "CREDENTIAL_MALFORMED");
    for ask in [
        Ask::bearer(key).header("authorization", format!("Bearer {other}")),
        Ask::bearer(key).header("authorization", format!("Bearer {key}")),
        Ask::bearer(key).header("authorization", "Basic dXNlcjpwYXNz"),
        Ask::new()
            .header("authorization", "Basic dXNlcjpwYXNz")
            .header("authorization", format!("Bearer {key}")),
        Ask::new().header("x-api-key", key).header("x-api-key", other),
        Ask::new().header("x-api-key", format!("{key}, {other}")),
        Ask::new().path(format!("/?key={key}&key={other}")),
        Ask::new().path(format!("/?key={key}&%6bey={other}")),
        Ask::new().header("cookie", format!("key={key}; key={other}")),
        Ask::new().header("cookie", format!("key={key}")).header("cookie", format!("key={other}")),
        Ask::new()
            .header("cookie", format!("key={key}; a=1"))
            .header("cookie", format!("key={other}; b=2")),
    ] {
        for ask in [ask.clone(), ask.raw()] {
            refused(&fixture.service, &ask, row).await.is_json();
        }
    }
    // In different sources the order decides, and the other is not looked at.
    let ask = Ask::bearer(key).header("x-api-key", other).header("x-api-key", "x");
    ask.allowed(fixture.service.channel()).await;
}

#[tokio::test]
async fn key_that_was_made_elsewhere_is_read_from_a_query_as_it_is_written() {
    let fixture = removing(false).await;
    let key = fixture.keys.import("a+b/c==,d", of_acme()).await;
    for query in ["a+b/c==,d", "a%2Bb%2fc%3D%3D%2Cd"] {
        let ask = Ask::new().path(format!("/?key={query}"));
        let (headers, _) = ask.allowed(fixture.service.channel()).await.upstream(&ask);
        assert_eq!(headers["x-keystead-key-id"], [key.id.as_str()]);
    }
}

#[tokio::test]
async fn non_text_bytes_are_malformed_in_a_key_source_and_ignored_elsewhere() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    let row = (Unauthenticated, "CREDENTIAL_MALFORMED");
    refused(service, &Ask::new().header("x-api-key", b"\xff\xfe").raw(), row).await;
    let odd = Ask::bearer(&key.text).header("user-agent", b"\xff\xfe").header("cookie", b"a=\xff");
    for ask in [odd.clone(), odd.raw()] {
        ask.allowed(service.channel()).await;
    }
}
