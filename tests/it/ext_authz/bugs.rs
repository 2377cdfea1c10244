//! Every kind of outage, and bugs, from a tier that fails on command.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
};

use keystead::{
    app::{Opened, open_store},
    check::Checker,
    guard::Guarded,
    key::Credential,
    outage::Unavailable,
    store::StoreErrorKind,
    tasks::Tasks,
    telemetry::Metrics,
    tier::{Observation, Tier},
    time::Clock,
    transport::{
        Admission, Budget, CredentialSources, ExtAuthzConfig, ExtAuthzService, Listener, OnOutage,
        Protocol, Workers,
    },
    usage::use_log,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Channel};

use super::{Ask, Verdict};
use crate::harness::{
    app::channel_to,
    backend::{Backend, Embedded},
    beside,
    refusal::Refusal,
};

/// Fails with the given outage; panics when it has none.
#[derive(Debug, Clone, Default)]
struct Failing(Arc<Mutex<Option<Unavailable>>>);

impl Failing {
    fn with(&self, outage: Option<Unavailable>) {
        *self.0.lock().unwrap() = outage;
    }
}

impl Tier for Failing {
    async fn find(&self, _: Credential, _: Instant) -> Result<Observation, Unavailable> {
        let outage = *self.0.lock().unwrap();
        Err(outage.expect("an outage is set"))
    }
}

/// The surface on such a tier.
async fn surface(tier: Failing, on_outage: OnOutage) -> Channel {
    let embedded = Embedded::start().await;
    let config = embedded.config();
    let clock = Clock::System;
    let (metrics, _) = Metrics::new().unwrap();
    let Opened { store, ring, .. } = open_store(&config).await.unwrap();
    let guarded = Guarded::new(store, config.store.guard, Arc::clone(&metrics), clock.clone());
    let (uses, _) = use_log(Arc::new(guarded), clock.clone());
    let checker = Checker::new(ring, tier, clock.clone());
    let never = CancellationToken::new();
    let admission = Admission::new(checker, uses, config.check, never.clone());
    let ext_authz = ExtAuthzConfig { on_outage, ..ExtAuthzConfig::default() };
    let sources = CredentialSources::default();
    let service = ExtAuthzService::new(admission, &metrics, clock, sources, ext_authz)
        .serve(config.grpc.max_message_bytes.get());
    let places = config.grpc.max_connections;
    let address = config.listen.grpc;
    let listener = Listener::bind(address, places, Budget::new(0), metrics).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (protocol, connections) = (Protocol::Grpc(config.grpc), Tasks::here());
    let workers = Workers::start("serve", NonZeroUsize::MIN).unwrap();
    beside(listener.serve(protocol, service, workers, connections, never));
    channel_to(address).await.0
}

const OUTAGES: [(Option<Unavailable>, (Code, &str)); 11] = [
    (
        Some(Unavailable::Store(StoreErrorKind::Unreachable)),
        (Code::Unavailable, "STORE_UNREACHABLE"),
    ),
    (Some(Unavailable::Store(StoreErrorKind::Timeout)), (Code::Unavailable, "STORE_TIMEOUT")),
    (Some(Unavailable::Store(StoreErrorKind::Saturated)), (Code::Unavailable, "STORE_SATURATED")),
    (Some(Unavailable::BreakerOpen), (Code::Unavailable, "BREAKER_OPEN")),
    (Some(Unavailable::Store(StoreErrorKind::Lagging)), (Code::Unavailable, "STORE_LAGGING")),
    (Some(Unavailable::SecretUnknown), (Code::Unavailable, "SECRET_UNKNOWN")),
    (Some(Unavailable::Suspect), (Code::Unavailable, "STORE_SUSPECT")),
    (Some(Unavailable::Overloaded), (Code::Unavailable, "OVERLOADED")),
    (Some(Unavailable::Draining), (Code::Unavailable, "DRAINING")),
    (Some(Unavailable::Internal), (Code::Internal, "INTERNAL")),
    // A panic in the check itself.
    (None, (Code::Internal, "INTERNAL")),
];

#[tokio::test]
async fn every_outage_is_reported_in_the_configured_form_and_never_as_a_denial() {
    for on_outage in [OnOutage::ErrorResponse, OnOutage::DeniedResponse, OnOutage::GrpcStatus] {
        let tier = Failing::default();
        let channel = surface(tier.clone(), on_outage).await;
        for (outage, row) in OUTAGES {
            tier.with(outage);
            let ask = Ask::bearer("sk-any").header("accept", "application/json");
            match (on_outage, ask.send(channel.clone()).await) {
                (OnOutage::GrpcStatus, Err(status)) => {
                    let refusal = Refusal::of(&status);
                    refusal.is_honest();
                    assert_eq!((refusal.code, refusal.reason.as_str()), row);
                }
                (
                    OnOutage::ErrorResponse | OnOutage::DeniedResponse,
                    Ok(Verdict::Refused(told)),
                ) => {
                    told.is_row(row);
                    told.is_json();
                    assert_eq!(told.as_error, on_outage == OnOutage::ErrorResponse);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
