//! What can happen to a database, done for real.

use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use super::site::Site;
use crate::harness::{
    DEADLINE, beside, eventually,
    observer::Terminator,
    postgres::{Postgres, rows},
    proxy::Conduct,
};

/// What a fault holds on to until it ends.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connections that others have.
    Crowd { _clients: Vec<Client> },
    /// Who ends connections.
    Terminator(Terminator),
}

/// Interval between terminations of connections.
const TERMINATED_EVERY: Duration = Duration::from_millis(50);

/// A fault that lasts until it is mended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// SIGKILL to the server and all its processes.
    Killed,
    /// SIGSTOP to the same.
    Stopped,
    /// The network does something to its connections.
    Network(Conduct),
    /// The table is not there under its name.
    TableRenamed,
    /// The role of the service may not read.
    RightsRevoked,
    /// Others have all the connections that the server gives out.
    Crowded,
    /// The database is not there under its name.
    DatabaseRenamed,
    /// The server ends all connections of the service, repeatedly.
    Terminated,
    /// Its owner has truncated the table, which no change says. Mended, the keys
    /// are back, as from a backup, which no change says either.
    Emptied,
    /// SIGKILL to the primary of two; mended by promoting the standby.
    PrimaryKilled,
    /// SIGSTOP to the primary of two, which is still reached and says nothing;
    /// mended by promoting the standby.
    PrimaryStopped,
}

impl Fault {
    /// The network in between takes this long, which is longer than a query may.
    pub(super) const SLOW: Self = Self::Network(Conduct::Delay(Duration::from_millis(400)));

    /// The reason and the cause that a caller receives.
    pub(super) fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::Killed
            | Self::Terminated
            | Self::PrimaryKilled
            | Self::Network(Conduct::Refuse | Conduct::Reset) => {
                ("STORE_UNREACHABLE", "unreachable")
            }
            Self::Emptied => ("STORE_SUSPECT", "suspect"),
            Self::Stopped
            | Self::PrimaryStopped
            | Self::Network(Conduct::Swallow | Conduct::Delay(_)) => ("STORE_TIMEOUT", "timeout"),
            Self::TableRenamed | Self::DatabaseRenamed => ("STORE_UNREACHABLE", "schema"),
            Self::RightsRevoked => ("STORE_UNREACHABLE", "forbidden"),
            Self::Crowded => ("STORE_SATURATED", "saturated"),
            Self::Network(Conduct::Forward) => unreachable!("that is no fault"),
        }
    }

    /// Whether the store is silent during the fault.
    pub(super) const fn silences(self) -> bool {
        !matches!(self, Self::Terminated)
    }

    /// How long a query may take in a test of this fault: as by default where
    /// that time runs out, longer where the server answers, so that a busy
    /// machine does not make a time-out of it.
    pub(super) fn query_timeout(self) -> Duration {
        match self.row() {
            (_, "timeout") => Duration::from_millis(100),
            _ => Duration::from_secs(5),
        }
    }

    pub(super) async fn strike(self, site: &mut Site) {
        match self {
            Self::Killed | Self::PrimaryKilled => site.server.postgres.kill(),
            Self::Stopped | Self::PrimaryStopped => site.postgres().stop_all(),
            Self::Network(conduct) => site.proxy.set(conduct),
            Self::TableRenamed => {
                sql(site, "ALTER TABLE keystead.api_keys RENAME TO elsewhere").await;
            }
            Self::RightsRevoked => {
                sql(site, "REVOKE ALL ON keystead.api_keys FROM keystead").await;
            }
            Self::Crowded => site.broken = Some(crowd(site).await),
            Self::DatabaseRenamed => rename_database(site.postgres()).await,
            Self::Terminated => {
                let terminator = Terminator::start(site.postgres(), TERMINATED_EVERY).await;
                site.broken = Some(Broken::Terminator(terminator));
            }
            Self::Emptied => empty(site).await,
        }
    }

    pub(super) async fn mend(self, site: &mut Site) {
        match self {
            Self::Killed => site.server.postgres.start().await,
            Self::Stopped => site.postgres().cont_all(),
            Self::Network(_) => site.proxy.set(Conduct::Forward),
            Self::TableRenamed => {
                sql(site, "ALTER TABLE keystead.elsewhere RENAME TO api_keys").await;
            }
            Self::RightsRevoked => sql(site, "GRANT ALL ON keystead.api_keys TO keystead").await,
            Self::Crowded => drop(site.broken.take()),
            Self::DatabaseRenamed => {
                let client = elsewhere(site.postgres()).await;
                rows(&client, "ALTER DATABASE elsewhere RENAME TO keystead").await;
                rows(&client, "ALTER DATABASE keystead ALLOW_CONNECTIONS true").await;
            }
            Self::Terminated => {
                if let Some(Broken::Terminator(terminator)) = site.broken.take() {
                    assert_ne!(terminator.stop().await, 0, "it had nothing to end");
                }
            }
            Self::Emptied => fill_again(site).await,
            Self::PrimaryKilled | Self::PrimaryStopped => site.standby().promote().await,
        }
    }
}

async fn sql(site: &Site, statement: &str) {
    site.postgres().sql(statement).await;
}

async fn empty(site: &Site) {
    sql(site, "CREATE TABLE keystead.aside AS TABLE keystead.api_keys").await;
    sql(site, "SET ROLE keystead; TRUNCATE keystead.api_keys").await;
}

/// Without the triggers, as a backup is restored.
async fn fill_again(site: &Site) {
    let statements = "SET session_replication_role = replica; \
                      INSERT INTO keystead.api_keys TABLE keystead.aside";
    sql(site, statements).await;
}

/// Takes all connections while the service is cut off, so that it cannot get
/// one of them back.
async fn crowd(site: &Site) -> Broken {
    site.proxy.set(Conduct::Refuse);
    eventually("the service has no connection left", async || {
        site.postgres().backends().await.is_empty().then_some(())
    })
    .await;
    let crowd = site.postgres().use_up_connections().await;
    site.proxy.set(Conduct::Forward);
    Broken::Crowd { _clients: crowd }
}

/// A superuser in another database of the same server.
async fn elsewhere(postgres: &Postgres) -> Client {
    let connecting = tokio_postgres::Config::new()
        .host_path(postgres.home())
        .port(postgres.port())
        .user("postgres")
        .dbname("template1")
        .connect_timeout(DEADLINE)
        .connect(NoTls)
        .await;
    let (client, connection) = connecting.unwrap();
    beside(connection);
    client
}

async fn rename_database(postgres: &Postgres) {
    let client = elsewhere(postgres).await;
    rows(&client, "ALTER DATABASE keystead ALLOW_CONNECTIONS false").await;
    let end_all = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
                   WHERE datname = 'keystead'";
    rows(&client, end_all).await;
    rows(&client, "ALTER DATABASE keystead RENAME TO elsewhere").await;
}
