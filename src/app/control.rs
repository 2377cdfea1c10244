//! The control listener, where it is configured.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
};

use axum::Router;

use super::{StartError, Stops, open_store_alone};
use crate::{
    config::Config,
    explain::{self, Explainer},
    guard::Guarded,
    store::AnyStore,
    tasks::Tasks,
    telemetry::Metrics,
    tier::Tier,
    transport::{Admission, Control, GrpcConfig, Protocol, control_routes},
};

/// The name of the control listener's way to the store, in metrics and in the
/// log.
const TIER: &str = "control";

/// How many connections to the store it has of its own: one for who explains, and
/// one more, so that a colleague need not wait.
pub(super) const STORE_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// How many requests it serves at once on each connection. Together with how many
/// connections there may be, this bounds how many requests may wait.
const STREAMS: NonZeroU32 = NonZeroU32::new(8).unwrap();

/// What the control listener speaks and serves, with a store handle of its own. The store may be
/// down.
pub(super) fn open<T: Tier>(
    config: &Config,
    looked: explain::Parts<AnyStore>,
    admission: Arc<Admission<T>>,
    metrics: &Arc<Metrics>,
    stops: &Stops,
    tasks: &Tasks,
) -> Result<(Protocol, Router), StartError> {
    let mut own = config.clone();
    own.store.guard.max_in_flight = STORE_CONNECTIONS;
    let store = open_store_alone(&own, tasks)?;
    let clock = looked.clock.clone();
    let counted = Arc::clone(metrics);
    let store = Guarded::of_tier(TIER, store, own.store.guard, counted, clock.clone());
    let (explainer, cut_off) = (Explainer::new(looked, store), stops.cut_off.clone());
    let control = Control { admission, explainer, cut_off, clock };
    let spoken = GrpcConfig { max_concurrent_streams: STREAMS, ..config.grpc };
    let routes = control_routes(control, metrics, spoken)?;
    Ok((Protocol::Grpc(spoken), routes))
}
