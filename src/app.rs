//! The composition root: the only file that names every concrete type and the
//! order of the tiers. What is built here runs until it is told to stop.

mod open;
mod probe;

use std::{io, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use axum::Router;
use tokio_util::sync::CancellationToken;

pub use open::{OpenError, Opened, open_ring, open_store, open_store_alone};

use crate::{
    cache::{Cached, Memory},
    check::Checker,
    config::Config,
    feed::Feed,
    fill::Fill,
    guard::Guarded,
    ladder::Ladder,
    store::AnyStore,
    tasks::Tasks,
    telemetry::{Metrics, MetricsError},
    time::Clock,
    transport::{
        AdminState, Admission, DrainConfig, Health, Listener, Protocol, ReflectionError,
        admin_routes, routes,
    },
    usage::{UseWriter, use_log},
};

/// How long before the hard limit whatever still waits is told that it will not
/// be answered: enough to write the answers out.
const CUT_OFF_BEFORE_END: Duration = Duration::from_millis(250);

/// How long background work may take to end when all requests have ended: a
/// last batch of uses, within the store's own time-outs.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(2);

/// How many connections the admin listener serves at once: some scrapers,
/// probes and people, with room for those that say nothing for ten seconds.
const ADMIN_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// The service, built and bound, but not yet running.
#[derive(Debug)]
pub struct App {
    grpc: (Listener, Protocol, Router),
    admin: (Listener, Protocol, Router),
    background: Background,
    drain: DrainConfig,
    stops: Stops,
}

/// What runs behind the requests.
#[derive(Debug)]
struct Background {
    ladder: Ladder,
    health: Health,
    probe: probe::Probe<AnyStore>,
    feed: Feed<AnyStore>,
    uses: UseWriter<AnyStore>,
    tasks: Tasks,
}

/// The moments of stopping, in their order.
#[derive(Debug, Default)]
struct Stops {
    /// Connections are asked to end.
    goodbye: CancellationToken,
    /// Whatever still waits is told that it will not be answered.
    cut_off: CancellationToken,
    /// No more uses are noted, and the admin listener closes.
    last: CancellationToken,
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// First be `NOT_SERVING` for `drain.delay`, so that callers notice.
    AfterDelay,
    /// Without that delay.
    AtOnce,
}

/// The service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store or the secrets cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A listener cannot be bound.
    #[error("cannot listen on {address} ({key}): {error}; {remedy}", remedy = bind_remedy(error))]
    Bind {
        /// The configuration key.
        key: &'static str,
        /// The address that was asked for.
        address: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
    /// The metrics cannot be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The descriptors of the services cannot be read.
    #[error(transparent)]
    Reflection(#[from] ReflectionError),
}

fn bind_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop the program that uses the port, or choose another",
        io::ErrorKind::PermissionDenied => "choose a port above 1023, or give the right to bind it",
        _ => "choose an address of this machine",
    }
}

