//! Whatever bytes Envoy, or somebody in its place, sends: they are read as Envoy's
//! own messages are, let no request through while the store is down, and are answered
//! without a bug where the key is known and to be removed.

#![no_main]

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use axum::{
    Router,
    body::{Body, to_bytes},
};
use envoy_types::pb::envoy::{
    config::core::v3::address::Address as TheirAddress,
    service::auth::v3::{CheckRequest as Theirs, CheckResponse},
};
use http::Request;
use keystead::{
    telemetry::Metrics,
    time::Clock,
    transport::{
        Admission, CredentialSources, ExtAuthzConfig, ExtAuthzService,
        envoy_pb::{CheckRequest as Ours, Entry, address::Address},
    },
};
use keystead_fuzz::{Behind, KEY, MAX_MESSAGE_BYTES, admission, framed, knowing};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tokio::runtime;
use tonic::{Code, Status, service::Routes};

struct Service {
    routes: Router,
    runtime: runtime::Runtime,
}

/// Whose store is down.
static DOWN: LazyLock<Service> = LazyLock::new(|| Service::new(admission(), false));

/// Which knows the key, and has it removed.
static KNOWING: LazyLock<Service> = LazyLock::new(|| Service::new(knowing(), true));

impl Service {
    fn new(
        (admission, metrics): (Arc<Admission<Behind>>, Arc<Metrics>),
        remove_credential: bool,
    ) -> Self {
        let sources = ["authorization:Bearer", "header:k", "query:k", "cookie:k"];
        let sources = CredentialSources::try_from(sources.map(str::to_owned).to_vec());
        let config =
            ExtAuthzConfig { trusted_hops: 1, remove_credential, ..ExtAuthzConfig::default() };
        let sources = sources.expect("good sources");
        let service = ExtAuthzService::new(admission, metrics, Clock::System, sources, config);
        let routes = service.join(Routes::default(), MAX_MESSAGE_BYTES);
        let runtime = runtime::Builder::new_current_thread().enable_time().build();
        Self {
            routes: routes.prepare().into_axum_router(),
            runtime: runtime.expect("a runtime of one thread"),
        }
    }
}

/// A request with a good key, for what comes after it to be added to.
static WITH_KEY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let entry = Entry { key: "k".into(), value: KEY.into() };
    let mut message = Ours::default();
    let request = message.attributes.get_or_insert_default().request.get_or_insert_default();
    request.http.get_or_insert_default().headers.push(entry);
    message.encode_to_vec()
});

fuzz_target!(|body: &[u8]| {
    if let (Ok(ours), Ok(theirs)) = (Ours::decode(body), Theirs::decode(body)) {
        are_the_same(ours, theirs);
    }
    let with_key = [&WITH_KEY, body].concat();
    for message in [body, &with_key] {
        match answer(&DOWN, message) {
            Code::InvalidArgument | Code::Unauthenticated | Code::Unavailable => {}
            other => panic!("{other:?}"),
        }
        // A grant, or a denial for what the message needs.
        assert_ne!(answer(&KNOWING, message), Code::Internal);
    }
});

fn are_the_same(ours: Ours, theirs: Theirs) {
    assert_eq!(ours.attributes.is_some(), theirs.attributes.is_some());
    let (ours, theirs) =
        (ours.attributes.unwrap_or_default(), theirs.attributes.unwrap_or_default());
    assert_eq!(map(&ours.context_extensions), theirs.context_extensions);

    let our_source = ours.source.and_then(|source| source.address).and_then(|it| it.address);
    let their_source = theirs.source.and_then(|source| source.address).and_then(|it| it.address);
    match (our_source, their_source) {
        (Some(Address::SocketAddress(ours)), Some(TheirAddress::SocketAddress(theirs))) => {
            assert_eq!(ours.address, theirs.address);
        }
        (Some(Address::Pipe(_)), Some(TheirAddress::Pipe(_)))
        | (Some(Address::EnvoyInternalAddress(_)), Some(TheirAddress::EnvoyInternalAddress(_)))
        | (None, None) => {}
        other => panic!("{other:?}"),
    }

    assert_eq!(ours.request.is_some(), theirs.request.is_some());
    let our_http = ours.request.and_then(|request| request.http);
    let their_http = theirs.request.and_then(|request| request.http);
    assert_eq!(our_http.is_some(), their_http.is_some());
    let (ours, theirs) = (our_http.unwrap_or_default(), their_http.unwrap_or_default());
    assert_eq!(ours.path, theirs.path);
    assert_eq!(map(&ours.headers), theirs.headers);
    let our_headers = ours.header_map.map(|map| map.headers).unwrap_or_default();
    let their_headers = theirs.header_map.map(|map| map.headers).unwrap_or_default();
    assert_eq!(our_headers.len(), their_headers.len());
    for (ours, theirs) in our_headers.into_iter().zip(their_headers) {
        assert_eq!(ours.key, theirs.key);
        assert_eq!(ours.value, theirs.value);
        assert_eq!(ours.raw_value, theirs.raw_value);
    }
}

/// The last of several entries wins. What both accept is UTF-8.
fn map(entries: &[Entry]) -> HashMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("they accept it");
    entries.iter().map(|entry| (text(&entry.key), text(&entry.value))).collect()
}

/// The code of what Envoy is told. The call itself never fails.
fn answer(service: &Service, message: &[u8]) -> Code {
    let request = Request::post("/envoy.service.auth.v3.Authorization/Check")
        .header("content-type", "application/grpc")
        .body(Body::from(framed(message)))
        .expect("all parts are good");
    let answered = async {
        let response = tower::ServiceExt::oneshot(service.routes.clone(), request).await;
        let (head, body) = response.expect("it is infallible").into_parts();
        (head.headers, to_bytes(body, usize::MAX).await.expect("it is in memory"))
    };
    let (headers, body) = service.runtime.block_on(answered);
    assert!(Status::from_header_map(&headers).is_none());
    let answer = CheckResponse::decode(&body[5..]).expect("an answer");
    assert!(answer.http_response.is_some());
    Code::from_i32(answer.status.expect("an answer has a status").code)
}
