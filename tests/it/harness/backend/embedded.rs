//! The embedded store.

use std::{fs, path::PathBuf};

use keystead::{app, config::Config, key::Digest, store::StoreUrl};
use rusqlite::Connection;
use tempfile::TempDir;

use super::{Backend, patient};

/// Name of the table while a view replaces it.
const HIDDEN: &str = "hidden_keys";

/// More steps than any test waits for.
const FOR_EVER: u64 = u64::MAX / 4;

/// Some tenths of a second.
const A_WHILE: u64 = 2_000_000;

/// An SQLite file in its own folder, with its secret beside it.
#[derive(Debug)]
pub(crate) struct Embedded {
    folder: TempDir,
}

impl Embedded {
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("keystead.db")
    }

    fn aside(&self) -> PathBuf {
        self.folder.path().join("aside.db")
    }

    /// Replaces the table by a view that counts up to `steps` on each read before it
    /// returns the rows.
    async fn count_before_answering(&self, steps: u64) {
        self.sql(&format!(
            "ALTER TABLE api_keys RENAME TO {HIDDEN};
             CREATE VIEW api_keys AS
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {steps})
                 SELECT {HIDDEN}.* FROM (SELECT max(i) AS last FROM n) AS counted, {HIDDEN}
                 WHERE counted.last > 0;"
        ))
        .await;
    }
}

impl Backend for Embedded {
    const API_KEYS: &str = "api_keys";

    async fn start() -> Self {
        let embedded = Self { folder: tempfile::tempdir().unwrap() };
        app::open_store(&embedded.config()).await.unwrap();
        embedded
    }

    fn config(&self) -> Config {
        let mut config = patient();
        config.store.url = StoreUrl::Sqlite { path: self.path() };
        config
    }

    async fn sql(&self, statements: &str) {
        Connection::open(self.path()).unwrap().execute_batch(statements).unwrap();
    }

    fn digest(digest: &Digest) -> String {
        format!("x'{}'", digest.to_hex())
    }

    async fn hang(&mut self) {
        self.count_before_answering(FOR_EVER).await;
    }

    async fn slow_down(&mut self) {
        self.count_before_answering(A_WHILE).await;
    }

    async fn go_on(&mut self) {
        self.sql(&format!("DROP VIEW api_keys; ALTER TABLE {HIDDEN} RENAME TO api_keys;")).await;
    }

    async fn vanish(&mut self) {
        fs::rename(self.path(), self.aside()).unwrap();
    }

    async fn come_back(&mut self) {
        fs::rename(self.aside(), self.path()).unwrap();
    }
}
