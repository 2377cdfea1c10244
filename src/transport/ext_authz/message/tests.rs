use std::collections::HashMap;

use envoy_types::pb::envoy::{
    config::core::v3 as core,
    service::auth::v3::{self as stock, attribute_context as context},
};
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn about(http: context::HttpRequest) -> Vec<u8> {
    let request = context::Request { http: Some(http), ..Default::default() };
    let request = Some(request);
    let attributes = stock::AttributeContext { request, ..Default::default() };
    stock::CheckRequest { attributes: Some(attributes) }.encode_to_vec()
}

fn with_extensions(extensions: &[(&str, &str)]) -> Vec<u8> {
    let extensions = extensions.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let context_extensions = extensions.collect();
    let attributes = stock::AttributeContext { context_extensions, ..Default::default() };
    stock::CheckRequest { attributes: Some(attributes) }.encode_to_vec()
}

fn values(message: &[u8], name: &str) -> Vec<Vec<u8>> {
    let message = Message::read(message).unwrap();
    message.http().unwrap().header(name).map(<[u8]>::to_vec).collect()
}

fn raw(headers: &[(&str, &str, &[u8])]) -> core::HeaderMap {
    let headers = headers.iter().map(|(key, value, raw_value)| core::HeaderValue {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
        raw_value: raw_value.to_vec(),
    });
    core::HeaderMap { headers: headers.collect() }
}

#[test]
fn headers_are_read_in_either_encoding() {
    let headers = HashMap::from([("x-api-key".to_owned(), "it".to_owned())]);
    let joined = about(context::HttpRequest { headers: headers.clone(), ..Default::default() });
    assert_eq!(values(&joined, "x-api-key"), [b"it"]);
    assert_eq!(values(&joined, "x-api"), [[0; 0]; 0]);
    let header_map =
        raw(&[("x-api-key", "", b"a\xff"), ("x-other", "", b"c"), ("X-Api-Key", "b", b"")]);
    let both = context::HttpRequest { headers, header_map: Some(header_map), ..Default::default() };
    assert_eq!(values(&about(both), "x-api-key"), [&b"a\xff"[..], b"b"]);
}

#[test]
fn repeated_header_keeps_all_values_even_across_merged_messages() {
    let http = |value: &str| {
        let headers = HashMap::from([("x-api-key".to_owned(), value.to_owned())]);
        about(context::HttpRequest { headers, ..Default::default() })
    };
    assert_eq!(values(&[http("a"), http("b")].concat(), "x-api-key"), [b"a", b"b"]);
}

#[test]
fn needs_of_a_route_are_read_from_its_extensions() {
    let message = with_extensions(&[
        ("keystead.scopes", "read  write"),
        ("keystead.audience", "orders"),
        ("other.scopes", "admin"),
        ("keyste", ""),
    ]);
    let message = Message::read(&message).unwrap();
    assert_eq!(message.needs(), Ok(("read  write", "orders")));
    assert_eq!(Message::default().needs(), Ok(("", "")));
}

#[test]
fn misspelled_extension_is_refused_and_not_ignored() {
    let refusal = |extension| {
        let message = with_extensions(&[extension]);
        Message::read(&message).unwrap().needs().unwrap_err()
    };
    for name in [
        "keystead.scope",
        "keystead.",
        "keystead",
        "keystead.Scopes",
        "keystead.audience ",
        "Keystead.scopes",
        "KEYSTEAD.SCOPES",
        " keystead.scopes",
        "keystead_scopes",
        "keystead-audience",
        "keysteadScopes",
    ] {
        let refusal = refusal((name, "read"));
        assert_eq!(refusal.reason, "REQUEST_INVALID", "{name}");
        assert!(refusal.message().starts_with(&format!("`{name}` is no")), "{name}");
    }
    let long = format!("keystead.{}", "é".repeat(10_000));
    assert!(refusal((&long, "read")).message().len() < 400);
    for blank in [("keystead.scopes", ""), ("keystead.scopes", " \t"), ("keystead.audience", "")] {
        assert!(refusal(blank).message().contains("is empty"), "{blank:?}");
    }
    let not_utf8 = [Pair { key: b"keystead.scopes", value: b"\xff" }].into();
    assert!(Message { extensions: not_utf8, ..Message::default() }.needs().is_err());
}

fn from(address: Option<core::address::Address>) -> Option<IpAddr> {
    let address = Some(core::Address { address });
    let source = Some(context::Peer { address, ..Default::default() });
    let attributes = stock::AttributeContext { source, ..Default::default() };
    let message = stock::CheckRequest { attributes: Some(attributes) }.encode_to_vec();
    Message::read(&message).unwrap().source_ip()
}

