//! The composition root: only this module names every concrete type, and `app::tiers`
//! defines the order of the tiers. What is built here runs until it is stopped.

mod control;
mod listeners;
mod open;
mod open_files;
mod probe;
mod secrets;
mod snapshot;
mod tiers;

use std::{io, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use axum::Router;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tower::util::MapFutureLayer;

pub use listeners::{Listeners, Role};
pub use open::{
    OpenError, Opened, open_ring, open_store, open_store_alone, verify_embedded_secret,
    verify_secrets,
};

use self::{listeners::Served, probe::Probe, secrets::Secrets, tiers::Tiers};
use crate::{
    check::Checker,
    config::Config,
    feed::Feed,
    instance::Instance,
    snapshot::Writer,
    store::AnyStore,
    tasks::Tasks,
    telemetry::MetricsError,
    time::Clock,
    transport::{
        AdminState, Admission, DataConfig, DataService, DrainConfig, Health, Protocol, Scrapes,
        Workers, admin_routes, auth_routes,
    },
    usage::{UseWriter, use_log},
};

/// How long before the hard limit of a drain waiting checks are answered `DRAINING`:
/// enough to write those responses.
const CUT_OFF_BEFORE_END: Duration = Duration::from_millis(250);

/// Time limit for background work after all requests have ended: enough for a last
/// batch of uses, within the store's own time-outs.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(2);

/// Time limit for the last snapshot. A million entries take about three seconds; an
/// unfinished snapshot leaves the previous one in place.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(5);

/// The service, built and bound, but not yet running.
#[derive(Debug)]
pub struct App {
    served: Vec<Served>,
    /// Forward-auth requests in progress on the admin listener.
    auth_requests: Tasks,
    /// Threads that serve checks.
    workers: Workers,
    /// The thread that serves the admin and the control listener.
    admin_workers: Workers,
    background: Background,
    drain: DrainConfig,
    stops: Stops,
}

/// Background work.
#[derive(Debug)]
struct Background {
    instance: Instance,
    health: Health,
    probe: Probe<AnyStore>,
    feed: Feed<AnyStore>,
    uses: UseWriter<AnyStore>,
    snapshot: Option<Writer>,
    tasks: Tasks,
}

/// The stages of a shutdown, in order.
#[derive(Debug, Default)]
struct Stops {
    /// Connections start to close.
    draining: CancellationToken,
    /// Checks that still wait are answered `DRAINING`.
    cut_off: CancellationToken,
    /// Uses are no longer recorded, the last snapshot is written, and the admin
    /// listener closes.
    last: CancellationToken,
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Be `NOT_SERVING` for `drain.delay` first, so that callers notice.
    AfterDelay,
    /// Skip that delay.
    AtOnce,
}

/// The service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store or the secrets cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The limit of open files is too low.
    #[error(
        "the limit of open files is {limit}, and at least {needed} are needed; raise the hard limit \
         (`ulimit -Hn`, `LimitNOFILE=` of systemd, `--ulimit nofile=` of Docker)"
    )]
    OpenFiles {
        /// The current limit.
        limit: u64,
        /// The lowest sufficient limit.
        needed: usize,
    },
    /// A listener cannot be bound.
    #[error("cannot listen on {address} ({key}): {error}; {remedy}", remedy = bind_remedy(error))]
    Bind {
        /// The configuration key.
        key: &'static str,
        /// The configured address.
        address: SocketAddr,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The serving threads cannot be started.
    #[error("cannot start the threads of `grpc.workers`: {0}; is the limit of processes too low?")]
    Workers(io::Error),
    /// The metrics cannot be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The descriptors of the services cannot be read.
    #[error("reflection cannot be set up: {0}")]
    Reflection(#[from] prost::DecodeError),
}

fn bind_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop the program that uses the port, or choose another",
        io::ErrorKind::PermissionDenied => "choose a port above 1023, or give the right to bind it",
        _ => "choose an address of this machine",
    }
}

