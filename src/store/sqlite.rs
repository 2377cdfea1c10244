//! The embedded engine: one SQLite file, shared by every process on the
//! machine that opens it.
//!
//! Write-ahead logging, so that readers never wait for a writer. Commits are
//! flushed to the disk (`synchronous = FULL`): a key that was printed is not
//! lost with the power, and writes are rare enough to pay for it.

mod backup;
mod connection;
mod error;
mod follower;
mod history;
mod lane;
mod reads;
mod rows;
mod schema;
mod writes;

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

pub use self::{backup::BackupError, follower::SqliteFollower};
use self::{
    connection::{Role, Source},
    lane::Lane,
};
use super::{
    CanaryError, Changes, History, KeyAdmin, Lookup, Lookups, Page, Provenance, SecretUse,
    StoreError, StoreErrorKind, StoredKey, Usage, WriteError,
};
use crate::key::{Action, Digest, Fingerprint, KeyId, KeyRecord, NewKey, Successor};

/// How long a call that writes may take, whatever it writes.
///
/// Longer than a lookup: it is made by a person or on behalf of one, waits for
/// other processes that write to the same file, and for a flush of the disk,
/// which takes a second on a bad day. Healthy is under 50 ms, and with a batch of
/// an import under 100 ms: a key takes 80 µs on two busy cores.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a canary may take at most, however long a lookup may: so that a lock
/// that is held is noticed in time.
const CANARY_TIMEOUT: Duration = Duration::from_millis(1500);

/// Where the embedded store is and what it may use.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    /// The database file. SQLite keeps two more beside it, with `-wal` and
    /// `-shm` added to the name.
    pub path: PathBuf,
    /// How many reading calls may be under way at once. Each has a connection
    /// and, while it runs, a thread.
    pub max_readers: NonZeroUsize,
    /// How long a reading call, or [`Usage::touch`], may take, waiting
    /// included.
    pub query_timeout: Duration,
}

/// A store in an SQLite file.
///
/// Reading calls share `max_readers` connections, writing calls one, and a
/// follower of the changes has one of its own. A call
/// that finds them all taken, or the file locked by another process, for three
/// quarters of its time-out ends as `saturated`. A query that is still running
/// when its time-out has passed or its caller has gone is interrupted, and a
/// transaction rolled back.
///
/// When the file is missing, or another one has taken its place, calls end as
/// `unreachable` until it is back: what another file does not hold is no
/// evidence that a key does not exist.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    readers: Arc<Lane>,
    writer: Arc<Lane>,
    source: Arc<Source>,
    query_timeout: Duration,
}

impl SqliteStore {
    /// Opens the file, creating it with mode 0600 if there is none, and brings
    /// its schema up to date. Any number of processes may do this at the same
    /// moment.
    ///
    /// Blocks for as long as another process is writing, 5 seconds at most. The
    /// detail of an error names the file and the remedy.
    pub fn open(config: &SqliteConfig) -> Result<Self, StoreError> {
        let (source, writer) = Source::prepare(&config.path)?;
        let source = Arc::new(source);
        let readers = Lane::new(Arc::clone(&source), Role::Reader, config.max_readers, Vec::new());
        let writer = Lane::new(Arc::clone(&source), Role::Writer, NonZeroUsize::MIN, vec![writer]);
        Ok(Self { readers, writer, source, query_timeout: config.query_timeout })
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.run(self.query_timeout, |db| query(db)).await
    }

    /// There is one writer at a time, and it is not this one's turn.
    fn blocked(&self) -> StoreError {
        let path = self.source.path().display();
        let detail = format!(
            "another process is writing to {path} and does not come to an end; `fuser {path}` shows \
             who has it open"
        );
        StoreError::new(StoreErrorKind::Blocked, detail)
    }

    /// A refusal by a rule is no failure of the engine: it comes back as the
    /// inner error, and its transaction has been rolled back.
    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut rusqlite::Connection) -> rusqlite::Result<Result<T, WriteError>>
        + Send
        + 'static,
    ) -> Result<T, WriteError> {
        self.writer.run(WRITE_TIMEOUT, change).await.map_err(|error| match error.kind() {
            // The thread may have been committing just then.
            StoreErrorKind::Timeout => WriteError::OutcomeUnknown(error),
            StoreErrorKind::Unreachable
            | StoreErrorKind::Saturated
            | StoreErrorKind::Forbidden
            | StoreErrorKind::Schema
            | StoreErrorKind::Unreadable
            | StoreErrorKind::Lagging
            | StoreErrorKind::Blocked => WriteError::Store(error),
        })?
    }
}

