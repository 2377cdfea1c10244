//! The embedded engine: one SQLite file, shared by all processes on the machine that open it.
//!
//! Uses write-ahead logging, so that readers never wait for a writer. Commits are flushed to
//! disk (`synchronous = FULL`): a key that was printed survives a power loss, and writes are
//! rare enough to afford it.

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

/// Time-out of a writing call.
///
/// Longer than that of a lookup: an operator makes it or a program on their behalf, and it
/// waits for other writing processes and for a disk flush, which can take a second. Healthy is
/// under 50 ms, and under 100 ms with an import batch: a key takes 80 µs on two busy cores.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time-out of a canary, whatever that of a lookup, so that a held lock is noticed in
/// time.
const CANARY_TIMEOUT: Duration = Duration::from_millis(1500);

/// Location and limits of the embedded store.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    /// Path of the database file. SQLite keeps two more beside it, with the suffixes `-wal` and
    /// `-shm`.
    pub path: PathBuf,
    /// Maximum number of concurrent reading calls. Each has a connection and, while it runs, a
    /// thread.
    pub max_readers: NonZeroUsize,
    /// Time-out of a reading call or [`Usage::touch`], including the wait for a connection.
    pub query_timeout: Duration,
}

/// A store in an SQLite file.
///
/// Reading calls share `max_readers` connections, writing calls share one, and each follower of
/// the changes has its own. A call that finds them taken, or the file locked by another
/// process, for three quarters of its time-out fails as `saturated`. A query that is still
/// running at its time-out, or when its caller is gone, is interrupted, and a transaction
/// rolled back.
///
/// While the file is missing or replaced by another one, calls fail as `unreachable`: what
/// another file lacks is no evidence that a key does not exist.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    readers: Arc<Lane>,
    writer: Arc<Lane>,
    source: Arc<Source>,
    query_timeout: Duration,
}

impl SqliteStore {
    /// Opens the file, creating it with mode 0600 if missing, and brings its schema up to date.
    /// Safe in any number of processes at once.
    ///
    /// Blocks while another process writes, 5 seconds at most. The detail of an error names the
    /// file and the remedy.
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

    /// Error of waiting too long for the single writer.
    fn blocked(&self) -> StoreError {
        let path = self.source.path().display();
        let detail = format!(
            "another process is writing to {path} and does not come to an end; `fuser {path}` shows \
             who has it open"
        );
        StoreError::new(StoreErrorKind::Blocked, detail)
    }

    /// Runs `change` on the writer. A rule violation is no failure of the engine: it is the
    /// inner error, and its transaction has been rolled back.
    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut rusqlite::Connection) -> rusqlite::Result<Result<T, WriteError>>
        + Send
        + 'static,
    ) -> Result<T, WriteError> {
        self.writer.run(WRITE_TIMEOUT, change).await.map_err(|error| match error.kind() {
            // The thread may have been committing.
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
    /// Records that a secret was created beside this store, for its keys.
    pub async fn note_secret(&self, secret: Fingerprint) -> Result<(), StoreError> {
        self.writer.run(WRITE_TIMEOUT, move |db| history::note_secret(db, secret)).await
    }

    /// Checkpoints the write-ahead log into the file and closes the connections of this store
    /// and its clones. If no other process has the file open, it is then self-contained and the
    /// log is gone. Later calls fail as `saturated`.
    ///
    /// Waits for calls in progress and for other processes, up to the time-out of a write. A
    /// failure loses nothing: the log stays, and the next start reads it.
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

    /// Whether this store was used with one of these secrets before, or has been used at all.
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
