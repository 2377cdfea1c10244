//! Whatever bytes a caller sends while the store is down, the answer is one of
//! those of the documentation, and denies no key but one that denies itself.
//!
//! The input is the value of `grpc-timeout` up to the first zero byte, then the
//! body.

#![no_main]

use std::sync::LazyLock;

use axum::body::Body;
use http::{HeaderValue, Request};
use keystead::{
    time::Clock,
    transport::{AuthzService, UnaryService},
};
use keystead_fuzz::{Behind, KEY, MAX_MESSAGE_BYTES, admission, framed, repetitions, within_time};
use libfuzzer_sys::fuzz_target;
use tokio::runtime;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::ServiceExt;

/// A key as the first field of a `CheckRequest`.
static MINTED: LazyLock<Vec<u8>> = LazyLock::new(|| [b"\x0a\x30", KEY.as_bytes()].concat());

struct Service {
    authz: UnaryService<AuthzService<Behind>>,
    runtime: runtime::Runtime,
}

static SERVICE: LazyLock<Service> = LazyLock::new(|| Service::new(MAX_MESSAGE_BYTES));

/// Takes repeated inputs.
static LARGE: LazyLock<Service> = LazyLock::new(|| Service::new(1024 * 1024));

impl Service {
    fn new(max_message_bytes: usize) -> Self {
        let (admission, metrics) = admission();
        let authz = AuthzService::serve(admission, &metrics, Clock::System, max_message_bytes);
        let runtime = runtime::Builder::new_current_thread().enable_time().build();
        Self { authz, runtime: runtime.expect("a runtime of one thread") }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let timeout = HeaderValue::from_bytes(parts.next().unwrap_or_default());
    let timeout = timeout.unwrap_or(HeaderValue::from_static("1S"));
    let body = parts.next().unwrap_or_default();

    is_documented(answer(&timeout, body));
    is_documented(answer(&timeout, &framed(body)));
    // Messages of Protobuf that follow each other are one.
    let [_, times] = repetitions(body.len());
    let long = framed(&body.repeat(times));
    within_time(long.len(), || is_documented(answer_of(&LARGE, &timeout, &long)));
    // Fields that come later are added, or win.
    is_documented(answer(&timeout, &framed(&[&MINTED, body].concat())));
    assert_eq!(answer(&timeout, &framed(&MINTED)).code(), Code::Unavailable);
});

fn answer(timeout: &HeaderValue, body: &[u8]) -> Status {
    answer_of(&SERVICE, timeout, body)
}

fn answer_of(service: &Service, timeout: &HeaderValue, body: &[u8]) -> Status {
    let request = Request::post("/keystead.v1.Authz/Check")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", timeout)
        .body(Body::from(body.to_owned()))
        .expect("all parts are good");
    let authz = service.authz.clone();
    let response = service.runtime.block_on(authz.oneshot(request)).expect("it is infallible");
    Status::from_header_map(response.headers()).expect("only a refusal ends without a body")
}

fn is_documented(status: Status) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "keystead");
    let retry = details.retry_info().is_some();
    match (status.code(), info.reason.as_str(), retry) {
        (Code::InvalidArgument, "REQUEST_INVALID", false)
        | (Code::Unimplemented, "REQUEST_INVALID", false)
        | (Code::Unauthenticated, "CREDENTIAL_MISSING" | "CREDENTIAL_MALFORMED", false)
        | (Code::Unavailable, "STORE_UNREACHABLE", true) => {}
        other => panic!("{other:?}: {status:?}"),
    }
}
