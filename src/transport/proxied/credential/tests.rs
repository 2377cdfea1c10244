use proptest::prelude::*;

use super::*;
use crate::transport::proxied::fixture::Request;

fn sources(texts: &[&str]) -> CredentialSources {
    let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
    texts.try_into().unwrap()
}

/// The key that is found, as text; `Err` if it was presented twice.
fn find(texts: &[&str], request: &Request) -> Result<Option<String>, PresentedTwice> {
    let sources = sources(texts);
    let found = sources.find(request)?;
    Ok(found.map(|credential| String::from_utf8(credential.to_vec()).unwrap()))
}

fn found(texts: &[&str], request: &Request) -> String {
    find(texts, request).expect("presented once").expect("presented at all")
}

#[test]
fn first_non_empty_source_wins() {
    let both = Request::default().with("x-api-key", "second").with("authorization", "Bearer first");
    let sources = ["authorization:Bearer", "header:x-api-key"];
    assert_eq!(found(&sources, &both), "first");
    assert_eq!(found(&["header:x-api-key", "authorization:Bearer"], &both), "second");
    for nothing in ["", "Bearer", "Bearer ", "Basic dXNlcg==", "Bearerfirst", "x Bearer first"] {
        let request = Request::default().with("x-api-key", "it").with("authorization", nothing);
        assert_eq!(found(&sources, &request), "it", "{nothing}");
    }
    let empty = Request::default().with("authorization", "Bearer it").with("x-api-key", "");
    assert_eq!(found(&["header:x-api-key", "authorization:Bearer"], &empty), "it");
    assert_eq!(find(&sources, &Request::default()), Ok(None));
}

#[test]
fn scheme_is_matched_in_any_case_and_with_any_space() {
    for value in ["Bearer it", "bearer it", "BEARER   it ", "Bearer\tit"] {
        let request = Request::default().with("authorization", value);
        assert_eq!(found(&["authorization:Bearer"], &request), "it", "{value}");
        assert_eq!(find(&["authorization:ApiKey"], &request), Ok(None), "{value}");
    }
    let request = Request::default().with("authorization", "apikey it");
    assert_eq!(found(&["authorization:Bearer", "authorization:ApiKey"], &request), "it");
}

#[test]
fn key_presented_twice_in_a_source_is_an_error() {
    let header = |values: &[&str], name: &str| {
        values.iter().fold(Request::default(), |request, value| request.with(name, value))
    };
    for values in [&["a", "b"][..], &["a,b"], &["a", "a"], &["a, "], &["", "a"]] {
        let request = header(values, "x-api-key");
        assert_eq!(find(&["header:x-api-key"], &request), Err(PresentedTwice), "{values:?}");
    }
    for values in [
        &["Bearer a", "Bearer b"][..],
        &["Bearer a,Bearer b"],
        &["Bearer a, b"],
        &["Basic a", "Bearer b"],
        &["Basic a,Bearer b"],
    ] {
        let request = header(values, "authorization");
        assert_eq!(find(&["authorization:Bearer"], &request), Err(PresentedTwice), "{values:?}");
    }
    for target in ["/?key=a&key=b", "/?key=a&key=", "/?key=a&%6Bey=a"] {
        let request = Request::default().to(target);
        assert_eq!(find(&["query:key"], &request), Err(PresentedTwice), "{target}");
    }
    for values in [&["key=a; key=b"][..], &["key=a", "key=b"], &["key=a,key=b"], &["key=a; key"]] {
        let request = header(values, "cookie");
        assert_eq!(find(&["cookie:key"], &request), Err(PresentedTwice), "{values:?}");
    }
    // An error in a source is not hidden by a later source, but by an earlier one.
    let twice = header(&["a", "b"], "x-api-key").with("authorization", "Bearer it");
    assert!(find(&["header:x-api-key", "authorization:Bearer"], &twice).is_err());
    assert_eq!(found(&["authorization:Bearer", "header:x-api-key"], &twice), "it");
    // Several empty values are empty.
    assert_eq!(find(&["header:x-api-key"], &header(&["", " ,"], "x-api-key")), Ok(None));
}

