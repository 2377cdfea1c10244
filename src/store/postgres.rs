//! PostgreSQL: the keys in Keystead's own table or in a user's relation, directly or through
//! PgBouncer.

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
    witness::{SERVER_COLUMNS, Servers},
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

/// How to reach a database, with limits.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database?sslmode=…`. `sslmode` and `sslrootcert`
    /// have libpq's meaning; without `sslrootcert` (or with `sslrootcert=system`), `verify-ca`
    /// and `verify-full` trust the roots of the operating system. A self-signed certificate
    /// cannot be its own root.
    pub url: SecretString,
    /// Table or view to read instead of `keystead.api_keys`: `table` or `schema.table`,
    /// double-quoted where SQL requires it.
    pub relation: Option<String>,
    /// Whether to prepare statements once per connection. Set it to false behind PgBouncer in
    /// transaction mode: every call is then a transaction with unnamed statements, still in one
    /// round trip.
    pub prepared_statements: bool,
    /// Maximum number of connections, excluding that of a follower. Opened on demand.
    pub max_connections: NonZeroUsize,
    /// Time-out of making a connection, per host in the URL: name resolution, TCP, TLS,
    /// authentication and the first statement. Independent of the time-out of the call that
    /// needs it.
    pub connect_timeout: Duration,
    /// Time-out of a lookup once it has a connection. The server gets nine tenths of it, so
    /// that a statement that is merely slow ends there and its connection is kept.
    pub query_timeout: Duration,
    /// How long sent data may stay unacknowledged before the kernel closes the connection.
    /// Bounds the lifetime of a connection to a vanished host; a waiting call ends by
    /// `query_timeout` long before.
    pub tcp_user_timeout: Duration,
    /// Maximum age of a connection, ±10 %, before it is replaced.
    pub max_connection_age: Duration,
    /// Maximum age of a standby's data to count as fresh. Every half of it, the identity of the
    /// server behind the name in the URL is checked.
    pub max_lag: Duration,
}

/// Keys in PostgreSQL.
///
/// With [`PostgresConfig::relation`], keys are read from a user's table or view that has the
/// columns of `keystead.api_keys` (NULL is read as empty where that makes sense). Then changing
/// a key is [`WriteError::ReadOnly`], there are no numbered changes to follow, and
/// [`Usage::touch`] is a no-op.
///
/// Lookups, canaries and touches end within the connect time-out, while there is no connection,
/// plus the query time-out. Operator calls (get, list, insert, act) may take 30 s per
/// statement, of which at most 10 s waiting for a lock; a migration five minutes. A cancelled
/// call goes on at the server until the statement's time-out at most; then its connection is
/// closed, and uncommitted work is rolled back.
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

/// An invalid configuration. Shows no secret.
#[derive(Debug, thiserror::Error)]
pub enum PostgresConfigError {
    /// The URL is malformed.
    #[error("`store.url` is no PostgreSQL URL (postgres://USER:PASSWORD@HOST/DATABASE): {0}")]
    Url(String),
    /// Unknown `sslmode`.
    #[error(
        "`sslmode` in `store.url` is disable, prefer, require, verify-ca or verify-full, not `{0}`"
    )]
    SslMode(String),
    /// The root certificate file is unusable.
    #[error("`sslrootcert` in `store.url` names {}, which cannot be used: {reason}", path.display())]
    RootCert {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The operating system has no root certificates.
    #[error(
        "no root certificates were found on this machine ({0}); name a file with `sslrootcert=…` \
         in `store.url`"
    )]
    NoSystemRoots(String),
    /// Not a valid table name.
    #[error("`store.relation` is `table` or `schema.table`, not `{0}`")]
    Relation(String),
    /// TLS or the pool rejected their settings.
    #[error("connections cannot be set up: {0}")]
    Setup(String),
}

impl PostgresConfigError {
    fn url(reason: impl Into<String>) -> Self {
        Self::Url(reason.into())
    }
}

/// The server's share of the query time-out: nine tenths, at least a millisecond, as 0 means no
/// limit.
fn statement_timeout(query_timeout: Duration) -> Duration {
    (query_timeout * 9 / 10).max(Duration::from_millis(1))
}

impl PostgresStore {
    /// Creates a store without connections. Reads the root certificates named in the URL and
    /// does no other I/O: the server may be down.
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
        let shown = Arc::clone(&remedy);
        Ok(Self {
            connections: Connections::new(again, max, &servers, age, shown, tasks.clone())?,
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

    /// Brings the schema up to date; returns the names of the applied migrations, none if it
    /// was current. Concurrent calls are safe: one of them migrates.
    ///
    /// Requires a role that owns the schema `keystead` or may create it.
    pub async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        migrate::run(self).await
    }

    /// Grants `role` the rights to serve and change keys, on an up-to-date schema. Idempotent.
    ///
    /// [`StoreErrorKind::Forbidden`] if the role does not exist.
    pub async fn grant(&self, role: &str) -> Result<(), StoreError> {
        migrate::grant(self, role).await
    }

    /// A server that refuses changes may have been the primary: checks its identity at once.
    fn recheck_after(&self, refused: &StoreError) {
        if refused.kind() == StoreErrorKind::Forbidden {
            self.servers.recheck.notify_waiters();
        }
    }

    /// Refuses to change keys that Keystead does not manage.
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

/// Prepared text of the reading statements for the relation.
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
            // Returns at least one row, so that the answer identifies its server even without a
            // key. The lookup comes first, as servers truncate the statements they show.
            find: format!(
                "SELECT k.*, w.* FROM ({select} WHERE digest = ANY($1::bytea[])) AS k \
                 RIGHT JOIN (SELECT {SERVER_COLUMNS}) AS w ON true"
            ),
            get: format!("{select} WHERE id::text = $1"),
            list: format!("{select} WHERE {page}"),
            list_of_principal: format!("{select} WHERE principal = $3 AND {page}"),
        }
    }
}

/// Locks rows in the order of their ids, so that two servers that touch the same keys do not
/// deadlock.
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
                    self.recheck_after(refused);
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
        // Every id is greater than the empty string.
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
        noted.inspect_err(|refused| self.recheck_after(refused))
    }
}