impl App {
    /// Builds everything behind the listeners. The store may be down.
    pub async fn build(
        config: &Config,
        mut listeners: Listeners,
        opened: Opened,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let metrics = Arc::clone(&listeners.metrics);
        let Opened { store, ring, tasks } = opened;
        let stops = Stops::default();
        let instance = Instance::new(clock.clone());

        let tiers =
            Tiers::on(store, &ring, config, tasks.clone(), Arc::clone(&metrics), clock.clone())
                .await;
        if tiers.is_warm() {
            instance.begin_warm();
        }
        let retired = &config.keys.retired_secrets;
        let mut secrets =
            Secrets::new(&ring, retired, tiers.is_warm(), instance.clone(), clock.clone());
        let missing = secrets.at_start(&tiers.store).await;
        if !missing.is_empty() {
            return Err(OpenError::SecretUnknown(missing).into());
        }
        tiers.show(&instance);
        instance.observe(&metrics);

        // The callers of the tiers.
        let looked = tiers.looked(ring.clone(), config);
        let checker = Checker::new(ring, tiers.cached(config), clock.clone());
        let (use_log, uses) = use_log(Arc::clone(&tiers.store), clock.clone());
        let cut_off = stops.cut_off.clone();
        let admission = Admission::new(checker, use_log, config.check, cut_off);

        // Background work.
        let breaker = tiers.store.breaker();
        let probe = Probe::new(
            tiers.fill.clone(),
            secrets,
            instance.clone(),
            Arc::clone(&tiers.warmth),
            Arc::clone(&tiers.coverage),
            config.store.probe_every,
            clock.clone(),
        );
        let (feed, snapshot) = tiers.into_feed(config, instance.clone());
        let health = Health::new(instance.clone(), tasks.clone());

        // The surfaces.
        let mut served = Vec::new();
        if listeners.has(Role::Control) {
            let admitted = Arc::clone(&admission);
            let (protocol, routes) =
                control::open(config, looked, admitted, &metrics, &stops, &tasks)?;
            served.extend(listeners.serve(Role::Control, protocol, routes));
        }
        let (admitted, sources) = (Arc::clone(&admission), config.credential.sources.clone());
        let auth = auth_routes(admitted, &metrics, sources, config.forward_auth, clock.clone());
        let data =
            DataService::new(admission, &metrics, &health, data_config(config), clock.clone())?;
        let (http1, auth_requests) = (Protocol::http1(&config.grpc), Tasks::here());
        let (auth, admin_auth) = if listeners.has(Role::ForwardAuth) {
            (auth, Router::new())
        } else {
            (Router::new(), tracked(auth, &auth_requests))
        };
        served.extend(listeners.serve(Role::ForwardAuth, http1, auth));
        served.extend(listeners.serve(Role::Grpc, Protocol::Grpc(config.grpc), data));
        let scrapes = Scrapes::of(listeners.exposition.clone());
        let state = AdminState {
            instance: instance.clone(),
            breaker,
            scrapes,
            tasks: tasks.clone(),
            clock,
        };
        served.extend(listeners.serve(Role::Admin, http1, admin_routes(state).merge(admin_auth)));
        Ok(Self {
            served,
            auth_requests,
            workers: start("serve", config.grpc.workers())?,
            admin_workers: start("admin", NonZeroUsize::MIN)?,
            background: Background { instance, health, probe, feed, uses, snapshot, tasks },
            drain: config.drain,
            stops,
        })
    }

    /// The address of a listener, if it is enabled.
    #[must_use]
    pub fn address(&self, role: Role) -> Option<SocketAddr> {
        self.served.iter().find(|served| served.role == role).map(|served| served.address)
    }

    /// Serves until `stop` completes, then drains. Returns after `drain.timeout` and a
    /// short limit for background work at the latest.
    pub async fn run(self, stop: impl Future<Output = Stop>) {
        let Self { served, auth_requests, workers, admin_workers, background, drain, stops } = self;
        let Background { instance, health, probe, feed, uses, snapshot, tasks } = background;
        let (calls, admin_requests, snapshots) = (Tasks::here(), Tasks::here(), Tasks::here());

        tasks.spawn_until_stopped("health", health.follow(stops.draining.clone()));
        tasks.spawn_until_stopped("probe", probe.run());
        tasks.spawn_until_stopped("feed", feed.follow());
        tasks.spawn("uses", uses.run(stops.last.clone()));
        if let Some(snapshot) = snapshot {
            snapshots.spawn("snapshot", snapshot.run(stops.last.clone()));
        }
        for served in served {
            match served.role {
                Role::Grpc | Role::ForwardAuth => served.spawn(&workers, &calls, &stops.draining),
                Role::Control => served.spawn(&admin_workers, &calls, &stops.draining),
                Role::Admin => served.spawn(&admin_workers, &admin_requests, &stops.last),
            }
        }

        let stop = stop.await;
        instance.drain();
        let delay = match stop {
            Stop::AfterDelay => drain.delay,
            Stop::AtOnce => Duration::ZERO,
        };
        let end = Instant::now() + drain.timeout;
        sleep(delay).await;
        stops.draining.cancel();
        finish(&calls, &stops, end).await;
        stops.last.cancel();
        finish(&auth_requests, &stops, end.max(Instant::now() + BACKGROUND_LIMIT)).await;
        let (admin_done, tasks_done, snapshot_done) = tokio::join!(
            admin_requests.stop(BACKGROUND_LIMIT),
            tasks.stop(BACKGROUND_LIMIT),
            snapshots.stop(SNAPSHOT_LIMIT),
        );
        if !admin_done {
            tracing::warn!("connections to the admin listener were cut at the end of the drain");
        }
        if !tasks_done {
            tracing::warn!("background work did not finish before the end of the drain");
        }
        if !snapshot_done {
            tracing::warn!("the last snapshot timed out; the previous one is kept");
        }
    }
}

fn start(name: &str, count: NonZeroUsize) -> Result<Workers, StartError> {
    Workers::start(name, count).map_err(StartError::Workers)
}

fn data_config(config: &Config) -> DataConfig {
    DataConfig {
        grpc: config.grpc,
        sources: config.credential.sources.clone(),
        ext_authz: config.ext_authz,
    }
}

/// Tracks the requests of `routes` in `auth_requests`: the drain waits longer for them than for
/// other requests to the admin listener.
fn tracked(routes: Router, auth_requests: &Tasks) -> Router {
    let auth_requests = auth_requests.clone();
    routes.route_layer(MapFutureLayer::new(move |response| auth_requests.track(response)))
}

/// Waits until `end` for calls to finish; shortly before, cuts off those that wait.
async fn finish(calls: &Tasks, stops: &Stops, end: Instant) {
    let limit = end.saturating_duration_since(Instant::now());
    let cut_off_for = CUT_OFF_BEFORE_END.min(limit / 2);
    if calls.stop(limit.saturating_sub(cut_off_for)).await {
        return;
    }
    stops.cut_off.cancel();
    if !calls.stop(cut_off_for).await {
        tracing::warn!("connections were cut at the hard limit of the drain");
    }
}
