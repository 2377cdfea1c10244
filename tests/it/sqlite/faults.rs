//! What may happen to the file while it is in use.

use std::fs;

use keystead::{
    key::Revision,
    store::{
        Answer, KeyAdmin, Lookups, StoreErrorKind,
        sqlite::{SqliteConfig, SqliteStore},
    },
};

use super::fixture::{Embedded, by_alice, config_in, failure, key};
use crate::{conformance::Fixture as _, harness::changes::changes_after};

#[tokio::test]
async fn a_file_that_is_gone_is_not_made_anew_and_works_when_it_is_back() {
    let embedded = Embedded::start().await;
    embedded.insert(1).await;
    let elsewhere = embedded.directory.path().join("elsewhere");
    fs::rename(embedded.path(), &elsewhere).unwrap();

    let outcome = embedded.has(1).await;
    assert_eq!(failure(outcome, "put the file back"), StoreErrorKind::Unreachable);
    embedded.store.insert(&[key(2)], &by_alice()).await.unwrap_err();
    assert!(!embedded.path().exists());

    fs::rename(elsewhere, embedded.path()).unwrap();
    assert!(embedded.has(1).await.unwrap());
    embedded.insert(2).await;
}

/// Another file, complete in itself, that holds key 2.
async fn other_file(embedded: &Embedded) -> std::path::PathBuf {
    let path = embedded.directory.path().join("other.db");
    let config = SqliteConfig { path: path.clone(), ..config_in(&embedded.directory) };
    let other = SqliteStore::open(&config).unwrap();
    other.insert(&[key(2)], &by_alice()).await.unwrap();
    drop(other);
    // The last connection has put the log into the file.
    assert!(!embedded.directory.path().join("other.db-wal").exists());
    path
}

#[tokio::test]
async fn another_file_is_never_adopted_and_the_old_one_works_when_it_is_back() {
    let embedded = Embedded::start().await;
    embedded.insert(1).await;
    let other = other_file(&embedded).await;
    let elsewhere = embedded.directory.path().join("elsewhere");
    fs::rename(embedded.path(), &elsewhere).unwrap();
    fs::copy(&other, embedded.path()).unwrap();

    for _ in 0..2 {
        let outcome = embedded.has(1).await;
        assert_eq!(failure(outcome, "another file has taken"), StoreErrorKind::Unreachable);
        embedded.store.insert(&[key(3)], &by_alice()).await.unwrap_err();
    }
    // Neither file was touched.
    assert_eq!(fs::read(embedded.path()).unwrap(), fs::read(other).unwrap());
    fs::rename(elsewhere, embedded.path()).unwrap();
    assert!(embedded.has(1).await.unwrap());
    embedded.insert(2).await;
}

#[tokio::test]
async fn another_file_without_the_log_of_the_old_one_is_not_adopted_either() {
    let embedded = Embedded::start().await;
    embedded.insert(1).await;
    assert!(embedded.has(1).await.unwrap());
    let other = other_file(&embedded).await;
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(embedded.beside(suffix)).unwrap();
    }
    fs::rename(other, embedded.path()).unwrap();
    let outcome = embedded.has(1).await;
    assert_eq!(failure(outcome, "another file has taken"), StoreErrorKind::Unreachable);
}

#[tokio::test]
async fn a_file_that_is_overwritten_is_unreadable_until_it_is_repaired() {
    let Embedded { store, directory } = Embedded::start().await;
    store.insert(&[key(1)], &by_alice()).await.unwrap();
    drop(store);
    let embedded =
        Embedded { store: SqliteStore::open(&config_in(&directory)).unwrap(), directory };
    let whole = fs::read(embedded.path()).unwrap();

    fs::write(embedded.path(), vec![b'x'; whole.len()]).unwrap();
    let outcome = embedded.has(1).await;
    assert_eq!(failure(outcome, "restore it from a backup"), StoreErrorKind::Unreadable);

    fs::write(embedded.path(), whole).unwrap();
    assert!(embedded.has(1).await.unwrap());
}

#[tokio::test]
async fn a_missing_table_is_a_matter_of_the_schema() {
    let embedded = Embedded::start().await;
    embedded.sql("ALTER TABLE api_keys RENAME TO hidden").await;
    let outcome = embedded.has(1).await;
    assert_eq!(failure(outcome, "no such table: api_keys"), StoreErrorKind::Schema);
    embedded.sql("ALTER TABLE hidden RENAME TO api_keys").await;
    assert!(!embedded.has(1).await.unwrap());
}

#[tokio::test]
async fn a_row_that_is_no_key_is_named_and_the_others_are_found() {
    let embedded = Embedded::start().await;
    for number in 1..=5 {
        embedded.insert(number).await;
    }
    for (number, column, value) in [
        (1, "allowed_networks", r#"'["10.0.0.0/99"]'"#),
        (2, "scopes", "'[1]'"),
        (3, "expires_at", "9223372036854775807"),
        (4, "secret", "'xyz'"),
    ] {
        let id = key(number).id;
        embedded.sql(&format!("UPDATE api_keys SET {column} = {value} WHERE id = '{id}'")).await;
        let named = format!("column `{column}` of key `{id}`");
        let found = embedded.store.find(&[key(number).digest, key(5).digest]).await.unwrap();
        let error = found.unreadable(&key(number).digest).unwrap().clone();
        assert_eq!(failure(Err::<(), _>(error), &named), StoreErrorKind::Unreadable);
        assert!(matches!(found.get(&key(5).digest), Some(Answer::Found(_))));
        assert_eq!(failure(embedded.has(number).await, &named), StoreErrorKind::Unreadable);
    }
    let lookup = embedded.store.find(&[key(5).digest]).await.unwrap();
    assert!(matches!(lookup.get(&key(5).digest), Some(Answer::Found(_))));
}

#[tokio::test]
async fn nonsense_is_refused_by_the_schema() {
    let embedded = Embedded::start().await;
    embedded.insert(1).await;
    let db = embedded.connection();
    for nonsense in [
        "principal = ''",
        "digest = x'00'",
        "digest = 'text'",
        "state = 'paused'",
        "scopes = 'read'",
        "scopes = '{}'",
        "metadata = '[]'",
        "expires_at = 'tomorrow'",
        "id = ''",
        "created_at = NULL",
    ] {
        db.execute_batch(&format!("UPDATE api_keys SET {nonsense}")).expect_err(nonsense);
    }
    let changes = changes_after(&embedded.store, Revision(0)).await;
    assert_eq!(changes.len(), 1);
}
