//! Opening a file: new, old, shared, forbidden, or no database at all.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use keystead::store::{
    KeyAdmin, StoreErrorKind,
    sqlite::{SqliteConfig, SqliteStore},
};
use rusqlite::Connection;

use super::{
    fixture::{Embedded, by_alice, config_in, failure, key},
    process,
};
use crate::conformance::Fixture as _;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_new_file_and_those_beside_it_are_for_their_owner_alone() {
    let embedded = Embedded::start().await;
    embedded.insert(1).await;
    for suffix in ["", "-wal", "-shm"] {
        assert_eq!(mode(&embedded.beside(suffix)), 0o600, "{suffix}");
    }
}

#[tokio::test]
async fn what_was_stored_is_there_when_the_file_is_opened_again() {
    let Embedded { store, directory } = Embedded::start().await;
    store.insert(&[key(1)], &by_alice()).await.unwrap();
    let record = store.get(&key(1).id).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&config_in(&directory)).unwrap();
    assert_eq!(store.get(&key(1).id).await.unwrap(), record);
}

#[tokio::test]
async fn a_path_with_a_meaning_to_sqlite_is_a_file_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    for name in [":memory:", "file:a.db?mode=memory", "a?b#c%41.db"] {
        let config = SqliteConfig { path: directory.path().join(name), ..config_in(&directory) };
        SqliteStore::open(&config).unwrap().insert(&[key(1)], &by_alice()).await.unwrap();
        let store = SqliteStore::open(&config).unwrap();
        assert!(store.get(&key(1).id).await.unwrap().is_some(), "{name}");
        assert!(config.path.is_file(), "{name}");
    }
}

#[test]
fn threads_that_open_a_new_file_at_once_all_succeed() {
    // So often that they collide in each way that they can.
    for _ in 0..30 {
        let directory = tempfile::tempdir().unwrap();
        let config = config_in(&directory);
        let start = Barrier::new(6);
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    start.wait();
                    SqliteStore::open(&config).unwrap();
                });
            }
        });
    }
}

#[test]
fn processes_that_open_a_new_file_at_once_all_succeed() {
    const TEST: &str = "sqlite::opening::processes_that_open_a_new_file_at_once_all_succeed";
    const PROCESSES: usize = 4;

    if let Some(path) = process::passed_path() {
        // Until all are there, so that they do open it at once.
        let arrived = path.with_extension("arrived");
        fs::create_dir_all(&arrived).unwrap();
        fs::write(arrived.join(std::process::id().to_string()), "").unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while fs::read_dir(&arrived).unwrap().count() < PROCESSES {
            assert!(Instant::now() < deadline, "the others did not come");
            thread::yield_now();
        }
        let directory = tempfile::tempdir().unwrap();
        SqliteStore::open(&SqliteConfig { path, ..config_in(&directory) }).unwrap();
        return;
    }
    for _ in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let path = config_in(&directory).path;
        let started: Vec<_> = (0..PROCESSES).map(|_| process::start_again(TEST, &path)).collect();
        for child in started {
            process::passes(child);
        }
        let applied: u32 = Connection::open(path)
            .unwrap()
            .query_row("SELECT count(*) FROM refinery_schema_history", [], |row| row.get(0))
            .unwrap();
        assert_eq!(applied, 1);
    }
}

#[tokio::test]
async fn an_open_file_can_be_opened_again_while_somebody_writes_to_it() {
    let embedded = Embedded::start().await;
    let writer = embedded.connection();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    let second = SqliteStore::open(&config_in(&embedded.directory)).unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(second.get(&key(1).id).await.unwrap().is_none());
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let config = config_in(&directory);
    let letter = "Dear diary, ".repeat(1000);
    fs::write(&config.path, &letter).unwrap();
    let kind = failure(SqliteStore::open(&config), "restore it from a backup");
    assert_eq!(kind, StoreErrorKind::Unreadable);
    assert_eq!(fs::read_to_string(&config.path).unwrap(), letter);
}

#[test]
fn a_database_of_somebody_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config = config_in(&directory);
    let other = Connection::open(&config.path).unwrap();
    other.execute_batch("CREATE TABLE api_keys (key text)").unwrap();
    let kind = failure(SqliteStore::open(&config), "name another file");
    assert_eq!(kind, StoreErrorKind::Schema);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let embedded = Embedded::start().await;
    embedded
        .sql(
            "INSERT INTO refinery_schema_history
             SELECT 99, 'tomorrow', applied_on, checksum FROM refinery_schema_history",
        )
        .await;
    let outcome = SqliteStore::open(&config_in(&embedded.directory));
    assert_eq!(failure(outcome, "V99__tomorrow"), StoreErrorKind::Schema);
}

#[test]
fn a_missing_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing/keystead.db");
    let config = SqliteConfig { path, ..config_in(&directory) };
    let kind = failure(SqliteStore::open(&config), "missing/keystead.db");
    assert_eq!(kind, StoreErrorKind::Unreachable);
}

#[test]
fn a_directory_is_no_database() {
    let directory = tempfile::tempdir().unwrap();
    let config = config_in(&directory);
    fs::create_dir(&config.path).unwrap();
    let kind = failure(SqliteStore::open(&config), "keystead.db");
    assert_eq!(kind, StoreErrorKind::Unreachable);
}

/// Files that whoever runs [`is_forbidden`] may not use.
fn forbid(directory: &Path) {
    for name in ["read-only-file", "read-only-directory", "unreadable-file", "empty-directory"] {
        let part = directory.join(name);
        fs::create_dir(&part).unwrap();
        let path = part.join("keystead.db");
        if name != "empty-directory" {
            let files = tempfile::tempdir().unwrap();
            drop(SqliteStore::open(&SqliteConfig { path: path.clone(), ..config_in(&files) }));
            set_mode(&path, if name == "unreadable-file" { 0o000 } else { 0o444 });
        }
        set_mode(&part, if name.ends_with("directory") { 0o555 } else { 0o777 });
    }
}

fn is_forbidden(directory: &Path) {
    for name in ["read-only-file", "read-only-directory", "unreadable-file", "empty-directory"] {
        let files = tempfile::tempdir().unwrap();
        let path = directory.join(name).join("keystead.db");
        let outcome = SqliteStore::open(&SqliteConfig { path, ..config_in(&files) });
        let kind = failure(outcome, "must be allowed to write this file and its directory");
        assert_eq!(kind, StoreErrorKind::Forbidden, "{name}");
    }
}

#[test]
fn a_file_or_directory_that_may_not_be_written_is_forbidden() {
    const TEST: &str = "sqlite::opening::a_file_or_directory_that_may_not_be_written_is_forbidden";

    if let Some(directory) = process::passed_path() {
        assert!(!process::is_root());
        return is_forbidden(&directory);
    }
    let directory = tempfile::tempdir().unwrap();
    forbid(directory.path());
    if process::is_root() {
        set_mode(directory.path(), 0o755);
        process::passes_as_nobody(TEST, directory.path());
    } else {
        is_forbidden(directory.path());
    }
    for name in ["read-only-directory", "empty-directory"] {
        set_mode(&directory.path().join(name), 0o755);
    }
}
