//! PostgreSQL: a table of our own or one that was brought along, directly or
//! through PgBouncer.

mod call;
mod canary;
mod connections;
mod dial;
mod error;
mod follower;
mod history;
mod hosts;
mod lookup;
mod migrate;
mod relation;
mod replay;
mod rows;
mod tls;
mod url;
mod verification;
mod witness;
mod write;

use std::{fmt, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::{Row, types::Type};

pub use self::follower::PostgresFollower;
use self::{
    call::Pace,
    connections::Connections,
    dial::Dialer,
    witness::{ANSWERING, Servers},
};
pub(crate) use self::{relation::Relation, url::place};
use super::{
    CanaryError, Changes, DataAge, History, KeyAdmin, Lookup, Lookups, Page, Provenance, SecretUse,
    StoreError, StoreErrorKind, StoredKey, Usage, WriteError,
};
use crate::{
    key::{Action, Digest, Fingerprint, KeyId, KeyRecord, NewKey, Successor},
    tasks::Tasks,
};

/// How to reach a database, and the bounds of reaching it.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database?sslmode=…`. `sslmode` and `sslrootcert` mean what they mean to
    /// libpq; without `sslrootcert` (or with `sslrootcert=system`), `verify-ca`
    /// and `verify-full` trust what the operating system trusts. A certificate
    /// that names no authority but itself cannot be its own root.
    pub url: SecretString,
    /// A table or view that is read instead of `keystead.api_keys`: `table` or
    /// `schema.table`, in double quotes where SQL needs them.
    pub relation: Option<String>,
    /// Whether statements are prepared once for each connection. Unset it behind
    /// PgBouncer in transaction mode: every call is then a transaction with
    /// unnamed statements, still in one round trip.
    pub prepared_statements: bool,
    /// How many connections there are at most, the one of a follower not counted.
    /// Made when they are needed.
    pub max_connections: NonZeroUsize,
    /// How long making a connection may take for each host in the URL: name
    /// resolution, TCP, TLS, authentication and the first statement. Not bound to the time of the
    /// call that wants it.
    pub connect_timeout: Duration,
    /// How long a lookup may take, once it has a connection. The server is told
    /// nine tenths of it, so that a statement that is merely slow ends there and
    /// its connection is kept.
    pub query_timeout: Duration,
    /// How long what was sent may stay unacknowledged before the kernel ends the
    /// connection. Bounds how long a connection to a vanished host lives on; a
    /// call that waits on it ends by `query_timeout` long before.
    pub tcp_user_timeout: Duration,
    /// How old a connection becomes, ±10 %, before another takes its place.
    pub max_connection_age: Duration,
    /// How old the data of a standby may be before nothing that it says is fresh.
    /// Who answers behind the name in the URL is asked every half of it.
    pub max_lag: Duration,
}

/// Keys in PostgreSQL.
///
/// With [`PostgresConfig::relation`] the keys are somebody else's: they are read
/// from that table or view, which offers the columns of `keystead.api_keys`
/// (NULL is read as empty where that makes sense). Changing a key is then
/// [`WriteError::ReadOnly`], there are no numbered changes to follow, and
/// [`Usage::touch`] does nothing.
///
/// Lookups, canaries and touches end within the connect time-out, while there is
/// no connection, and the query time-out. What people ask for (get, list, insert,
/// act) may take 30 s a statement, of which at most 10 s may be waiting for a lock,
/// migrating five minutes. What is cancelled while
/// the server works goes on there, until the statement's time-out has passed at the
/// latest; then its connection is closed, and what was not committed is undone.
pub struct PostgresStore {
    connections: Connections,
    dialer: Dialer,
    servers: Arc<Servers>,
    max_connection_age: Duration,
    max_lag: Duration,
    tasks: Tasks,
    query_timeout: Duration,
    prepared_statements: bool,
    relation: Option<Relation>,
    statements: Statements,
    remedy: Arc<str>,
}

