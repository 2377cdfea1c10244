//! The services that decide about keys, as the composition root puts them together,
//! without sockets and before a store that nobody asks.

use std::{
    convert::Infallible,
    error::Error,
    num::NonZeroUsize,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Body as _;
use keystead::{
    app::{self, Opened},
    cache::{CacheConfig, Cached, Coverage, Memory},
    check::Checker,
    config::Config,
    guard::Guarded,
    instance::Warmth,
    key::{
        CompactKey, Credential, Digest, Environment, KeyId, KeyRecord, KeyRing, Prefix, Revision,
        Secret, State,
    },
    outage::Unavailable,
    store::{Answer, AnyStore, Lookups, StoreUrl},
    suspect::{SuspectConfig, Suspicion},
    telemetry::Metrics,
    tier::{Observation, Refresh, Tier},
    time::Clock,
    transport::{Admission, AuthzService, ExtAuthzService, UnaryService},
    usage::{UseWriter, use_log},
};
use prost::Message as _;
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;

use crate::typical;

/// Longer than any run.
const FRESH_FOR: Duration = Duration::from_hours(1);

/// The services, with one key that is warm and one of which the store has said that
/// there is no such key.
pub(crate) struct InProcess {
    pub(crate) ring: KeyRing,
    /// The warm key.
    pub(crate) key: String,
    pub(crate) digest: Digest,
    /// Well-formed, and ours.
    absent: String,
    pub(crate) memory: Arc<Memory>,
    pub(crate) metrics: Arc<Metrics>,
    authz: UnaryService<AuthzService<Cached<Nothing>>>,
    envoy: UnaryService<ExtAuthzService<Cached<Nothing>>>,
    /// Kept, so that uses are noted as in a service.
    _uses: UseWriter<AnyStore>,
    _runtime: Runtime,
}

/// A call, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// `keystead.v1.Authz/Check` with the warm key.
    Check,
    /// The same with another tag.
    CheckOfForged,
    /// The same with a key that is not stored.
    CheckOfAbsent,
    /// Envoy's call, as it was captured, with the warm key.
    ExtAuthz,
    /// The same with another tag.
    ExtAuthzOfForged,
}

/// What stands behind the memory: everything that is asked for is in memory.
#[derive(Debug)]
struct Nothing;

impl Tier for Nothing {
    async fn find(&self, _: Credential, _: Instant) -> Result<Observation, Unavailable> {
        Err(Unavailable::Internal)
    }
}

impl Refresh for Nothing {
    fn refresh(&self, _: Digest) -> Result<(), Unavailable> {
        Err(Unavailable::Internal)
    }

    fn in_doubt(&self) -> bool {
        false
    }

    fn doubt(&self) -> Option<Unavailable> {
        None
    }
}

impl InProcess {
    /// Sets it up, with a store in a folder that is gone when this returns.
    pub(crate) fn new() -> Result<Self, Box<dyn Error + Send + Sync>> {
        Self::with(|_| ())
    }

    /// With settings of its own.
    pub(crate) fn with(
        tune: impl FnOnce(&mut Config),
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let _in = runtime.enter();
        let folder = tempfile::tempdir()?;
        let mut config = Config::default();
        tune(&mut config);
        // Whoever counts instructions makes everything slow.
        config.store.guard.query_timeout = FRESH_FOR;
        config.store.connect_timeout = FRESH_FOR;
        config.store.url = StoreUrl::Sqlite { path: folder.path().join("keystead.db") };
        let Opened { store, .. } = runtime.block_on(app::open_store(&config))?;

        let ring = KeyRing::parse(&Secret::generate()?, Prefix::default(), true)?;
        let (minted, absent) = (ring.mint(Environment::Live)?, ring.mint(Environment::Live)?);
        let memory = Arc::new(memory());
        let now = Clock::System.monotonic();
        memory.take(minted.digest, &Answer::Found(CompactKey::from(&record(0)?)), now)?;
        let lookup = runtime.block_on(store.find(&[absent.digest]))?;
        let answer = lookup.get(&absent.digest).ok_or("the store did not answer")?;
        memory.take(absent.digest, answer, now)?;

        let (metrics, _) = Metrics::new()?;
        let guard = config.store.guard;
        let store = Arc::new(Guarded::new(store, guard, Arc::clone(&metrics), Clock::System));
        let (uses, writer) = use_log(store, Clock::System);
        let cached = Cached::new(
            Arc::clone(&memory),
            config.cache,
            Arc::clone(&metrics),
            Arc::new(Warmth::new(now)),
            Clock::System,
            Nothing,
        );
        let checker = Checker::new(ring.clone(), cached, Clock::System);
        let admission = Admission::new(checker, uses, config.check, CancellationToken::new());
        let max_bytes = config.grpc.max_message_bytes.get();
        let (sources, answers) = (config.credential.sources, config.ext_authz);
        let envoy =
            ExtAuthzService::new(Arc::clone(&admission), &metrics, Clock::System, sources, answers);
        Ok(Self {
            ring,
            key: minted.key.expose().to_owned(),
            digest: minted.digest,
            absent: absent.key.expose().to_owned(),
            memory,
            authz: AuthzService::serve(admission, &metrics, Clock::System, max_bytes),
            envoy: envoy.serve(max_bytes),
            metrics,
            _uses: writer,
            _runtime: runtime,
        })
    }