#[test]
fn source_is_an_ip_address_or_unknown() {
    use core::address::Address::{Pipe, SocketAddress};
    let socket = |address: &str| {
        let address = address.to_owned();
        Some(SocketAddress(core::SocketAddress { address, ..Default::default() }))
    };
    for ip in ["203.0.113.1", "2001:db8::1"] {
        assert_eq!(from(socket(ip)), ip.parse().ok());
    }
    let pipe = core::Pipe { path: "/tmp/x".to_owned(), mode: 0 };
    for other in [socket("localhost"), socket(""), Some(Pipe(pipe)), None] {
        assert_eq!(from(other), None);
    }
    assert_eq!(Message::default().source_ip(), None);
}

/// Messages that use every field that is parsed, and some that are skipped.
fn request() -> impl Strategy<Value = stock::CheckRequest> {
    let text = || any::<String>();
    let map = || prop::collection::hash_map(text(), text(), 0..4);
    let header = (text(), text(), prop::collection::vec(any::<u8>(), 0..8))
        .prop_map(|(key, value, raw_value)| core::HeaderValue { key, value, raw_value });
    let header_map =
        prop::collection::vec(header, 0..4).prop_map(|headers| core::HeaderMap { headers });
    let http = (map(), prop::option::of(header_map), text(), text(), any::<i64>()).prop_map(
        |(headers, header_map, path, body, size)| context::HttpRequest {
            headers,
            header_map,
            path: path.clone(),
            query: path,
            raw_body: body.clone().into(),
            body,
            size,
            ..Default::default()
        },
    );
    let address = prop_oneof![
        text().prop_map(|address| {
            let resolver_name = address.clone();
            let address = core::SocketAddress { address, resolver_name, ..Default::default() };
            core::address::Address::SocketAddress(address)
        }),
        text().prop_map(|path| core::address::Address::Pipe(core::Pipe { path, mode: 1 })),
    ];
    let peer = (prop::option::of(address), text(), map()).prop_map(|(address, text, labels)| {
        let address = Some(core::Address { address });
        context::Peer {
            address,
            principal: text.clone(),
            service: text,
            labels,
            ..Default::default()
        }
    });
    (prop::option::of(peer), prop::option::of(http), map()).prop_map(
        |(peer, http, context_extensions)| {
            let attributes = stock::AttributeContext {
                source: peer.clone(),
                destination: peer,
                request: Some(context::Request { http, ..Default::default() }),
                context_extensions,
                ..Default::default()
            };
            stock::CheckRequest { attributes: Some(attributes) }
        },
    )
}

fn map_of(pairs: &[Pair<'_>]) -> HashMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    pairs.iter().map(|Pair { key, value }| (text(key), text(value))).collect()
}

/// Compares the parsed message with the decoding of generated code.
fn assert_same(theirs: stock::CheckRequest, ours: &Message<'_>) -> Result<(), TestCaseError> {
    use core::address::Address::SocketAddress;
    let theirs = theirs.attributes.unwrap_or_default();
    prop_assert_eq!(map_of(&ours.extensions), theirs.context_extensions);

    let theirs_http = theirs.request.and_then(|request| request.http);
    prop_assert_eq!(ours.http().is_some(), theirs_http.is_some());
    if let Some((ours, theirs)) = ours.http().zip(theirs_http) {
        prop_assert_eq!(map_of(&ours.joined), theirs.headers);
        prop_assert_eq!(ours.path, theirs.path.as_bytes());
        let theirs = theirs.header_map.map(|map| map.headers).unwrap_or_default();
        prop_assert_eq!(ours.raw.len(), theirs.len());
        for (ours, theirs) in ours.raw.iter().zip(&theirs) {
            prop_assert_eq!(ours.key, theirs.key.as_bytes());
            let raw = &*theirs.raw_value;
            let value = if raw.is_empty() { theirs.value.as_bytes() } else { raw };
            prop_assert_eq!(ours.value, value);
        }
    }

    match (ours.source, theirs.source.and_then(|source| source.address?.address)) {
        (Source::Socket { address }, Some(SocketAddress(theirs))) => {
            prop_assert_eq!(address, theirs.address.as_bytes());
        }
        (Source::Other, Some(other)) => prop_assert!(!matches!(other, SocketAddress(_))),
        (Source::Unset, None) => {}
        (_, theirs) => prop_assert!(false, "{:?}", theirs),
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_message_is_read_with_all_its_fields(theirs in request()) {
        let bytes = theirs.encode_to_vec();
        assert_same(theirs, &Message::read(&bytes).unwrap())?;
    }

    #[test]
    fn any_bytes_that_generated_code_decodes_are_decoded_alike(
        theirs in request(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        trailing in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = [theirs.encode_to_vec(), trailing].concat();
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        // Generated code also rejects errors in fields that are skipped here.
        if let Ok(theirs) = stock::CheckRequest::decode(bytes.as_slice()) {
            assert_same(theirs, &Message::read(&bytes).unwrap())?;
        }
    }
}