/// A configuration that cannot be used. Shows nothing secret.
#[derive(Debug, thiserror::Error)]
pub enum PostgresConfigError {
    /// The URL cannot be read.
    #[error("`store.url` is no PostgreSQL URL (postgres://USER:PASSWORD@HOST/DATABASE): {0}")]
    Url(String),
    /// Not a known `sslmode`.
    #[error(
        "`sslmode` in `store.url` is disable, prefer, require, verify-ca or verify-full, not `{0}`"
    )]
    SslMode(String),
    /// The file of roots cannot be used.
    #[error("`sslrootcert` in `store.url` names {}, which cannot be used: {reason}", path.display())]
    RootCert {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The operating system trusts nobody.
    #[error(
        "no root certificates were found on this machine ({0}); name a file with `sslrootcert=…` \
         in `store.url`"
    )]
    NoSystemRoots(String),
    /// Not the name of a table.
    #[error("`store.relation` is `table` or `schema.table`, not `{0}`")]
    Relation(String),
    /// TLS or the pool refuse their settings.
    #[error("connections cannot be set up: {0}")]
    Setup(String),
}

impl PostgresConfigError {
    fn url(reason: impl Into<String>) -> Self {
        Self::Url(reason.into())
    }
}

/// The server's part of the query time-out: nine tenths, and at least a
/// millisecond, as 0 would mean no limit.
fn statement_timeout(query_timeout: Duration) -> Duration {
    (query_timeout * 9 / 10).max(Duration::from_millis(1))
}

impl PostgresStore {
    /// A store without a connection. Reads the root certificates that the URL
    /// names and does no other I/O: the server may be down.
    pub fn new(config: &PostgresConfig, tasks: Tasks) -> Result<Self, PostgresConfigError> {
        let parse = |text: &String| {
            Relation::parse(text).ok_or_else(|| PostgresConfigError::Relation(text.clone()))
        };
        let relation = config.relation.as_ref().map(parse).transpose()?;
        let remedy: Arc<str> = match &relation {
            None => "run `keystead migrate`".into(),
            Some(relation) => format!(
                "`store.relation` must name a table or view with the columns of \
                 keystead.api_keys, and is {relation}"
            )
            .into(),
        };
        let dialer = Dialer::new(config, config.url.expose_secret())?;
        let (again, max, age) = (dialer.clone(), config.max_connections, config.max_connection_age);
        let servers = Arc::new(Servers::new(config.max_lag));
        let told = Arc::clone(&remedy);
        Ok(Self {
            connections: Connections::new(again, max, &servers, age, told, tasks.clone())?,
            dialer,
            servers,
            max_connection_age: config.max_connection_age,
            max_lag: config.max_lag,
            tasks,
            query_timeout: config.query_timeout,
            prepared_statements: config.prepared_statements,
            statements: Statements::on(relation.as_ref()),
            relation,
            remedy,
        })
    }

