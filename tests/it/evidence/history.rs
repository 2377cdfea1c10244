//! A new instance, which knows no key, on a store that has lost or hides rows: its
//! own history speaks against it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::site::{Running, on};
use crate::harness::{
    backend::{Backend, Embedded, Server, on_both_stores},
    keys::{Key, Keys, of_acme},
};

/// How many keys there are.
const KEYS: usize = 40;

/// For how long keys are asked for while rows are missing.
const HOLDS: Duration = Duration::from_secs(3);

const GAUGE: &str = "keystead_store_suspect";

const WARNS: &str = "rows were lost or are hidden from this role";

/// Rows that vanish without a record, and come back.
trait Loses: Backend {
    fn url(&self) -> String;

    fn secret(&self) -> PathBuf;

    /// Runs plain SQL of which no change is recorded.
    async fn unrecorded(&self, statements: &str);

    /// Takes away the rows that meet a condition.
    async fn lose(&self, condition: &str) {
        let table = Self::API_KEYS;
        self.unrecorded(&format!(
            "CREATE TABLE aside AS SELECT * FROM {table} WHERE {condition};
             DELETE FROM {table} WHERE {condition};"
        ))
        .await;
    }

    async fn give_back(&self) {
        let table = Self::API_KEYS;
        self.unrecorded(&format!("INSERT INTO {table} SELECT * FROM aside; DROP TABLE aside;"))
            .await;
    }
}

impl Loses for Server {
    fn url(&self) -> String {
        self.postgres.url()
    }

    fn secret(&self) -> PathBuf {
        self.config().keys.secret_file.unwrap()
    }

    async fn unrecorded(&self, statements: &str) {
        self.sql(&format!("SET session_replication_role = replica; {statements}")).await;
    }
}

impl Loses for Embedded {
    fn url(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }

    fn secret(&self) -> PathBuf {
        self.path().with_file_name("keystead.secret")
    }

    async fn unrecorded(&self, statements: &str) {
        let mut db = Connection::open(self.path()).unwrap();
        let db = db.transaction().unwrap();
        let named = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'";
        let triggers: Vec<(String, String)> = {
            let mut query = db.prepare(named).unwrap();
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            rows.map(Result::unwrap).collect()
        };
        for (name, _) in &triggers {
            db.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
        }
        db.execute_batch(statements).unwrap();
        for (_, sql) in &triggers {
            db.execute_batch(sql).unwrap();
        }
        db.commit().unwrap();
    }
}

/// Forty keys, and one whose deletion is recorded.
struct Stock {
    keys: Vec<Key>,
    deleted: Key,
    keeper: Keys,
}

impl Stock {
    async fn of(backend: &impl Backend) -> Self {
        let keeper = Keys::open(&backend.config()).await;
        let keys = keeper.create_many(KEYS).await;
        let deleted = keeper.create(of_acme()).await;
        delete(backend, &deleted).await;
        Self { keys, deleted, keeper }
    }

    fn unstored(&self) -> String {
        self.keeper.draw().key.expose().to_owned()
    }

    /// Checks all keys for a while: those for which `lost` is true are never refused,
    /// the others are valid.
    async fn refuses_no_lost_key(&self, running: &Running, lost: impl Fn(usize) -> bool) {
        let began = Instant::now();
        while began.elapsed() < HOLDS {
            for (number, key) in self.keys.iter().enumerate() {
                let expected = if lost(number) { "STORE_SUSPECT" } else { "OK" };
                assert_eq!(running.says(&key.text).await, expected, "key {number}");
            }
            assert_eq!(running.says(&self.unstored()).await, "STORE_SUSPECT");
            assert_eq!(running.says("somebody-else").await, "STORE_SUSPECT");
            assert_eq!(running.says(&self.deleted.text).await, "KEY_UNKNOWN");
        }
    }

