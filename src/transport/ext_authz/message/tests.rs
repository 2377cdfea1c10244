use std::collections::HashMap;

use envoy_types::pb::envoy::{
    config::core::v3 as core,
    service::auth::v3::{self as stock, attribute_context as context},
};
use proptest::prelude::*;
use prost::Message;

use super::*;

/// What is read of a message that somebody else has encoded.
fn read(message: &impl Message) -> CheckRequest {
    CheckRequest::decode(message.encode_to_vec().as_slice()).unwrap()
}

fn about(http: context::HttpRequest) -> stock::CheckRequest {
    let request = context::Request { http: Some(http), ..Default::default() };
    let request = Some(request);
    let attributes = stock::AttributeContext { request, ..Default::default() };
    stock::CheckRequest { attributes: Some(attributes) }
}

fn with_extensions(extensions: &[(&str, &str)]) -> CheckRequest {
    let extensions = extensions.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let context_extensions = extensions.collect();
    let attributes = stock::AttributeContext { context_extensions, ..Default::default() };
    read(&stock::CheckRequest { attributes: Some(attributes) })
}

fn values(message: &CheckRequest, name: &str) -> Vec<Vec<u8>> {
    let asked = Asked::of(message).unwrap();
    asked.header(name).map(<[u8]>::to_vec).collect()
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
    assert_eq!(values(&read(&joined), "x-api-key"), [b"it"]);
    assert_eq!(values(&read(&joined), "x-api"), [[0; 0]; 0]);
    let header_map =
        raw(&[("x-api-key", "", b"a\xff"), ("x-other", "", b"c"), ("X-Api-Key", "b", b"")]);
    let both = context::HttpRequest { headers, header_map: Some(header_map), ..Default::default() };
    assert_eq!(values(&read(&about(both)), "x-api-key"), [&b"a\xff"[..], b"b"]);
}

#[test]
fn an_entry_that_is_there_twice_is_read_twice() {
    let entry = |value: &'static str| Entry { key: "x-api-key".into(), value: value.into() };
    let http = HttpRequest { headers: vec![entry("a"), entry("b")], ..Default::default() };
    assert_eq!(Asked(&http).header("x-api-key").collect::<Vec<_>>(), [b"a", b"b"]);
}

#[test]
fn the_needs_of_a_route_are_read_from_its_extensions() {
    let message = with_extensions(&[
        ("keystead.scopes", "read  write"),
        ("keystead.audience", "orders"),
        ("other.scopes", "admin"),
        ("keystead", ""),
    ]);
    let (scopes, audience) = needs(&message).unwrap();
    assert_eq!(scopes, ["read", "write"]);
    assert_eq!(audience, "orders");
    assert_eq!(needs(&CheckRequest::default()).unwrap(), (vec![], ""));
}

#[test]
fn an_extension_that_is_a_slip_is_refused_and_not_ignored() {
    for name in ["keystead.scope", "keystead.", "keystead.Scopes", "keystead.audience "] {
        let refusal = needs(&with_extensions(&[(name, "read")])).unwrap_err();
        assert_eq!(refusal.reason, "REQUEST_INVALID", "{name}");
        assert!(refusal.message().starts_with(&format!("`{name}` is no")), "{name}");
    }
    let long = format!("keystead.{}", "é".repeat(10_000));
    assert!(needs(&with_extensions(&[(&long, "read")])).unwrap_err().message().len() < 400);
    for blank in [("keystead.scopes", ""), ("keystead.scopes", " \t"), ("keystead.audience", "")] {
        let refusal = needs(&with_extensions(&[blank])).unwrap_err();
        assert!(refusal.message().contains("is empty"), "{blank:?}");
    }
    let mut message = with_extensions(&[("keystead.scopes", "read")]);
    message.attributes.as_mut().unwrap().context_extensions[0].value = b"\xff"[..].into();
    assert!(needs(&message).is_err());
}

