//! Several hosts in one URL: tried in turn, with a time-out for each.

use std::time::Duration;

use deadpool_postgres::{ConfigConnectImpl, Connect};
use futures::future::BoxFuture;
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{
    Client, Config, Error,
    config::{Host, LoadBalanceHosts},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Makes connections for the pool with [`first_of`].
pub(super) struct EachHost {
    single: ConfigConnectImpl<MakeRustlsConnect>,
    limit: Duration,
}

impl EachHost {
    /// `limit` is the time-out per host while there is another.
    pub(super) const fn new(tls: MakeRustlsConnect, limit: Duration) -> Self {
        Self { single: ConfigConnectImpl { tls }, limit }
    }
}

impl Connect for EachHost {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        let connect = move |host: Config| async move { self.single.connect(&host).await };
        Box::pin(first_of(in_order(config), self.limit, connect))
    }
}

/// Single-host configurations in the order of the URL or, with `load_balance_hosts=random`,
/// rotated to a random start.
pub(super) fn in_order(config: &Config) -> Vec<Config> {
    let mut hosts = each(config);
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random && !hosts.is_empty() {
        // Without randomness, keep the order.
        let drawn = getrandom::u32().unwrap_or_default() as usize;
        let first = drawn % hosts.len();
        hosts.rotate_left(first);
    }
    hosts
}

/// Tries hosts in turn. Returns the first connection, or the error of the last host.
///
/// The driver's time-out per host covers only the TCP connection. A host that accepts it and
/// stays silent, such as a hung primary, would use up the time for all hosts, and the promoted
/// standby would never be tried. Here `limit` covers TCP, TLS, authentication and the check
/// whether the host accepts writes. The caller bounds the last host.
pub(super) async fn first_of<T, F>(
    hosts: Vec<Config>,
    limit: Duration,
    connect: impl Fn(Config) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut hosts = hosts.into_iter().peekable();
    loop {
        // There is at least one; the driver reports an empty list itself.
        let connecting = connect(hosts.next().unwrap_or_default());
        if hosts.peek().is_none() {
            return connecting.await;
        }
        match timeout(limit, connecting).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => tracing::debug!(%error, "trying the next host"),
            Err(_) => tracing::debug!(?limit, "no answer; trying the next host"),
        }
    }
}

/// Splits a configuration into one per host.
fn each(config: &Config) -> Vec<Config> {
    let (hosts, addresses, ports) =
        (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let alone = |at: usize| {
        let mut one = without_hosts(config);
        match hosts.get(at) {
            Some(Host::Tcp(name)) => drop(one.host(name)),
            #[cfg(unix)]
            Some(Host::Unix(path)) => drop(one.host_path(path)),
            None => {}
        }
        if let Some(address) = addresses.get(at) {
            one.hostaddr(*address);
        }
        // A single port applies to all hosts.
        if let Some(port) = ports.get(at).or(ports.first()) {
            one.port(*port);
        }
        one
    };
    (0..hosts.len().max(addresses.len())).map(alone).collect()
}

/// Copies everything but hosts and ports, which cannot be removed from a configuration.
fn without_hosts(config: &Config) -> Config {
    let mut copy = Config::new();
    config.get_user().map(|user| copy.user(user));
    config.get_password().map(|password| copy.password(password));
    config.get_dbname().map(|name| copy.dbname(name));
    config.get_options().map(|options| copy.options(options));
    config.get_application_name().map(|name| copy.application_name(name));
    config.get_connect_timeout().map(|limit| copy.connect_timeout(*limit));
    config.get_tcp_user_timeout().map(|limit| copy.tcp_user_timeout(*limit));
    config.get_keepalives_interval().map(|interval| copy.keepalives_interval(interval));
    config.get_keepalives_retries().map(|retries| copy.keepalives_retries(retries));
    copy.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding())
        .load_balance_hosts(config.get_load_balance_hosts());
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every setting that the driver knows.
    const SETTINGS: &str = "?options=-cx.y%3Dz&application_name=a&sslmode=require\
        &sslnegotiation=direct&connect_timeout=3&tcp_user_timeout=4&keepalives=0\
        &keepalives_idle=5&keepalives_interval=6&keepalives_retries=7\
        &target_session_attrs=read-write&channel_binding=require&load_balance_hosts=random";

    fn parsed(hosts: &str) -> Config {
        format!("postgres://u:p@{hosts}/d{SETTINGS}").parse().unwrap()
    }

    #[test]
    fn each_host_keeps_its_port_and_every_other_setting() {
        let alone = each(&parsed("h1:1,%2Frun%2Fpg:2"));
        assert_eq!(alone, [parsed("h1:1"), parsed("%2Frun%2Fpg:2")]);
    }

    #[test]
    fn single_port_applies_to_all_hosts() {
        let both: Config = "host=h1,h2 port=6432 user=u".parse().unwrap();
        let [first, second] = ["h1", "h2"].map(|host| format!("host={host} port=6432 user=u"));
        assert_eq!(each(&both), [first.parse().unwrap(), second.parse().unwrap()]);
    }

    #[test]
    fn address_stays_with_its_host_name() {
        let both: Config = "host=h1,h2 hostaddr=192.0.2.1,192.0.2.2".parse().unwrap();
        let second: Config = "host=h2 hostaddr=192.0.2.2".parse().unwrap();
        assert_eq!(each(&both)[1], second);
        let unnamed: Config = "hostaddr=192.0.2.1,192.0.2.2".parse().unwrap();
        assert_eq!(each(&unnamed)[0], "hostaddr=192.0.2.1".parse().unwrap());
    }
}