    /// Waits until all is as it was before.
    async fn heals(&self, running: &Running) {
        running.until_well(GAUGE).await;
        for key in &self.keys {
            running.until_says(&key.text, "OK").await;
        }
        running.until_says(&self.unstored(), "KEY_UNKNOWN").await;
        running.until_says("somebody-else", "KEY_UNKNOWN").await;
        assert_eq!(running.says(&self.deleted.text).await, "KEY_UNKNOWN");
    }
}

async fn delete<B: Backend>(backend: &B, key: &Key) {
    let sql = format!("DELETE FROM {} WHERE id = '{}'", B::API_KEYS, key.id.as_str());
    backend.sql(&sql).await;
}

/// A condition that holds for every second key, and whether it holds for a number.
fn half(keys: &[Key]) -> (String, fn(usize) -> bool) {
    let ids: Vec<_> = keys.iter().step_by(2).map(|key| format!("'{}'", key.id.as_str())).collect();
    (format!("id IN ({})", ids.join(",")), |number| number % 2 == 0)
}

async fn new_instance_on_an_emptied_store_refuses_no_key_and_heals_with_the_rows<B: Loses>(
    backend: B,
) {
    let stock = Stock::of(&backend).await;
    backend.lose("true").await;
    let keystead = on(&backend.url(), &backend.secret());
    let running = Running::start(&keystead).await;
    running.until_says(&stock.keys[0].text, "STORE_SUSPECT").await;
    stock.refuses_no_lost_key(&running, |_| true).await;
    running.until_noticed("suspect", GAUGE, WARNS).await;
    backend.give_back().await;
    stock.heals(&running).await;
}

async fn new_instance_on_a_store_that_lost_half_refuses_no_key_and_heals_with_the_rows<B: Loses>(
    backend: B,
) {
    let stock = Stock::of(&backend).await;
    let (condition, lost) = half(&stock.keys);
    backend.lose(&condition).await;
    let keystead = on(&backend.url(), &backend.secret());
    let running = Running::start(&keystead).await;
    running.until_says(&stock.keys[0].text, "STORE_SUSPECT").await;
    stock.refuses_no_lost_key(&running, lost).await;
    running.until_noticed("suspect", GAUGE, WARNS).await;
    backend.give_back().await;
    stock.heals(&running).await;
}

async fn deletions_that_are_recorded_are_believed_at_once_however_many<B: Loses>(backend: B) {
    let stock = Stock::of(&backend).await;
    let (condition, deleted) = half(&stock.keys);
    backend.sql(&format!("DELETE FROM {} WHERE {condition}", B::API_KEYS)).await;
    let keystead = on(&backend.url(), &backend.secret());
    let running = Running::start(&keystead).await;
    running.until_well(GAUGE).await;
    for (number, key) in stock.keys.iter().enumerate() {
        let expected = if deleted(number) { "KEY_UNKNOWN" } else { "OK" };
        assert_eq!(running.says(&key.text).await, expected, "key {number}");
    }
    backend.sql(&format!("DELETE FROM {}", B::API_KEYS)).await;
    for key in &stock.keys {
        running.until_says(&key.text, "KEY_UNKNOWN").await;
    }
    assert_eq!(running.admin().metric(GAUGE).await.to_bits(), 0);
}

async fn new_empty_store_beside_a_used_secret_refuses_none_of_its_keys<B: Loses>(backend: B) {
    let stock = Stock::of(&backend).await;
    let empty = B::start().await;
    let keystead = on(&empty.url(), &backend.secret());
    let running = Running::start(&keystead).await;
    running.admin().until_ready().await;
    assert_eq!(running.says("somebody-else").await, "KEY_UNKNOWN", "nothing speaks against it");
    let began = Instant::now();
    while began.elapsed() < HOLDS {
        for key in &stock.keys {
            assert_eq!(running.says(&key.text).await, "STORE_SUSPECT");
        }
        assert_eq!(running.says("somebody-else").await, "STORE_SUSPECT", "now a key of ours does");
    }
    running.until_noticed("suspect", GAUGE, "and the key table is empty").await;
    let mut config = empty.config();
    config.keys.secret_file = Some(backend.secret());
    let key = Keys::open(&config).await.create(of_acme()).await;
    running.until_says(&key.text, "OK").await;
    running.until_says(&stock.unstored(), "KEY_UNKNOWN").await;
    running.until_well(GAUGE).await;
}

