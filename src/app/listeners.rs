//! The listeners as a list: bound before anything else is made, so that a start that finds a
//! port taken leaves no new store behind, and served when all is built.

use std::{fmt, net::SocketAddr, num::NonZeroUsize, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use tokio_util::sync::CancellationToken;

use super::{
    StartError,
    open_files::{Admitted, admitted},
};
use crate::{
    config::Config,
    tasks::Tasks,
    telemetry::{Exposition, Metrics},
    transport::{Budget, ListenConfig, Listener, Protocol, Serves, Workers},
};

/// How many connections the admin listener serves at once if the limit of open files
/// allows it: some scrapers, probes and people, with room for those that say nothing for ten
/// seconds.
pub(super) const ADMIN_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// How many connections the control listener serves at once: some engineers and their
/// scripts.
pub(super) const CONTROL_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Checks over gRPC and for Envoy.
    Grpc,
    /// Metrics, probes and status.
    Admin,
    /// Diagnostics.
    Control,
    /// Forward-auth on a listener of its own.
    ForwardAuth,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Grpc, Self::Admin, Self::Control, Self::ForwardAuth];

    /// The setting that has its address.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Grpc => "listen.grpc",
            Self::Admin => "listen.admin",
            Self::Control => "listen.control",
            Self::ForwardAuth => "listen.forward_auth",
        }
    }

    const fn address(self, listen: &ListenConfig) -> Option<SocketAddr> {
        match self {
            Self::Grpc => Some(listen.grpc),
            Self::Admin => Some(listen.admin),
            Self::Control => listen.control,
            Self::ForwardAuth => listen.forward_auth,
        }
    }
}

/// A bound listener.
#[derive(Debug)]
pub(super) struct Bound {
    role: Role,
    address: SocketAddr,
    listener: Listener,
}

/// The listeners of a configuration, bound, and what they share.
#[derive(Debug)]
pub struct Listeners {
    pub(super) bound: Vec<Bound>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) exposition: Exposition,
    data_connections: NonZeroUsize,
}

impl Listeners {
    /// Binds them. Connections wait until the service runs. As many are admitted as a limit
    /// of `open_files` has room for; `None` is no limit.
    pub async fn bind(config: &Config, open_files: Option<u64>) -> Result<Self, StartError> {
        let Admitted { data, admin } = admitted(config, open_files)?;
        let (metrics, exposition) = Metrics::new()?;
        let budget = Budget::new(config.grpc.max_held_bytes.get());
        let shown = Arc::clone(&budget);
        metrics.observe_connection_bytes(move || shown.held());
        let mut bound = Vec::new();
        for role in Role::ALL {
            let Some(address) = role.address(&config.listen) else { continue };
            let max_connections = match role {
                Role::Grpc | Role::ForwardAuth => data,
                Role::Admin => admin,
                Role::Control => CONTROL_CONNECTIONS,
            };
            let failed = |error| StartError::Bind { key: role.key(), address, error };
            let (budget, metrics) = (Arc::clone(&budget), Arc::clone(&metrics));
            let listener = Listener::bind(address, max_connections, budget, metrics).await;
            let listener = listener.map_err(failed)?;
            // The port that was found for port 0.
            let address = listener.local_addr().map_err(failed)?;
            bound.push(Bound { role, address, listener });
        }
        Ok(Self { bound, metrics, exposition, data_connections: data })
    }

    /// How many connections the data listener admits, and that of forward-auth as well:
    /// `grpc.max_connections`, or fewer where the limit of open files has no room for them.
    #[must_use]
    pub fn data_connections(&self) -> NonZeroUsize {
        self.data_connections
    }

    /// Whether there is a listener for it.
    pub(super) fn has(&self, role: Role) -> bool {
        self.bound.iter().any(|bound| bound.role == role)
    }

    /// Takes the listener, and serves `service` on it later.
    pub(super) fn serve(
        &mut self,
        role: Role,
        protocol: Protocol,
        service: impl Serves,
    ) -> Option<Served> {
        let at = self.bound.iter().position(|bound| bound.role == role)?;
        let Bound { address, listener, .. } = self.bound.swap_remove(at);
        let serve = move |workers, connections, draining| {
            listener.serve(protocol, service, workers, connections, draining).boxed()
        };
        Some(Served { role, address, serve: Box::new(serve) })
    }
}

type Serve = dyn FnOnce(Workers, Tasks, CancellationToken) -> BoxFuture<'static, ()> + Send;

/// A listener with what is served on it.
pub(super) struct Served {
    pub(super) role: Role,
    pub(super) address: SocketAddr,
    serve: Box<Serve>,
}

impl Served {
    /// Spawns the task of the listener among those of its connections.
    pub(super) fn spawn(
        self,
        workers: &Workers,
        connections: &Tasks,
        draining: &CancellationToken,
    ) {
        let serve = (self.serve)(workers.clone(), connections.clone(), draining.clone());
        connections.spawn(self.role.key(), serve);
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served")
            .field("role", &self.role)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
