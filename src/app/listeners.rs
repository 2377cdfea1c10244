//! The sockets of the service, all bound before anything else is made: a start that
//! finds a port taken leaves no new store behind.

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc};

use super::{
    StartError,
    open_files::{Admitted, admitted},
};
use crate::{
    config::Config,
    telemetry::{Exposition, Metrics},
    transport::{Budget, Listener},
};

/// How many connections the admin listener serves at once if the limit of open files
/// allows it: some scrapers,
/// probes and people, with room for those that say nothing for ten seconds.
pub(super) const ADMIN_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// How many connections the control listener serves at once: some engineers and their
/// scripts.
pub(super) const CONTROL_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// The listeners of a configuration, bound, and what they share.
#[derive(Debug)]
pub struct Listeners {
    pub(super) grpc: Listener,
    pub(super) admin: Listener,
    pub(super) control: Option<Listener>,
    /// Where it has a listener of its own.
    pub(super) forward_auth: Option<Listener>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) exposition: Exposition,
    data_connections: NonZeroUsize,
}

impl Listeners {
    /// Binds them. Connections wait until the service runs. As many are admitted as a limit
    /// of `open_files` has room for; `None` is no limit.
    pub async fn bind(config: &Config, open_files: Option<u64>) -> Result<Self, StartError> {
        let Admitted { data, admin: of_admin } = admitted(config, open_files)?;
        let (metrics, exposition) = Metrics::new()?;
        let budget = Budget::new(config.grpc.max_held_bytes.get());
        let shown = Arc::clone(&budget);
        metrics.observe_connection_bytes(move || shown.held());
        let bind = async |key, address: SocketAddr, max_connections| {
            let (budget, metrics) = (Arc::clone(&budget), Arc::clone(&metrics));
            let bound = Listener::bind(address, max_connections, budget, metrics).await;
            bound.map_err(|error| StartError::Bind { key, address, error })
        };
        let listen = &config.listen;
        let grpc = bind("listen.grpc", listen.grpc, data).await?;
        let admin = bind("listen.admin", listen.admin, of_admin).await?;
        let control = match listen.control {
            Some(address) => Some(bind("listen.control", address, CONTROL_CONNECTIONS).await?),
            None => None,
        };
        let forward_auth = match listen.forward_auth {
            Some(address) => Some(bind("listen.forward_auth", address, data).await?),
            None => None,
        };
        let data_connections = data;
        Ok(Self { grpc, admin, control, forward_auth, metrics, exposition, data_connections })
    }

    /// How many connections the data listener admits, and that of forward-auth as well:
    /// `grpc.max_connections`, or fewer where the limit of open files has no room for them.
    #[must_use]
    pub fn data_connections(&self) -> NonZeroUsize {
        self.data_connections
    }
}