impl SqliteStore {
    /// Notes that a secret was made beside this store, for its keys.
    pub async fn note_secret(&self, secret: Fingerprint) -> Result<(), StoreError> {
        self.writer.run(WRITE_TIMEOUT, move |db| history::note_secret(db, secret)).await
    }

    /// Moves all that the write-ahead log holds into the file and closes the connections
    /// of this store and its clones: if nobody else has the file open, it is then whole
    /// by itself and the log is gone. Calls that are made later end as `saturated`.
    ///
    /// Waits for calls that are under way, and for other processes that read or write,
    /// for the time-out of a write at most. Nothing is lost where it fails: the log
    /// stays, and the next start reads it.
    pub async fn close(&self) -> Result<(), StoreError> {
        let limit = Instant::now() + WRITE_TIMEOUT;
        self.readers.close(limit).await;
        let moved = self.writer.run(WRITE_TIMEOUT, |db| {
            db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        });
        let moved = moved.await;
        self.writer.close(limit).await;
        moved
    }

    /// Whether this is a store that lay beside one of these secrets before, or any
    /// that has been used.
    pub async fn belongs_to(&self, secrets: &[Fingerprint]) -> Result<bool, StoreError> {
        let secrets = secrets.to_vec();
        self.read(move |db| history::belongs_to(db, &secrets)).await
    }
}

impl Lookups for SqliteStore {
    async fn find(&self, digests: &[Digest]) -> Result<Lookup, StoreError> {
        let digests = digests.to_vec();
        self.read(move |db| reads::find(db, &digests)).await
    }

    async fn history(&self) -> Result<Option<History>, StoreError> {
        self.read(history::read).await.map(Some)
    }
}

impl Changes for SqliteStore {
    type Follower = SqliteFollower;

    async fn follow(&self) -> Result<Option<SqliteFollower>, StoreError> {
        Ok(Some(SqliteFollower::new(Arc::clone(&self.source), self.query_timeout)))
    }

    async fn canary(&self, token: &Digest) -> Result<(), CanaryError> {
        let token = *token;
        let limit = self.query_timeout.min(CANARY_TIMEOUT);
        let written = self.writer.run(limit, move |db| writes::canary(db, &token));
        written.await.map_err(|error| match error.kind() {
            StoreErrorKind::Saturated => CanaryError::Failed(self.blocked()),
            _ => CanaryError::Failed(error),
        })
    }
}

impl KeyAdmin for SqliteStore {
    async fn unknown_secrets(&self, known: &[Fingerprint]) -> Result<Vec<SecretUse>, StoreError> {
        let known = known.to_vec();
        self.read(move |db| history::unknown_secrets(db, &known)).await
    }

    async fn get(&self, id: &KeyId) -> Result<Option<KeyRecord>, StoreError> {
        let id = id.clone();
        self.read(move |db| reads::get(db, &id)).await
    }

    async fn list(&self, page: &Page) -> Result<Vec<StoredKey>, StoreError> {
        let page = page.clone();
        self.read(move |db| reads::list(db, &page)).await
    }

    async fn insert(&self, keys: &[NewKey], by: &Provenance) -> Result<(), WriteError> {
        let (keys, by) = (keys.to_vec(), by.clone());
        self.write(move |db| writes::insert(db, &keys, &by)).await
    }

    async fn act(
        &self,
        id: &KeyId,
        action: Action,
        successor: Option<&Successor>,
        by: &Provenance,
    ) -> Result<KeyRecord, WriteError> {
        let (id, successor, by) = (id.clone(), successor.cloned(), by.clone());
        self.write(move |db| writes::act(db, &id, action, successor.as_ref(), &by)).await
    }
}

impl Usage for SqliteStore {
    async fn touch(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
        let uses = uses.to_vec();
        self.writer.run(self.query_timeout, move |db| writes::touch(db, &uses)).await
    }
}
