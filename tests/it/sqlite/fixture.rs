//! A store in its own directory.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use jiff::Timestamp;
use keystead::{
    key::{Digest, NewKey, Rights, State},
    store::{
        KeyAdmin, Provenance, StoreError, StoreErrorKind,
        sqlite::{SqliteConfig, SqliteStore},
    },
};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::conformance::{AuditEntry, Fixture};

/// The embedded engine for the suite.
pub(crate) struct Embedded {
    pub(super) store: SqliteStore,
    pub(super) directory: TempDir,
}

/// A configuration for `keystead.db` in a directory, with time-outs that a busy
/// machine keeps.
pub(super) fn config_in(directory: &TempDir) -> SqliteConfig {
    SqliteConfig {
        path: directory.path().join("keystead.db"),
        max_readers: NonZeroUsize::new(4).unwrap(),
        query_timeout: Duration::from_secs(20),
    }
}

/// An active key of `acme`, different for each number.
pub(super) fn key(number: u32) -> NewKey {
    NewKey {
        id: format!("key_{number:06}").parse().unwrap(),
        digest: Digest::sha256_of(&number.to_be_bytes()),
        secret: None,
        hint: String::new(),
        rights: Rights { principal: "acme".to_owned(), ..Rights::default() },
        state: State::Active,
    }
}

pub(super) fn by_alice() -> Provenance {
    let at = Timestamp::constant(1_800_000_000, 0);
    Provenance { actor: "cli:alice".to_owned(), origin: "laptop".to_owned(), at }
}

/// The kind of a failure, whose detail must say what was expected.
pub(super) fn failure<T>(outcome: Result<T, StoreError>, in_detail: &str) -> StoreErrorKind {
    let Err(error) = outcome else { panic!("it did not fail") };
    assert!(error.detail().contains(in_detail), "{error}");
    error.kind()
}

impl Embedded {
    pub(super) fn with(change: impl FnOnce(&mut SqliteConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config_in(&directory);
        change(&mut config);
        Self { store: SqliteStore::open(&config).unwrap(), directory }
    }

    pub(super) fn path(&self) -> PathBuf {
        config_in(&self.directory).path
    }

    /// The path of the write-ahead log, or of the shared memory beside it.
    pub(super) fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.path().into_os_string();
        path.push(suffix);
        path.into()
    }

    /// A connection as another program has it.
    pub(super) fn connection(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    pub(super) async fn insert(&self, number: u32) {
        self.store.insert(&[key(number)], &by_alice()).await.unwrap();
    }

    pub(super) async fn has(&self, number: u32) -> Result<bool, StoreError> {
        Ok(self.store.get(&key(number).id).await?.is_some())
    }
}

impl Fixture for Embedded {
    type Store = SqliteStore;

    async fn start() -> Self {
        Self::with(|_| ())
    }

    fn store(&self) -> &SqliteStore {
        &self.store
    }

    fn api_keys(&self) -> &'static str {
        "api_keys"
    }

    fn key_changes(&self) -> &'static str {
        "key_changes"
    }

    fn digest(&self, digest: &Digest) -> String {
        format!("x'{}'", digest.to_hex())
    }

    fn networks(&self, networks: &[&str]) -> String {
        format!("'{}'", serde_json::json!(networks))
    }

    fn instant(&self, at: Timestamp) -> String {
        at.as_microsecond().to_string()
    }

    async fn sql(&self, statement: &str) {
        self.connection().execute_batch(statement).unwrap();
    }

    async fn audit_log(&self) -> Vec<AuditEntry> {
        let db = self.connection();
        let mut query = db
            .prepare(
                "SELECT at, actor, origin, action, key_id, before, after
                 FROM audit_log ORDER BY id",
            )
            .unwrap();
        let json = |text: Option<String>| text.map(|text| serde_json::from_str(&text).unwrap());
        let rows = query.query_map([], |row| {
            Ok(AuditEntry {
                at: Timestamp::from_microsecond(row.get(0)?).unwrap(),
                actor: row.get(1)?,
                origin: row.get(2)?,
                action: row.get(3)?,
                key_id: row.get(4)?,
                before: json(row.get(5)?),
                after: json(row.get(6)?),
            })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }
}
