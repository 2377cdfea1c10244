//! The control listener, where it is configured.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
};

use super::{Listening, Shared, StartError, Stops, open_store_alone};
use crate::{
    config::Config,
    explain::{self, Explainer},
    guard::Guarded,
    store::AnyStore,
    tasks::Tasks,
    tier::Tier,
    transport::{Admission, Control, GrpcConfig, Protocol, control_routes},
};

/// The name of the control listener's way to the store, in metrics and in the
/// log.
const TIER: &str = "control";

/// How many connections to the store it has of its own: one for who explains, and
/// one more, so that a colleague need not wait.
const STORE_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// How many connections it serves at once, and how many requests on each: some
/// engineers and their scripts. Together they bound how many requests may wait.
const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(32).unwrap();
const STREAMS: NonZeroU32 = NonZeroU32::new(8).unwrap();

/// Opens a store handle of its own and binds the listener, if there is to be one.
/// The store may be down.
pub(super) async fn open<T: Tier>(
    config: &Config,
    looked: explain::Parts<AnyStore>,
    admission: Arc<Admission<T>>,
    shared: &Shared,
    stops: &Stops,
    tasks: &Tasks,
) -> Result<Option<Listening>, StartError> {
    let Some(address) = config.listen.control else {
        return Ok(None);
    };
    let mut own = config.clone();
    own.store.guard.max_in_flight = STORE_CONNECTIONS;
    let store = open_store_alone(&own, tasks)?;
    let clock = looked.clock.clone();
    let metrics = &shared.metrics;
    let counted = Arc::clone(metrics);
    let store = Guarded::of_tier(TIER, store, own.store.guard, counted, clock.clone());
    let (explainer, cut_off) = (Explainer::new(looked, store), stops.cut_off.clone());
    let control = Control { admission, explainer, cut_off, clock };
    let spoken = GrpcConfig { max_concurrent_streams: STREAMS, ..config.grpc };
    let routes = control_routes(control, metrics, spoken)?;
    let listener = shared.bind("listen.control", address, CONNECTIONS).await?;
    Ok(Some((listener, Protocol::Grpc(spoken), routes)))
}