    /// The warm key with another tag.
    pub(crate) fn forged(&self) -> String {
        typical::forged(&self.key)
    }

    pub(crate) fn observation(&self) -> Observation {
        let held = self.memory.look(&self.digest, Clock::System.monotonic());
        held.expect("the warm key is in memory").observation
    }

    /// A call as it comes from a connection.
    pub(crate) fn request(&self, call: Call) -> Request<Full<Bytes>> {
        let check = |key: &str| typical::request(key).encode_to_vec();
        let envoy = |key: &str| typical::envoy_request(key).expect("it was captured");
        let message = match call {
            Call::Check => check(&self.key),
            Call::CheckOfForged => check(&self.forged()),
            Call::CheckOfAbsent => check(&self.absent),
            Call::ExtAuthz => envoy(&self.key),
            Call::ExtAuthzOfForged => envoy(&self.forged()),
        };
        Self::request_of(call, &message)
    }

    /// A call with another message.
    pub(crate) fn request_of(call: Call, message: &[u8]) -> Request<Full<Bytes>> {
        let length = u32::try_from(message.len()).expect("it is short");
        let frame = Bytes::from([&[0][..], &length.to_be_bytes(), message].concat());
        let request = Request::post(call.path())
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(frame));
        request.expect("it is well-formed")
    }

    /// Answers a [`request`](Self::request), to the trailers. Panics when it is not
    /// answered at once, or otherwise than such a call is.
    pub(crate) fn answer(&self, call: Call, request: Request<Full<Bytes>>) {
        let status = self.status_of(call, request);
        assert_eq!(status.as_deref(), Some(call.status()), "{call:?}");
    }

    /// Answers a request, to the trailers, and returns its `grpc-status`.
    pub(crate) fn status_of(&self, call: Call, request: Request<Full<Bytes>>) -> Option<Bytes> {
        match call {
            Call::Check | Call::CheckOfForged | Call::CheckOfAbsent => {
                status(self.authz.clone(), request)
            }
            Call::ExtAuthz | Call::ExtAuthzOfForged => status(self.envoy.clone(), request),
        }
    }
}

impl Call {
    fn path(self) -> &'static str {
        match self {
            Self::Check | Self::CheckOfForged | Self::CheckOfAbsent => {
                AuthzService::<Cached<Nothing>>::PATH
            }
            Self::ExtAuthz | Self::ExtAuthzOfForged => ExtAuthzService::<Cached<Nothing>>::PATH,
        }
    }

    /// The `grpc-status` of its answer.
    fn status(self) -> &'static [u8] {
        match self {
            Self::Check | Self::ExtAuthz | Self::ExtAuthzOfForged => b"0",
            Self::CheckOfForged | Self::CheckOfAbsent => b"16",
        }
    }
}

/// The `grpc-status` that a service answers, in the headers or in the trailers.
fn status<S>(mut service: S, request: Request<Full<Bytes>>) -> Option<Bytes>
where
    S: Service<Request<Full<Bytes>>, Response = Response<Body>, Error = Infallible>,
{
    let told = |headers: &http::HeaderMap| {
        headers.get("grpc-status").map(|status| Bytes::copy_from_slice(status.as_bytes()))
    };
    // What is in memory is answered without waiting; a service is always ready.
    let answer = service.call(request).now_or_never().expect("it waits for nothing");
    let (head, mut body) = answer.unwrap_or_else(|never| match never {}).into_parts();
    let mut status = told(&head.headers);
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) {
        status = frame.trailers_ref().and_then(told).or(status);
    }
    status
}

/// A memory in which nothing grows old.
pub(crate) fn memory() -> Memory {
    let config = CacheConfig {
        // With room to spare: the parts of the memory fill unevenly.
        max_entries: NonZeroUsize::new(1_250_000).expect("it is not zero"),
        fresh_for: FRESH_FOR,
        absent_for: FRESH_FOR,
        ..CacheConfig::default()
    };
    let coverage = Arc::new(Coverage::new(Duration::from_secs(1)));
    let suspicion = Arc::new(Suspicion::new(SuspectConfig::default()));
    Memory::new(config, coverage, suspicion, Clock::System)
}

/// The record of a typical key. Three keys have the same principal.
pub(crate) fn record(number: u64) -> Result<KeyRecord, Box<dyn Error + Send + Sync>> {
    let mut rights = typical::rights();
    rights.principal = format!("customer-{}", number / 3);
    Ok(KeyRecord {
        id: KeyId::generate()?,
        hint: "ks_live_…q7Rz".to_owned(),
        secret: None,
        rights,
        state: State::Active,
        created_at: Clock::System.wall(),
        last_used_at: Some(Clock::System.wall()),
        predecessor: None,
        successor: None,
        revision: Revision(1_000),
    })
}