on_both_stores! {
    new_instance_on_an_emptied_store_refuses_no_key_and_heals_with_the_rows,
    new_instance_on_a_store_that_lost_half_refuses_no_key_and_heals_with_the_rows,
    deletions_that_are_recorded_are_believed_at_once_however_many,
    new_empty_store_beside_a_used_secret_refuses_none_of_its_keys,
}

/// A policy hides rows from the role of the service, which owns the table.
async fn hidden(condition: &str, stock: &Stock, server: &Server, lost: fn(usize) -> bool) {
    server
        .sql(&format!(
            "CREATE POLICY hiding ON keystead.api_keys FOR ALL TO keystead USING (NOT ({condition}));
             ALTER TABLE keystead.api_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
        ))
        .await;
    let keystead = on(&server.url(), &server.secret());
    let running = Running::start(&keystead).await;
    running.until_says(&stock.keys[0].text, "STORE_SUSPECT").await;
    stock.refuses_no_lost_key(&running, lost).await;
    running.until_noticed("suspect", GAUGE, WARNS).await;
    server
        .sql(
            "ALTER TABLE keystead.api_keys DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
        )
        .await;
    stock.heals(&running).await;
}

#[tokio::test]
async fn new_instance_from_which_all_rows_are_hidden_refuses_no_key() {
    let server = Server::start().await;
    let stock = Stock::of(&server).await;
    hidden("true", &stock, &server, |_| true).await;
}

#[tokio::test]
async fn new_instance_from_which_half_of_the_rows_are_hidden_refuses_no_key() {
    let server = Server::start().await;
    let stock = Stock::of(&server).await;
    let (condition, lost) = half(&stock.keys);
    hidden(&condition, &stock, &server, lost).await;
}

#[tokio::test]
async fn new_instance_on_a_truncated_table_refuses_no_key() {
    let server = Server::start().await;
    let stock = Stock::of(&server).await;
    server
        .sql("CREATE TABLE aside AS SELECT * FROM keystead.api_keys; TRUNCATE keystead.api_keys")
        .await;
    let keystead = on(&server.url(), &server.secret());
    let running = Running::start(&keystead).await;
    running.until_says(&stock.keys[0].text, "STORE_SUSPECT").await;
    stock.refuses_no_lost_key(&running, |_| true).await;
    running.until_noticed("suspect", GAUGE, WARNS).await;
    server.give_back().await;
    stock.heals(&running).await;
}

#[tokio::test]
async fn truncated_table_is_believed_once_the_change_table_says_so_as_the_docs_show() {
    const DOCS: &str = include_str!("../../../docs/operations.md");
    let (_, statement) = DOCS.split_once("-- PostgreSQL, as the owner\n").unwrap();
    let (statement, _) = statement.split_once("```").unwrap();
    let server = Server::start().await;
    let stock = Stock::of(&server).await;
    let keystead = on(&server.url(), &server.secret());
    let before = Running::start(&keystead).await;
    for key in &stock.keys {
        before.until_says(&key.text, "OK").await;
    }
    server.sql("TRUNCATE keystead.api_keys").await;
    before.until_noticed("suspect", GAUGE, WARNS).await;
    let later = on(&server.url(), &server.secret());
    let after = Running::start(&later).await;
    after.until_says(&stock.keys[0].text, "STORE_SUSPECT").await;
    server.sql(statement).await;
    for running in [&before, &after] {
        for key in &stock.keys {
            running.until_says(&key.text, "KEY_UNKNOWN").await;
        }
        running.until_well(GAUGE).await;
    }
}