#[test]
fn query_parameter_is_percent_decoded_and_a_plus_stays_a_plus() {
    for (target, key) in [
        ("/orders?key=it", "it"),
        ("/?a=b&key=it&c", "it"),
        ("/?key=a%2Bb%3d", "a+b="),
        ("/?key=a+b==", "a+b=="),
        ("/?k%65y=it", "it"),
        ("/?a=?key=no&key=it", "it"),
        ("/?key=%zz%4", "%zz%4"),
        ("?key=it", "it"),
    ] {
        assert_eq!(found(&["query:key"], &Request::default().to(target)), key, "{target}");
    }
    for target in ["/", "/?", "/key=it", "/?Key=it", "/?key", "/?key=", "/?xkey=it", ""] {
        assert_eq!(find(&["query:key"], &Request::default().to(target)), Ok(None), "{target}");
    }
    assert!(matches!(decoded(b"it"), Credential::AsSent(b"it")));
    assert!(matches!(decoded(b"%69t"), Credential::Decoded(it) if **it == *b"it"));
}

#[test]
fn cookie_is_found_among_others() {
    let request = Request::default().with("cookie", "theme=dark; key=\"it\"").with("cookie", "z=1");
    assert_eq!(found(&["cookie:key"], &request), "it");
    assert_eq!(find(&["cookie:Key"], &request), Ok(None));
}

#[test]
fn cookie_in_joined_headers_is_found_and_removed() {
    let twice = "key=a; x=1,key=b";
    let request = Request::default().with("cookie", twice);
    assert_eq!(find(&["cookie:key"], &request), Err(PresentedTwice));
    for value in ["x=1,key=it", "x=1, key=it; y=2", "x=1,\tkey = \"it\""] {
        let request = Request::default().with("cookie", value).with("authorization", "Bearer b");
        assert_eq!(found(&["cookie:key"], &request), "it", "{value}");
        let sources = sources(&["authorization:Bearer", "cookie:key"]);
        let removal = sources.removal(&request);
        let cookie = removal.cookie.unwrap();
        assert!(cookie.starts_with("x=1") && !cookie.contains("it"), "{cookie}");
    }
    // Text after a key may be part of it.
    let request = Request::default().with("cookie", "x=1,key=a,b; y=2");
    assert_eq!(find(&["cookie:key"], &request), Err(PresentedTwice));
    assert_eq!(sources(&["cookie:key"]).removal(&request).cookie.as_deref(), Some("x=1; y=2"));
}

#[test]
fn debug_of_a_credential_omits_the_key() {
    for credential in [Credential::AsSent(b"secret"), decoded(b"%73ecret")] {
        assert!(!format!("{credential:?}").contains("secret"));
    }
}

#[test]
fn removal_covers_the_values_of_all_sources() {
    let sources = sources(&[
        "authorization:Bearer",
        "header:x-api-key",
        "query:key",
        "cookie:key",
        "cookie:old",
    ]);
    let request = Request::default()
        .with("authorization", "bearer a")
        .with("x-api-key", "b")
        .with("cookie", "a=1; key=c;  b=\"2\"")
        .with("cookie", "old=d; c")
        .to("/?x=y&key=e&k%65y=f&key=g");
    let removal = sources.removal(&request);
    assert_eq!(removal.headers, ["authorization"]);
    let always: Vec<_> = sources.headers().collect();
    assert_eq!(always, ["x-api-key", "x_api-key", "x-api_key", "x_api_key"]);
    assert_eq!(removal.parameters, ["key", "k%65y"]);
    assert_eq!(removal.cookie.as_deref(), Some("a=1; b=\"2\"; c"));
}

#[test]
fn removal_keeps_everything_that_is_not_a_key() {
    let sources = sources(&["authorization:Bearer", "header:x-api-key", "query:key", "cookie:key"]);
    let request = Request::default()
        .with("authorization", "Basic a")
        .with("x-other", "b")
        .with("cookie", "keys=c")
        .to("/?keys=d#key=e");
    assert_eq!(sources.removal(&request), Removal::default());
    let alone =
        Request::default().with("cookie", "key=c").with("authorization", "Basic a,Bearer b");
    assert_eq!(sources.removal(&alone).headers, ["authorization", "cookie"]);
    assert_eq!(sources.removal(&alone).cookie, None);
    // A cookie that cannot be sent to a proxy is removed together with the key.
    let odd = Request::default().with("cookie", b"key=c; odd=\xff; even=1");
    assert_eq!(sources.removal(&odd).cookie.as_deref(), Some("even=1"));
}