impl App {
    /// Builds everything and binds the listeners. The store may be down.
    pub async fn build(config: &Config, opened: Opened, clock: Clock) -> Result<Self, StartError> {
        let (metrics, exposition) = Metrics::new()?;
        let Opened { store, ring, tasks } = opened;
        let stops = Stops::default();
        let ladder = Ladder::new(clock.clone());

        // The tiers, from the store up.
        let store = Arc::new(Guarded::new(store, config.store.guard, Arc::clone(&metrics)));
        let memory = Arc::new(Memory::new(config.cache, clock.clone()));
        let fill = Fill::new(
            config.fill,
            config.check.timeout,
            Arc::clone(&memory),
            Arc::clone(&store),
            tasks.clone(),
            clock.clone(),
        );
        let cached = Cached::new(Arc::clone(&memory), Arc::clone(&metrics), fill.clone());
        let checker = Checker::new(ring, cached, clock.clone());
        let (use_log, uses) = use_log(Arc::clone(&store), clock.clone());
        let cut_off = stops.cut_off.clone();
        let admission = Admission::new(checker, use_log, config.check, cut_off, clock.clone());
        metrics.observe_cache_entries(move || memory.len());
        metrics.observe_ladder(ladder.clone());

        // What runs behind them.
        let (probe_every, poll_every) = (config.store.probe_every, config.feed.poll_every);
        let probe =
            probe::Probe::new(Arc::clone(&store), ladder.clone(), probe_every, clock.clone());
        let feed = Feed::new(store, fill, poll_every, ladder.clone(), clock.clone());
        let health = Health::new(ladder.clone(), tasks.clone()).await;

        // The surfaces.
        let routes = routes(admission, metrics, &health, config.grpc, clock.clone())?;
        let grpc = bind("listen.grpc", config.listen.grpc, config.grpc.max_connections).await?;
        let admin = bind("listen.admin", config.listen.admin, ADMIN_CONNECTIONS).await?;
        let state = AdminState { ladder: ladder.clone(), exposition, tasks: tasks.clone(), clock };
        Ok(Self {
            grpc: (grpc, Protocol::Grpc(config.grpc), routes),
            admin: (admin, Protocol::Http1, admin_routes(state)),
            background: Background { ladder, health, probe, feed, uses, tasks },
            drain: config.drain,
            stops,
        })
    }

    /// Where the data listener listens.
    pub fn grpc_addr(&self) -> io::Result<SocketAddr> {
        self.grpc.0.local_addr()
    }

    /// Where the admin listener listens.
    pub fn admin_addr(&self) -> io::Result<SocketAddr> {
        self.admin.0.local_addr()
    }

    /// Serves until `stop` is ready, then drains. Ends after `drain.timeout`
    /// and a moment for background work at the latest.
    pub async fn run(self, stop: impl Future<Output = Stop>) {
        let Self { grpc, admin, background, drain, stops } = self;
        let Background { ladder, health, probe, feed, uses, tasks } = background;
        let (calls, visits) = (Tasks::default(), Tasks::default());

        tasks.spawn_until_stopped("health", health.follow(stops.goodbye.clone()));
        tasks.spawn_until_stopped("probe", probe.run());
        tasks.spawn_until_stopped("feed", feed.follow());
        tasks.spawn("uses", uses.run(stops.last.clone()));
        let (listener, protocol, routes) = admin;
        let serving = listener.serve(protocol, routes, visits.clone(), stops.last.clone());
        visits.spawn("admin", serving);
        let (listener, protocol, routes) = grpc;
        let serving = listener.serve(protocol, routes, calls.clone(), stops.goodbye.clone());
        calls.spawn("grpc", serving);

        let stop = stop.await;
        ladder.drain();
        let delay = match stop {
            Stop::AfterDelay => drain.delay,
            Stop::AtOnce => Duration::ZERO,
        };
        tokio::time::sleep(delay).await;
        finish(&calls, &stops, drain.timeout.saturating_sub(delay)).await;
        stops.last.cancel();
        let (no_tasks, no_visits) =
            tokio::join!(tasks.stop(BACKGROUND_LIMIT), visits.stop(BACKGROUND_LIMIT));
        if !(no_tasks && no_visits) {
            tracing::warn!("background work was still going on at the end");
        }
    }
}

/// Lets calls end, and says so to those that cannot.
async fn finish(calls: &Tasks, stops: &Stops, limit: Duration) {
    stops.goodbye.cancel();
    let cut_off_for = CUT_OFF_BEFORE_END.min(limit / 2);
    if calls.stop(limit.saturating_sub(cut_off_for)).await {
        return;
    }
    stops.cut_off.cancel();
    if !calls.stop(cut_off_for).await {
        tracing::warn!("connections were cut at the hard limit of the drain");
    }
}

async fn bind(
    key: &'static str,
    address: SocketAddr,
    max_connections: NonZeroUsize,
) -> Result<Listener, StartError> {
    Listener::bind(address, max_connections).await.map_err(|error| StartError::Bind {
        key,
        address,
        error,
    })
}
