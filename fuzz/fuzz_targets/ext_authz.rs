//! Whatever bytes Envoy, or somebody in its place, sends: they let no request through
//! while the store is down, in time that is linear in their number, and are answered without
//! a bug where the key is known and to be removed.

#![no_main]

use std::sync::{Arc, LazyLock};

use axum::body::{Body, to_bytes};
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use http::Request;
use keystead::{
    telemetry::Metrics,
    time::Clock,
    transport::{Admission, CredentialSources, ExtAuthzConfig, ExtAuthzService, UnaryService},
};
use keystead_fuzz::{
    Behind, KEY, MAX_MESSAGE_BYTES, admission, framed, knowing, repetitions, within_time,
};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tokio::runtime;
use tonic::{Code, Status};

struct Service {
    ext_authz: UnaryService<ExtAuthzService<Behind>>,
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
        let service = ExtAuthzService::new(admission, &metrics, Clock::System, sources, config);
        let ext_authz = service.serve(MAX_MESSAGE_BYTES);
        let runtime = runtime::Builder::new_current_thread().enable_time().build();
        Self { ext_authz, runtime: runtime.expect("a runtime of one thread") }
    }
}

/// A request with a good key, for what comes after it to be added to.
static WITH_KEY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut message = CheckRequest::default();
    let request = message.attributes.get_or_insert_default().request.get_or_insert_default();
    request.http.get_or_insert_default().headers.insert("k".to_owned(), KEY.to_owned());
    message.encode_to_vec()
});

fuzz_target!(|body: &[u8]| {
    let with_key = [&WITH_KEY, body].concat();
    // Messages of Protobuf that follow each other are one.
    let [_, times] = repetitions(body.len());
    for message in [body, &with_key, &body.repeat(times)] {
        within_time(message.len(), || match answer(&DOWN, message) {
            Code::InvalidArgument | Code::Unauthenticated | Code::Unavailable => {}
            other => panic!("{other:?}"),
        });
        // A grant, or a denial for what the message needs.
        assert_ne!(answer(&KNOWING, message), Code::Internal);
    }
});

/// The code of what Envoy is told. The call itself never fails.
fn answer(service: &Service, message: &[u8]) -> Code {
    let request = Request::post("/envoy.service.auth.v3.Authorization/Check")
        .header("content-type", "application/grpc")
        .body(Body::from(framed(message)))
        .expect("all parts are good");
    let answered = async {
        let response = tower::ServiceExt::oneshot(service.ext_authz.clone(), request).await;
        let (head, body) = response.expect("it is infallible").into_parts();
        (head.headers, to_bytes(Body::new(body), usize::MAX).await.expect("it is in memory"))
    };
    let (headers, body) = service.runtime.block_on(answered);
    assert!(Status::from_header_map(&headers).is_none());
    let answer = CheckResponse::decode(&body[5..]).expect("an answer");
    assert!(answer.http_response.is_some());
    Code::from_i32(answer.status.expect("an answer has a status").code)
}
