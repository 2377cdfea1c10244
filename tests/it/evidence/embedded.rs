//! The embedded store and the secret beside it: neither is taken for one of a pair
//! that it does not belong to.

use std::fs;

use rusqlite::Connection;
use tokio::net::TcpListener;

use super::site::Running;
use crate::harness::keystead::Keystead;

const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

const CREATE: [&str; 4] = ["keys", "create", "--principal", "acme"];

const DATABASE: [&str; 3] = ["keystead.db", "keystead.db-wal", "keystead.db-shm"];

/// A folder with a store, its secret and a key, and the key.
async fn pair() -> (Keystead, String) {
    let keystead = Keystead::new();
    let key = keystead.run(CREATE).await.ok().trim_end().to_owned();
    (keystead, key)
}

fn remove_database(keystead: &Keystead) {
    for file in DATABASE {
        let _ = fs::remove_file(keystead.path(file));
    }
}

/// What files there are but for the log of the service.
fn files(keystead: &Keystead) -> Vec<String> {
    let names = fs::read_dir(keystead.path("")).unwrap();
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("serve.")).collect();
    names.sort();
    names
}

/// Whatever makes or serves keys says how to begin anew.
async fn refuses(keystead: &Keystead) {
    keystead.write("keys.csv", format!("sha256,principal\n{},acme\n", "ab".repeat(32)));
    let before = files(keystead);
    for command in [&SERVE[..], &CREATE[..], &["keys", "import", "keys.csv"][..]] {
        let error = keystead.run(command).await.failed(1);
        for said in ["keystead.secret is there", "keystead.db", "to begin anew on purpose remove"] {
            assert!(error.contains(said), "{command:?}: {said}: {error}");
        }
        assert_eq!(files(keystead), before, "{command:?} leaves nothing behind");
    }
}

/// Without the secret there is nothing that the store could be taken for.
async fn begins_anew(keystead: &Keystead) {
    fs::remove_file(keystead.path("keystead.secret")).unwrap();
    let running = Running::start(keystead).await;
    let welcome = running.server.stdout();
    let key = welcome.split_whitespace().find(|word| word.starts_with("ks_live_")).unwrap();
    running.until_says(key, "OK").await;
}

#[tokio::test]
async fn secret_whose_store_is_missing_is_refused_until_it_is_removed() {
    let (keystead, _) = pair().await;
    remove_database(&keystead);
    refuses(&keystead).await;
    assert!(!keystead.path("keystead.db").exists());
    begins_anew(&keystead).await;
}

#[tokio::test]
async fn secret_whose_store_has_no_bytes_is_refused_until_it_is_removed() {
    let (keystead, _) = pair().await;
    remove_database(&keystead);
    keystead.write("keystead.db", "");
    refuses(&keystead).await;
    assert_eq!(fs::metadata(keystead.path("keystead.db")).unwrap().len(), 0);
    begins_anew(&keystead).await;
}

#[tokio::test]
async fn secret_whose_store_was_replaced_by_an_empty_one_is_refused_until_it_is_removed() {
    let (keystead, _) = pair().await;
    remove_database(&keystead);
    let other = Keystead::new();
    other.run(["migrate"]).await.ok();
    let (from, to) = (other.path("keystead.db"), keystead.path("keystead.db"));
    fs::copy(from, to).unwrap();
    refuses(&keystead).await;
    begins_anew(&keystead).await;
}

#[tokio::test]
async fn store_that_is_put_back_serves_its_keys() {
    let (keystead, key) = pair().await;
    let aside = keystead.path("aside.db");
    fs::rename(keystead.path("keystead.db"), &aside).unwrap();
    refuses(&keystead).await;
    fs::rename(&aside, keystead.path("keystead.db")).unwrap();
    let running = Running::start(&keystead).await;
    running.until_says(&key, "OK").await;
}

#[tokio::test]
async fn first_start_that_found_its_port_taken_can_be_repeated() {
    let keystead = Keystead::new();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = ["serve", "--listen", &address, "--admin", "127.0.0.1:0"];
    keystead.run(serve).await.failed(1);
    assert!(!keystead.path("keystead.secret").exists(), "nothing is left behind");
    let running = Running::start(&keystead).await;
    let welcome = running.server.stdout();
    let key = welcome.split_whitespace().find(|word| word.starts_with("ks_live_")).unwrap();
    running.until_says(key, "OK").await;
}

#[tokio::test]
async fn secret_that_was_written_over_is_refused_and_named() {
    let (keystead, key) = pair().await;
    let secret = fs::read_to_string(keystead.path("keystead.secret")).unwrap();
    let new = keystead.run(["keys", "new-secret"]).await.ok();
    keystead.write("keystead.secret", new);
    let db = Connection::open(keystead.path("keystead.db")).unwrap();
    let named: String = db.query_row("SELECT secret FROM api_keys", [], |row| row.get(0)).unwrap();
    for command in [&SERVE[..], &CREATE[..]] {
        let error = keystead.run(command).await.failed(1);
        assert!(error.contains(&named) && error.contains("keys.retired_secrets"), "{error}");
    }
    keystead.write("keystead.secret", secret);
    let running = Running::start(&keystead).await;
    running.until_says(&key, "OK").await;
}

#[tokio::test]
async fn emptied_store_gets_no_first_key_that_would_speak_for_it() {
    let (keystead, key) = pair().await;
    let db = Connection::open(keystead.path("keystead.db")).unwrap();
    let trigger: String = db
        .query_row("SELECT sql FROM sqlite_master WHERE name = 'api_keys_deleted'", [], |row| {
            row.get(0)
        })
        .unwrap();
    db.execute_batch(&format!("DROP TRIGGER api_keys_deleted; DELETE FROM api_keys; {trigger};"))
        .unwrap();
    drop(db);
    let running = Running::start(&keystead).await;
    running.admin().until_metric("keystead_store_suspect", 1.0).await;
    assert_eq!(running.says(&key).await, "STORE_SUSPECT");
    assert_eq!(running.server.stdout(), "");
}
