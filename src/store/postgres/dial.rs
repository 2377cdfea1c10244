//! Connection settings, for the pool and for the follower of the changes.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_postgres::{Client, Config, Connection, Socket, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    PostgresConfig, PostgresConfigError, error, hosts, statement_timeout, tls, url,
    witness::{IDENTIFY, Server},
};
use crate::store::{StoreError, StoreErrorKind};

/// Idle time before TCP keepalive probes start. Well below the five minutes after which common
/// firewalls and load balancers drop idle connections.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// Interval between keepalive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum unanswered probes. A silent server is given up after 30 + 3 × 5 = 45 s, unless
/// `tcp_user_timeout` ends it earlier.
const KEEPALIVE_RETRIES: u32 = 3;

/// Makes connections.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) driver: Config,
    pub(super) connector: MakeRustlsConnect,
    /// Time-out per host while there is another.
    pub(super) host_limit: Duration,
    /// Time-out of making a connection, with its first statement.
    pub(super) limit: Duration,
    /// Maximum silence of a live server: the TCP user time-out, and at least the query
    /// time-out.
    pub(super) silence: Duration,
    /// First statements on every connection: a setting and the identity query. `None` behind
    /// PgBouncer in transaction mode, where the setting would leak to other clients; there,
    /// each transaction sets its own.
    pub(super) opening: Option<Arc<str>>,
}

/// The half of a connection that must be polled.
pub(super) type Driven = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

impl Dialer {
    /// Parses the URL and reads its certificates; does no network I/O.
    pub(super) fn new(config: &PostgresConfig, text: &str) -> Result<Self, PostgresConfigError> {
        let url::Target { mut driver, verification } = url::read(text)?;
        prepare(&mut driver, config);
        let connector = tls::connector(&verification)?;
        // Every host but the last may use up the connect time-out. Bounds name resolution, TCP,
        // TLS, authentication and the first statement together.
        let hosts = driver.get_hosts().len().max(driver.get_hostaddrs().len());
        let limit = config.connect_timeout * u32::try_from(hosts).unwrap_or(u32::MAX);
        let opening = config.prepared_statements.then(|| limits_statements(config.query_timeout));
        let host_limit = config.connect_timeout;
        let silence = config.tcp_user_timeout.max(config.query_timeout);
        Ok(Self { driver, connector, host_limit, limit, silence, opening })
    }

    /// Connects outside the pool and identifies the server. `drive` starts polling the
    /// connection.
    pub(super) async fn dial(
        &self,
        remedy: &str,
        drive: impl FnOnce(Driven),
    ) -> Result<(Client, Server), StoreError> {
        let dialling = async {
            let connect = |host: Config| {
                let connector = self.connector.clone();
                async move { host.connect(connector).await }
            };
            let hosts = hosts::in_order(&self.driver);
            let (client, connection) = hosts::first_of(hosts, self.host_limit, connect).await?;
            drive(connection);
            let opening = self.opening.as_deref().unwrap_or(IDENTIFY);
            let said = client.simple_query(opening).await?;
            Ok((client, said))
        };
        let made = timeout(self.limit, dialling).await.map_err(|_| {
            StoreError::new(StoreErrorKind::Unreachable, "no connection within the time-out")
        })?;
        let (client, said) = made.map_err(|reason| error::from_connecting(&reason, remedy))?;
        let server = Server::read(&said)?;
        Ok((client, server))
    }
}

fn prepare(driver: &mut Config, config: &PostgresConfig) {
    driver
        // Bounds TCP connection to each address, so that a dead first host leaves time for the
        // second.
        .connect_timeout(config.connect_timeout)
        .tcp_user_timeout(config.tcp_user_timeout)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES);
    if driver.get_application_name().is_none() {
        driver.application_name("keystead");
    }
}

/// Sets the server-side time-out of lookups and identifies the server. A statement, as
/// PgBouncer refuses the setting as a start-up parameter.
fn limits_statements(query_timeout: Duration) -> Arc<str> {
    let limit = statement_timeout(query_timeout).as_millis();
    format!("SET statement_timeout = {limit}; {IDENTIFY}").into()
}
