//! A PostgreSQL server.

use std::{path::PathBuf, time::Duration};

use keystead::{
    app,
    config::Config,
    key::{Digest, Secret},
    store::AnyStore,
};
use tempfile::TempDir;
use tokio_postgres::Client;

use super::{Backend, patient};
use crate::harness::{
    postgres::{Postgres, Setup},
    write_private,
};

/// A PostgreSQL server of its own, and a secret.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) postgres: Postgres,
    /// Holds a lock on the table while the store hangs.
    lock: Option<Client>,
    folder: TempDir,
}

impl Server {
    /// With settings of the server's own.
    pub(crate) async fn with(setup: Setup) -> Self {
        let postgres = Postgres::with(setup).await;
        let server = Self { postgres, lock: None, folder: tempfile::tempdir().unwrap() };
        write_private(&server.secret_file(), Secret::generate().unwrap().as_bytes());
        let opened = app::open_store(&server.config()).await.unwrap();
        let AnyStore::Postgres(store) = opened.store else { panic!("{:?}", opened.store) };
        store.migrate().await.unwrap();
        server
    }

    /// From now on each lookup takes so much longer.
    pub(crate) async fn slow_by(&mut self, nap: Duration) {
        let slow = format!(
            "ALTER TABLE keystead.api_keys RENAME TO hidden_keys;
             CREATE VIEW keystead.api_keys AS
                 SELECT k.* FROM pg_sleep({}) AS nap, keystead.hidden_keys AS k;
             ALTER VIEW keystead.api_keys OWNER TO keystead;",
            nap.as_secs_f64()
        );
        self.sql(&slow).await;
    }

    fn secret_file(&self) -> PathBuf {
        self.folder.path().join("keystead.secret")
    }
}

impl Backend for Server {
    const API_KEYS: &str = "keystead.api_keys";

    async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    fn config(&self) -> Config {
        let mut config = patient();
        config.store.url = self.postgres.url().parse().unwrap();
        config.keys.secret_file = Some(self.secret_file());
        config
    }

    async fn sql(&self, statements: &str) {
        self.postgres.sql(statements).await;
    }

    fn digest(digest: &Digest) -> String {
        format!(r"'\x{}'", digest.to_hex())
    }

    async fn hang(&mut self) {
        let lock = self.postgres.client().await;
        lock.batch_execute("BEGIN; LOCK TABLE keystead.api_keys IN ACCESS EXCLUSIVE MODE")
            .await
            .unwrap();
        self.lock = Some(lock);
    }

    async fn slow_down(&mut self) {
        self.slow_by(Duration::from_millis(500)).await;
    }

    async fn go_on(&mut self) {
        if let Some(lock) = self.lock.take() {
            lock.batch_execute("ROLLBACK").await.unwrap();
        } else {
            self.sql(
                "DROP VIEW keystead.api_keys;
                 ALTER TABLE keystead.hidden_keys RENAME TO api_keys;",
            )
            .await;
        }
    }

    async fn vanish(&mut self) {
        self.postgres.kill();
    }

    async fn come_back(&mut self) {
        self.postgres.start().await;
    }
}