/// Requests that often have values in the sources.
fn request() -> impl Strategy<Value = Request> {
    let header = prop_oneof![
        ("(authorization|x-api-key|cookie)", "(Bearer |key=|[,;= \"]){0,3}[a-z,;=%\" ]{0,8}")
            .prop_map(|(name, value)| (name, value.into_bytes())),
        ("(authorization|x-api-key|cookie)", prop::collection::vec(any::<u8>(), 0..12)),
    ];
    let target = prop_oneof!["/?((key|%6bey|k)=[a-z%&=0-9]{0,6}&?){0,4}", ".{0,12}"];
    (prop::collection::vec(header, 0..4), target).prop_map(|(headers, target)| {
        let with = |request: Request, (name, value): (String, Vec<u8>)| request.with(&name, value);
        headers.into_iter().fold(Request::default(), with).to(target)
    })
}

const ALL: [&str; 4] = ["authorization:Bearer", "header:x-api-key", "query:key", "cookie:key"];

/// Occurs in a request only where a test puts it.
const SENTINEL: &str = "S3NT1NEL";

/// Requests with a sentinel in sources, in every supported spelling.
fn with_sentinel() -> impl Strategy<Value = Request> {
    let header = prop_oneof![
        ("authorization", "([Bb]earer|BEARER)[ \t]{1,2}S3NT1NEL(,|, Basic a)?"),
        ("authorization", "(Basic [a-z]|Bearer|ApiKey b|)"),
        ("x[-_]api[-_]key", "[a-z ,]{0,3}S3NT1NEL[a-z ,]{0,3}"),
        ("cookie", "([ \t]?(key ?= ?\"?S3NT1NEL\"?|[ab]=[0-9]?|key|c)[;,] ?){1,4}"),
    ];
    let target = "/o\\?((key|k%65y|%6Bey|%6b%65%79)(=S3NT1NEL)?&|a=1&|\\?&|&){0,4}";
    (prop::collection::vec(header, 0..6), target, any::<bool>()).prop_map(
        |(headers, target, joined)| {
            let with =
                |request: Request, (name, value): (String, String)| request.with(&name, value);
            let request = headers.into_iter().fold(Request::default(), with).to(target);
            if joined { request.joined() } else { request }
        },
    )
}

/// The request as a proxy forwards it.
fn without(request: &Request, sources: &CredentialSources) -> Request {
    let removal = sources.removal(request);
    let mut removed: Vec<_> = sources.headers().collect();
    removed.extend(removal.headers.iter().map(|name| (*name).to_owned()));
    removed.extend(removal.cookie.is_some().then(|| COOKIE.to_owned()));
    let kept = request.headers.iter().filter(|(name, _)| !removed.contains(name));
    let mut left = kept.fold(Request::default(), |left, (name, value)| left.with(name, value));
    if let Some(cookie) = &removal.cookie {
        left = left.with(COOKIE, cookie);
    }
    // Split the query into parameters as Envoy does.
    let target = request.target();
    let Some(start) = target.iter().position(|byte| *byte == b'?') else { return left.to(target) };
    let kept = target[start + 1..].split(|byte| *byte == b'&').filter(|parameter| {
        let name = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
        !removal.parameters.iter().any(|removed| removed.as_bytes() == name)
    });
    let kept = kept.collect::<Vec<_>>().join(&b'&');
    left.to([&target[..=start], &kept].concat())
}

proptest! {
    #[test]
    fn removal_leaves_no_byte_of_a_key(request in with_sentinel()) {
        let left = without(&request, &sources(&ALL));
        prop_assert!(!left.contains(SENTINEL.as_bytes()), "{left:?} of {request:?}");
    }

    #[test]
    fn all_sources_are_empty_after_a_removal(request in request()) {
        let left = without(&request, &sources(&ALL));
        for text in ALL {
            prop_assert_eq!(find(&[text], &left), Ok(None), "{}", text);
        }
    }

    #[test]
    fn single_key_is_found_unchanged(key in "[!-+./0-9<-~-]{1,40}") {
        let bearer = Request::default().with("authorization", format!("Bearer {key}"));
        prop_assert_eq!(found(&["authorization:Bearer"], &bearer), key.clone());
        let header = Request::default().with("x-api-key", &key);
        prop_assert_eq!(found(&["header:x-api-key"], &header), key.clone());
        let encoded = hex::encode(&key);
        let digits = encoded.as_bytes().chunks(2).flat_map(|digits| [b"%", digits].concat());
        let query = Request::default().to([b"/?key=".to_vec(), digits.collect()].concat());
        prop_assert_eq!(found(&["query:key"], &query), key);
    }
}
