//! Somebody or something keeps changes from being written: state, metric, log.

use rusqlite::Connection;
use tokio_postgres::{Client, NoTls};

use super::site::Site;
use crate::harness::{beside, keystead::Keystead, postgres::rows};

/// A session holds up changes with `statements`, and is named.
async fn holder_is_named(site: &Site, holder: &Client, role: &str, statements: &str) {
    let postgres = site.postgres.as_ref().unwrap();
    rows(holder, "SET application_name = 'nightly job'").await;
    let pid = rows(holder, "SELECT pg_backend_pid()").await.remove(0);
    rows(holder, statements).await;

    let (status, line) = site.noticed("blocked").await;
    let named = format!("pid {pid} (nightly job, role {role}");
    for detail in [&status["detail"], &line["detail"]] {
        let detail = detail.as_str().unwrap();
        assert!(detail.contains(&named), "{detail}");
        assert!(detail.contains(&format!("SELECT pg_terminate_backend({pid})")), "{detail}");
    }
    assert_eq!(status["cause"], "blocked", "{status}");

    postgres.sql(&format!("SELECT pg_terminate_backend({pid})")).await;
    site.over().await;
}

#[tokio::test]
async fn who_holds_the_lock_on_changes_is_named_until_it_ends() {
    let site = Site::postgres().await;
    let postgres = site.postgres.as_ref().unwrap();
    let (holder, connection) = tokio_postgres::connect(&postgres.url(), NoTls).await.unwrap();
    beside(connection);
    let key = "INSERT INTO keystead.api_keys (id, digest, principal) \
        VALUES ('key_1', sha256('1'), 'acme')";
    postgres.sql(key).await;
    // Of its own role's sessions the owner of the schema sees all.
    holder_is_named(
        &site,
        &holder,
        "keystead), in a transaction since 20",
        "BEGIN; UPDATE keystead.api_keys SET name = 'x'; SET CONSTRAINTS ALL IMMEDIATE",
    )
    .await;
}

#[tokio::test]
async fn who_locks_the_table_of_keys_is_named_until_it_ends() {
    let site = Site::postgres().await;
    let holder = site.postgres.as_ref().unwrap().client().await;
    // As CREATE INDEX does.
    let lock = "BEGIN; LOCK TABLE keystead.api_keys IN SHARE MODE";
    holder_is_named(&site, &holder, "postgres)", lock).await;
}

#[tokio::test]
async fn disabled_triggers_are_reported_with_the_remedy() {
    let site = Site::postgres().await;
    let postgres = site.postgres.as_ref().unwrap();
    postgres.sql("ALTER TABLE keystead.api_keys DISABLE TRIGGER ALL").await;
    let (status, _) = site.noticed("failing").await;
    let detail = status["detail"].as_str().unwrap();
    let remedy = "ALTER TABLE keystead.api_keys ENABLE TRIGGER ALL";
    assert_eq!(detail, format!("triggers on keystead.api_keys are off: {remedy}"));
    postgres.sql(remedy).await;
    site.over().await;
}

#[tokio::test]
async fn server_that_takes_no_changes_is_failing() {
    let site = Site::postgres().await;
    let postgres = site.postgres.as_ref().unwrap();
    let all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE application_name = 'keystead'";
    postgres.sql("ALTER ROLE keystead SET default_transaction_read_only = on").await;
    postgres.sql(all).await;
    let (status, line) = site.noticed("failing").await;
    assert_eq!((&status["cause"], &line["cause"]), (&"forbidden".into(), &"forbidden".into()));
    assert!(status["detail"].as_str().unwrap().contains("SQLSTATE 25006"), "{status}");
    postgres.sql("ALTER ROLE keystead RESET default_transaction_read_only").await;
    postgres.sql(all).await;
    site.over().await;
}

#[tokio::test]
async fn another_process_that_writes_to_the_embedded_store_for_long_is_noticed() {
    let site = Site::embedded().await;
    let db = Connection::open(site.keystead.path("keystead.db")).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (status, line) = site.noticed("blocked").await;
    for detail in [&status["detail"], &line["detail"]] {
        let detail = detail.as_str().unwrap();
        assert!(detail.contains("another process is writing to "), "{detail}");
        assert!(detail.contains("keystead.db` shows who has it open"), "{detail}");
    }
    db.execute_batch("ROLLBACK").unwrap();
    site.over().await;
}

#[tokio::test]
async fn disk_that_is_full_is_failing() {
    const BLOCKS: u32 = 4096;
    let keystead = Keystead::new();
    keystead.run(["keys", "create", "--principal", "acme"]).await.ok();
    let server = keystead.serve_within(BLOCKS).await;
    let site = Site { keystead, server, postgres: None };
    site.until("ok").await;

    // Others write so much that there is no room for the next page of the log.
    let db = Connection::open(site.keystead.path("keystead.db")).unwrap();
    db.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    db.execute_batch(&format!(
        "CREATE TABLE filler (bytes blob); INSERT INTO filler VALUES (zeroblob({BLOCKS} * 600))"
    ))
    .unwrap();
    let (status, line) = site.noticed("failing").await;
    for detail in [&status["detail"], &line["detail"]] {
        let detail = detail.as_str().unwrap();
        assert!(detail.contains("check that the disk is healthy and not full"), "{detail}");
    }
    db.execute_batch("DROP TABLE filler; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    site.over().await;
}
