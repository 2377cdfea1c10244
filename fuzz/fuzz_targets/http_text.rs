//! Whatever text a client puts into the query, the cookies, the authorization, the
//! addresses and the other headers of a request, and a proxy into what a route needs: forward-auth
//! and Envoy's service answer it as documented, and in time that is linear in its length.
//!
//! The input is the query, the values of [`HEADERS`] and the needed scopes, with zero
//! bytes between them; what is left are further cookies. Each is sent as it is and
//! repeated to 60 KiB, so that a parser that is not linear shows.

#![no_main]

use std::sync::LazyLock;

use axum::{
    Router,
    body::{Body, to_bytes},
};
use envoy_types::pb::envoy::{
    config::core::v3::{HeaderMap, HeaderValue},
    service::auth::v3::{CheckRequest, CheckResponse, attribute_context::HttpRequest},
};
use http::{Request, StatusCode};
use keystead::{
    time::Clock,
    transport::{
        CredentialSources, ExtAuthzConfig, ExtAuthzService, ForwardAuthConfig, UnaryService,
        auth_routes,
    },
};
use keystead_fuzz::{Behind, admission, framed, repetitions, within_time};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tokio::runtime;
use tonic::Code;
use tower::ServiceExt;

const HEADERS: [&str; 6] =
    ["authorization", "cookie", "x-forwarded-for", "x-api-key", "accept", "x-forwarded-uri"];

/// Longer messages than any that is made here.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

struct Services {
    forward_auth: Router,
    ext_authz: UnaryService<ExtAuthzService<Behind>>,
    runtime: runtime::Runtime,
}

static SERVICES: LazyLock<Services> = LazyLock::new(|| {
    let sources = || {
        let sources = ["authorization:Bearer", "header:x-api-key", "cookie:k", "query:k"];
        CredentialSources::try_from(sources.map(str::to_owned).to_vec()).expect("good sources")
    };
    let (forward, metrics) = admission();
    let config = ForwardAuthConfig { trusted_hops: 1 };
    let forward_auth = auth_routes(forward, &metrics, sources(), config, Clock::System);
    let (envoy, metrics) = admission();
    let config =
        ExtAuthzConfig { trusted_hops: 1, remove_credential: true, ..ExtAuthzConfig::default() };
    let ext_authz = ExtAuthzService::new(envoy, &metrics, Clock::System, sources(), config)
        .serve(MAX_MESSAGE_BYTES);
    let runtime = runtime::Builder::new_current_thread().enable_time().build();
    Services { forward_auth, ext_authz, runtime: runtime.expect("a runtime of one thread") }
});

fuzz_target!(|input: &[u8]| {
    for times in repetitions(input.len()) {
        let mut texts = input.split(|byte| *byte == 0).map(|text| text.repeat(times));
        let query = texts.next().unwrap_or_default();
        let mut headers: Vec<_> =
            HEADERS.into_iter().map(|name| (name, texts.next().unwrap_or_default())).collect();
        let scopes = texts.next().unwrap_or_default();
        headers.extend(texts.map(|text| ("cookie", text)));
        let bytes = input.len() * times;
        within_time(bytes, || forward_auth(&query, &headers));
        within_time(bytes, || ext_authz(&query, &headers, &scopes));
    }
});

/// What cannot be in a request is left out.
fn forward_auth(query: &[u8], headers: &[(&'static str, Vec<u8>)]) {
    let query = String::from_utf8_lossy(query);
    let uri = format!("/auth?{query}");
    let uri = uri.parse().unwrap_or(http::Uri::from_static("/auth"));
    let mut request = Request::get(uri).body(Body::empty()).expect("all parts are good");
    for (name, value) in headers {
        if let Ok(value) = http::HeaderValue::from_bytes(value) {
            request.headers_mut().append(*name, value);
        }
    }
    let answered = SERVICES.forward_auth.clone().oneshot(request);
    let response = SERVICES.runtime.block_on(answered).expect("it is infallible");
    match response.status() {
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::SERVICE_UNAVAILABLE => {}
        other => panic!("{other}"),
    }
}

fn ext_authz(query: &[u8], headers: &[(&'static str, Vec<u8>)], scopes: &[u8]) {
    let path = format!("/?{}", String::from_utf8_lossy(query));
    let headers = headers.iter().map(|(name, value)| HeaderValue {
        key: (*name).to_owned(),
        raw_value: value.clone(),
        ..HeaderValue::default()
    });
    let header_map = Some(HeaderMap { headers: headers.collect() });
    let mut message = CheckRequest::default();
    let attributes = message.attributes.get_or_insert_default();
    let scopes = String::from_utf8_lossy(scopes).into_owned();
    attributes.context_extensions.insert("keystead.scopes".to_owned(), scopes);
    attributes.request.get_or_insert_default().http =
        Some(HttpRequest { path, header_map, ..HttpRequest::default() });
    let request = Request::post("/envoy.service.auth.v3.Authorization/Check")
        .header("content-type", "application/grpc")
        .body(Body::from(framed(&message.encode_to_vec())))
        .expect("all parts are good");
    let answered = async {
        let response = SERVICES.ext_authz.clone().oneshot(request).await;
        let body = Body::new(response.expect("it is infallible").into_body());
        to_bytes(body, usize::MAX).await.expect("it is in memory")
    };
    let body = SERVICES.runtime.block_on(answered);
    let answer = CheckResponse::decode(&body[5..]).expect("an answer");
    match Code::from_i32(answer.status.expect("an answer has a status").code) {
        Code::InvalidArgument | Code::Unauthenticated | Code::Unavailable => {}
        other => panic!("{other:?}"),
    }
}
