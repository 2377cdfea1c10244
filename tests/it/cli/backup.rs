//! What is left of the embedded store after a stop, and copies of it.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{mint, text};
use crate::harness::keystead::Keystead;

#[tokio::test]
async fn after_a_clean_stop_the_file_alone_holds_every_key() {
    let keystead = Keystead::new();
    let server = keystead.serve(&[]).await;
    let created = mint(&keystead, &[]).await;
    let (url, key) = (server.url(), text(&created, "key"));
    keystead.run(["check", key, "--server", &url]).await.ok();
    assert!(server.stop().await.success());
    assert!(!keystead.path("keystead.db-wal").exists());
    assert!(!keystead.path("keystead.db-shm").exists());

    let elsewhere = Keystead::new();
    for name in ["keystead.db", "keystead.secret"] {
        fs::copy(keystead.path(name), elsewhere.path(name)).unwrap();
    }
    elsewhere.run(["keys", "show", text(&created, "id")]).await.ok();
}

#[tokio::test]
async fn a_backup_of_a_store_that_is_served_can_be_served_in_its_place() {
    let keystead = Keystead::new();
    let server = keystead.serve(&[]).await;
    let created = mint(&keystead, &[]).await;
    assert_eq!(keystead.run(["backup", "copy.db"]).await.ok(), "wrote copy.db\n");
    let mode = fs::metadata(keystead.path("copy.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(server.stop().await.success());

    let restored = Keystead::new();
    fs::copy(keystead.path("copy.db"), restored.path("keystead.db")).unwrap();
    fs::copy(keystead.path("keystead.secret"), restored.path("keystead.secret")).unwrap();
    let server = restored.serve(&[]).await;
    let url = server.url();
    restored.run(["check", text(&created, "key"), "--server", &url]).await.ok();
}

#[tokio::test]
async fn a_backup_overwrites_nothing_makes_no_store_and_is_not_for_postgresql() {
    let keystead = Keystead::new();
    let error = keystead.run(["backup", "copy.db"]).await.failed(1);
    assert!(error.contains("there is no store keystead.db"), "{error}");
    assert!(!keystead.path("keystead.db").exists() && !keystead.path("copy.db").exists());

    mint(&keystead, &[]).await;
    keystead.write("copy.db", "mine");
    let error = keystead.run(["backup", "copy.db"]).await.failed(1);
    assert!(error.contains("no backup at copy.db"), "{error}");
    assert_eq!(fs::read_to_string(keystead.path("copy.db")).unwrap(), "mine");

    let server = ["backup", "copy.db", "--store", "postgres://keystead@db/keystead"];
    let error = keystead.run(server).await.failed(1);
    assert!(error.contains("pg_dump"), "{error}");
}

#[tokio::test]
async fn serve_raises_its_limit_of_open_files_and_says_what_it_found() {
    let keystead = Keystead::new();
    let server = keystead.serve_with_open_files(64).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let columns: Vec<_> = open_files.split_whitespace().collect();
    assert_eq!(columns[3], columns[4], "soft and hard: {open_files}");
    assert_ne!(columns[3], "64");
    let said = format!(r#""open_files":"{}""#, columns[4]);
    assert!(server.log().contains(&said), "{}", server.log());
}