fn from(address: Option<core::address::Address>) -> CheckRequest {
    let address = Some(core::Address { address });
    let source = Some(context::Peer { address, ..Default::default() });
    let attributes = stock::AttributeContext { source, ..Default::default() };
    read(&stock::CheckRequest { attributes: Some(attributes) })
}

#[test]
fn the_source_is_an_ip_address_or_not_known() {
    use core::address::Address::{Pipe, SocketAddress};
    let socket = |address: &str| {
        let address = address.to_owned();
        Some(SocketAddress(core::SocketAddress { address, ..Default::default() }))
    };
    for ip in ["203.0.113.1", "2001:db8::1"] {
        assert_eq!(source_ip(&from(socket(ip))), ip.parse().ok());
    }
    let pipe = core::Pipe { path: "/tmp/x".to_owned(), mode: 0 };
    for other in [socket("localhost"), socket(""), Some(Pipe(pipe)), None] {
        assert_eq!(source_ip(&from(other)), None);
    }
    assert_eq!(source_ip(&CheckRequest::default()), None);
}

#[test]
fn debug_of_a_message_leaves_out_whatever_may_be_a_key() {
    let headers = HashMap::from([("authorization".to_owned(), "Bearer secret".to_owned())]);
    let header_map = Some(raw(&[("cookie", "secret", b"secret")]));
    let path = "/orders?key=secret".to_owned();
    let http = context::HttpRequest { headers, header_map, path, ..Default::default() };
    let shown = format!("{:?}", read(&about(http)));
    assert!(!shown.contains("secret"), "{shown}");
    // Neither as the numbers of its bytes.
    assert!(!shown.contains(&b'e'.to_string()), "{shown}");
    assert!(shown.contains("authorization") && shown.contains("/orders"), "{shown}");
}

/// Messages with something in every field that is read, and in some that are not.
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

fn map_of(entries: &[Entry]) -> HashMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    entries.iter().map(|Entry { key, value }| (text(key), text(value))).collect()
}

proptest! {
    #[test]
    fn every_message_is_read_with_the_fields_that_it_has(theirs in request()) {
        let ours = read(&theirs).attributes.unwrap();
        let theirs = theirs.attributes.unwrap();
        prop_assert_eq!(map_of(&ours.context_extensions), theirs.context_extensions);

        let ours_http = ours.request.unwrap().http;
        let theirs_http = theirs.request.unwrap().http;
        prop_assert_eq!(ours_http.is_some(), theirs_http.is_some());
        if let Some((ours, theirs)) = ours_http.zip(theirs_http) {
            prop_assert_eq!(map_of(&ours.headers), theirs.headers);
            prop_assert_eq!(&*ours.path, theirs.path.as_bytes());
            let ours = ours.header_map.map(|map| map.headers).unwrap_or_default();
            let theirs = theirs.header_map.map(|map| map.headers).unwrap_or_default();
            prop_assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.iter().zip(&theirs) {
                prop_assert_eq!(&*ours.key, theirs.key.as_bytes());
                prop_assert_eq!(&*ours.value, theirs.value.as_bytes());
                prop_assert_eq!(&*ours.raw_value, &*theirs.raw_value);
            }
        }

        let ours = ours.source.and_then(|source| source.address?.address);
        let theirs = theirs.source.and_then(|source| source.address?.address);
        match (ours, theirs) {
            (Some(Address::SocketAddress(ours)), Some(core::address::Address::SocketAddress(theirs))) => {
                prop_assert_eq!(&*ours.address, theirs.address.as_bytes());
            }
            (Some(Address::Pipe(_)), Some(core::address::Address::Pipe(_))) | (None, None) => {}
            (ours, theirs) => prop_assert!(false, "{:?} {:?}", ours, theirs),
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = CheckRequest::decode(bytes.as_slice()) {
            let _ = (needs(&message).is_ok(), source_ip(&message), format!("{message:?}"));
        }
    }
}