    /// Brings the schema up to date; returns the names of the migrations that
    /// were applied, none if it was. Several may run at once, one of them works.
    ///
    /// Wants a role that owns the schema `keystead`, or that may create it.
    pub async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        migrate::run(self).await
    }

    /// Grants `role` what serving and changing keys need, on a schema that is up to
    /// date. Changes nothing where the role has it already.
    ///
    /// [`StoreErrorKind::Forbidden`] when there is no such role.
    pub async fn grant(&self, role: &str) -> Result<(), StoreError> {
        migrate::grant(self, role).await
    }

    /// A server that takes no changes may have been one that did: who answers behind
    /// the name is asked at once.
    fn doubt_after(&self, refused: &StoreError) {
        if refused.kind() == StoreErrorKind::Forbidden {
            self.servers.doubted.notify_waiters();
        }
    }

    /// Refuses to change keys that are not ours.
    fn writable(&self) -> Result<(), WriteError> {
        match &self.relation {
            None => Ok(()),
            Some(relation) => Err(WriteError::ReadOnly(relation.to_string())),
        }
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("relation", &self.relation)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// The reading statements, with the relation in them.
struct Statements {
    find: String,
    get: String,
    list: String,
    list_of_principal: String,
}

impl Statements {
    fn on(brought_along: Option<&Relation>) -> Self {
        let columns = rows::key_columns(brought_along.is_none());
        let relation = brought_along.cloned().unwrap_or_else(Relation::own);
        let select = format!("SELECT {columns} FROM {relation}");
        let page = r#"id::text COLLATE "C" > $1 ORDER BY id::text COLLATE "C" LIMIT $2"#;
        Self {
            // A row at least, so that an answer says whose it is even where there is no
            // key. The lookup comes first: what a server shows of its statements is cut.
            find: format!(
                "SELECT k.*, w.* FROM ({select} WHERE digest = ANY($1::bytea[])) AS k \
                 RIGHT JOIN (SELECT {ANSWERING}) AS w ON true"
            ),
            get: format!("{select} WHERE id::text = $1"),
            list: format!("{select} WHERE {page}"),
            list_of_principal: format!("{select} WHERE principal = $3 AND {page}"),
        }
    }
}

/// Locked in the order of their ids, so that two servers that note the same keys
/// do not wait for each other.
const TOUCH: &str = "\
    WITH used AS ( \
        SELECT id, max(at) AS at FROM unnest($1::text[], $2::timestamptz[]) AS u (id, at) \
        GROUP BY id \
    ), locked AS ( \
        SELECT k.id, used.at FROM keystead.api_keys AS k JOIN used USING (id) \
        WHERE k.last_used_at IS NULL OR k.last_used_at < used.at \
        ORDER BY k.id FOR NO KEY UPDATE OF k \
    ) \
    UPDATE keystead.api_keys AS k SET last_used_at = locked.at FROM locked \
    WHERE k.id = locked.id AND (k.last_used_at IS NULL OR k.last_used_at < locked.at)";

impl Lookups for PostgresStore {
    async fn find(&self, digests: &[Digest]) -> Result<Lookup, StoreError> {
        if digests.is_empty() {
            return Ok(Lookup::answered(&[], [], DataAge::Current));
        }
        lookup::find(self, digests).await
    }

    async fn history(&self) -> Result<Option<History>, StoreError> {
        if self.relation.is_some() {
            return Ok(None);
        }
        history::read(self).await.map(Some)
    }
}

impl Changes for PostgresStore {
    type Follower = PostgresFollower;

    async fn follow(&self) -> Result<Option<PostgresFollower>, StoreError> {
        if self.relation.is_some() {
            return Ok(None);
        }
        PostgresFollower::connect(self).await.map(Some)
    }

    async fn canary(&self, token: &Digest) -> Result<(), CanaryError> {
        match &self.relation {
            None => {
                let written = canary::write(self, token).await;
                if let Err(CanaryError::Failed(refused)) = &written {
                    self.doubt_after(refused);
                }
                written
            }
            Some(relation) => Err(CanaryError::ReadOnly(format!(
                "{relation} is not keystead's: it has no changes"
            ))),
        }
    }
}

impl KeyAdmin for PostgresStore {
    async fn unknown_secrets(&self, known: &[Fingerprint]) -> Result<Vec<SecretUse>, StoreError> {
        history::unknown_secrets(self, known).await
    }

    async fn get(&self, id: &KeyId) -> Result<Option<KeyRecord>, StoreError> {
        let id = id.as_str();
        let params = [call::param(&id, Type::TEXT)];
        let rows = self.query(&self.statements.get, &params, Pace::Patient).await?;
        let record = |row: &Row| rows::stored_key(row).map(|key| key.record);
        rows.first().map(record).transpose()
    }

    async fn list(&self, page: &Page) -> Result<Vec<StoredKey>, StoreError> {
        // Every id is greater than the empty text.
        let after = page.after.as_ref().map_or("", KeyId::as_str);
        let limit = i64::from(page.limit.get());
        let mut params = vec![call::param(&after, Type::TEXT), call::param(&limit, Type::INT8)];
        let statement = match &page.principal {
            None => &self.statements.list,
            Some(principal) => {
                params.push(call::param(principal, Type::TEXT));
                &self.statements.list_of_principal
            }
        };
        let rows = self.query(statement, &params, Pace::Patient).await?;
        rows.iter().map(rows::stored_key).collect()
    }

    async fn insert(&self, keys: &[NewKey], by: &Provenance) -> Result<(), WriteError> {
        self.writable()?;
        write::insert(self, keys, by).await
    }

    async fn act(
        &self,
        id: &KeyId,
        action: Action,
        successor: Option<&Successor>,
        by: &Provenance,
    ) -> Result<KeyRecord, WriteError> {
        self.writable()?;
        write::act(self, id, action, successor, by).await
    }
}

impl Usage for PostgresStore {
    async fn touch(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
        if uses.is_empty() || self.relation.is_some() {
            return Ok(());
        }
        let (ids, times): (Vec<&str>, Vec<Timestamp>) =
            uses.iter().map(|(id, at)| (id.as_str(), *at)).unzip();
        let params =
            [call::param(&ids, Type::TEXT_ARRAY), call::param(&times, Type::TIMESTAMPTZ_ARRAY)];
        let noted = self.query(TOUCH, &params, Pace::Lookup).await.map(drop);
        noted.inspect_err(|refused| self.doubt_after(refused))
    }
}
