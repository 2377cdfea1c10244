//! The engine for the conformance suite: its own server for each case.

use jiff::Timestamp;
use keystead::{key::Digest, store::postgres::PostgresStore};

use super::store;
use crate::{
    conformance::{AuditEntry, Fixture},
    harness::postgres::Postgres,
};

/// PostgreSQL for the suite.
pub(crate) struct Server {
    store: PostgresStore,
    postgres: Postgres,
}

impl Fixture for Server {
    type Store = PostgresStore;

    async fn start() -> Self {
        let postgres = Postgres::start_new().await;
        let store = store(&postgres.url());
        store.migrate().await.unwrap();
        Self { store, postgres }
    }

    fn store(&self) -> &PostgresStore {
        &self.store
    }

    fn api_keys(&self) -> &'static str {
        "keystead.api_keys"
    }

    fn key_changes(&self) -> &'static str {
        "keystead.key_changes"
    }

    fn digest(&self, digest: &Digest) -> String {
        format!(r"'\x{}'::bytea", digest.to_hex())
    }

    fn networks(&self, networks: &[&str]) -> String {
        format!("'{{{}}}'::cidr[]", networks.join(","))
    }

    fn instant(&self, at: Timestamp) -> String {
        format!("'{at}'::timestamptz")
    }

    async fn sql(&self, statement: &str) {
        self.postgres.sql(statement).await;
    }

    async fn audit_log(&self) -> Vec<AuditEntry> {
        let client = self.postgres.client().await;
        let statement = "SELECT at, actor, origin, action, key_id, before::text, after::text \
            FROM keystead.audit_log ORDER BY id";
        let rows = client.query(statement, &[]).await.unwrap();
        let json = |text: Option<&str>| text.map(|text| serde_json::from_str(text).unwrap());
        let entries = rows.iter().map(|row| AuditEntry {
            at: row.get("at"),
            actor: row.get("actor"),
            origin: row.get("origin"),
            action: row.get("action"),
            key_id: row.get("key_id"),
            before: json(row.get("before")),
            after: json(row.get("after")),
        });
        entries.collect()
    }
}
