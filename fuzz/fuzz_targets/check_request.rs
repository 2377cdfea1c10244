//! Whatever bytes a caller sends while the store is down, the answer is one of
//! those of the documentation, and denies no key but one that denies itself.
//!
//! The input is the value of `grpc-timeout` up to the first zero byte, then the
//! body.

#![no_main]

use std::{
    env, fs,
    num::NonZeroUsize,
    process,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{Router, body::Body};
use http::{HeaderValue, Request};
use keystead::{
    check::{CheckConfig, Checker},
    guard::{GuardConfig, Guarded},
    key::{Credential, KeyRing, Prefix},
    outage::Unavailable,
    store::{
        StoreErrorKind,
        sqlite::{SqliteConfig, SqliteStore},
    },
    telemetry::Metrics,
    tier::{Sighting, Tier},
    time::Clock,
    transport::{Admission, AuthzService},
    usage::use_log,
};
use libfuzzer_sys::fuzz_target;
use tokio::{runtime, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::ServiceExt;

const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Minted with that secret, as the first field of a `CheckRequest`.
const MINTED: &[u8; 50] = b"\x0a\x30ks_live_0123456789ABCDEFGHIJKLMNOPQRSTUVDyq36RzI";

/// Below the longest input that libFuzzer makes, with a key before it, so that it
/// is passed at times.
const MAX_MESSAGE_BYTES: usize = 4096;

/// A store that never answers.
struct Down;

impl Tier for Down {
    async fn find(&self, _: Credential, _: Instant) -> Result<Sighting, Unavailable> {
        Err(Unavailable::Store(StoreErrorKind::Unreachable))
    }
}

struct Service {
    routes: Router,
    runtime: runtime::Runtime,
}

static SERVICE: LazyLock<Service> = LazyLock::new(|| {
    let ring = KeyRing::parse(SECRET, Prefix::default(), true).expect("a good secret");
    let (metrics, _) = Metrics::new().expect("metrics in memory");
    let (for_guard, clock) = (Arc::clone(&metrics), Clock::System);
    let unused = Guarded::new(empty_store(), GuardConfig::default(), for_guard, clock);
    let (uses, _) = use_log(Arc::new(unused), Clock::System);
    let checker = Checker::new(ring, Down, Clock::System);
    let never = CancellationToken::new();
    let admission = Admission::new(checker, uses, CheckConfig::default(), never, Clock::System);
    let routes = AuthzService::routes(admission, metrics, Clock::System, MAX_MESSAGE_BYTES);
    let runtime = runtime::Builder::new_current_thread().enable_time().build();
    Service {
        routes: routes.prepare().into_axum_router(),
        runtime: runtime.expect("a runtime of one thread"),
    }
});

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let timeout = HeaderValue::from_bytes(parts.next().unwrap_or_default());
    let timeout = timeout.unwrap_or(HeaderValue::from_static("1S"));
    let body = parts.next().unwrap_or_default();

    is_documented(answer(&timeout, body));
    is_documented(answer(&timeout, &framed(body)));
    // Fields that come later are added, or win.
    is_documented(answer(&timeout, &framed(&[MINTED, body].concat())));
    assert_eq!(answer(&timeout, &framed(MINTED)).code(), Code::Unavailable);
});

/// A log of uses wants one. No key is ever found, so that none is used.
fn empty_store() -> SqliteStore {
    let folder = env::temp_dir().join(format!("keystead-fuzz-{}", process::id()));
    fs::create_dir_all(&folder).expect("a folder for what is temporary");
    let config = SqliteConfig {
        path: folder.join("keystead.db"),
        max_readers: NonZeroUsize::MIN,
        query_timeout: Duration::from_secs(1),
    };
    let store = SqliteStore::open(&config).expect("a store in a new file");
    fs::remove_dir_all(folder).expect("it was just made");
    store
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("inputs are short");
    [&[0], &length.to_be_bytes()[..], message].concat()
}

fn answer(timeout: &HeaderValue, body: &[u8]) -> Status {
    let request = Request::post("/keystead.v1.Authz/Check")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", timeout)
        .body(Body::from(body.to_owned()))
        .expect("all parts are good");
    let routes = SERVICE.routes.clone();
    let response = SERVICE.runtime.block_on(routes.oneshot(request)).expect("it is infallible");
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
