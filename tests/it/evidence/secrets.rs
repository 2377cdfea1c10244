//! A valid secret file that is not the one of the store: the tag of no key says
//! anything then.

use std::{fs, path::Path};

use keystead::key::{Digest, KeyRing, Prefix};
use serde_json::Value;

use super::site::{Running, on};
use crate::harness::{
    backend::{Backend as _, Embedded, Server},
    keys::{Key, Keys, forged, of_acme},
    keystead::Keystead,
};

const GAUGE: &str = "keystead_secret_unknown";

const WARNS: &str = "secrets that are not in the secret file";

/// A server with a key, and another secret file.
async fn server() -> (Server, Key, Keystead) {
    let server = Server::start().await;
    let key = Keys::open(&server.config()).await.create(of_acme()).await;
    let other = on(&server.postgres.url(), Path::new("other.secret"));
    other.write("other.secret", other.run(["keys", "new-secret"]).await.ok());
    (server, key, other)
}

fn right(server: &Server) -> Keystead {
    on(&server.postgres.url(), &server.config().keys.secret_file.unwrap())
}

fn fingerprint(secret_file: &Path) -> String {
    let text = fs::read_to_string(secret_file).unwrap();
    let ring = KeyRing::parse(&text, Prefix::default(), true).unwrap();
    ring.fingerprints().next().unwrap().to_string()
}

/// One sentence says which secret is lacking, and what to do.
fn names(error: &str, fingerprint: &str) {
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    for said in [fingerprint, "keys.secret_file", "keys.retired_secrets"] {
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[tokio::test]
async fn nothing_that_mints_or_checks_begins_with_the_secret_of_another_server() {
    let (server, key, other) = server().await;
    let lacking = fingerprint(&server.config().keys.secret_file.unwrap());
    for command in [
        vec!["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        vec!["keys", "create", "--principal", "acme"],
        vec!["keys", "rotate", key.id.as_str(), "--grace", "1h"],
    ] {
        names(&other.run(&command).await.failed(1), &lacking);
    }
    assert_eq!(server.postgres.value("SELECT count(*) FROM keystead.api_keys").await, "1");
}

#[tokio::test]
async fn nothing_that_mints_or_checks_begins_with_the_secret_of_another_file() {
    let embedded = Embedded::start().await;
    let key = Keys::open(&embedded.config()).await.create(of_acme()).await;
    let lacking = fingerprint(&embedded.path().with_file_name("keystead.secret"));
    let url = format!("sqlite:{}", embedded.path().display());
    let other = on(&url, Path::new("other.secret"));
    other.write("other.secret", other.run(["keys", "new-secret"]).await.ok());
    for command in [
        vec!["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        vec!["keys", "create", "--principal", "acme"],
        vec!["keys", "rotate", key.id.as_str(), "--grace", "1h"],
    ] {
        names(&other.run(&command).await.failed(1), &lacking);
    }
}

#[tokio::test]
async fn secret_that_was_given_up_does_not_keep_a_service_from_starting() {
    let (server, key, other) = server().await;
    let lacking = fingerprint(&server.config().keys.secret_file.unwrap());
    let config = fs::read_to_string(other.path("keystead.toml")).unwrap();
    other.write("keystead.toml", format!("{config}retired_secrets = [{lacking:?}]\n"));
    let running = Running::start(&other).await;
    running.admin().until_ready().await;
    running.until_says(&key.text, "CREDENTIAL_MALFORMED").await;
    running.until_well(GAUGE).await;
    let created: Value = other.run(["keys", "create", "--principal", "a", "--json"]).await.json();
    running.until_says(created["key"].as_str().unwrap(), "OK").await;
}

#[tokio::test]
async fn secret_of_another_store_denies_nobody_when_the_store_comes_after_the_start() {
    let (mut server, key, other) = server().await;
    server.postgres.kill();
    let running = Running::start(&other).await;
    for _ in 0..20 {
        assert_eq!(running.says(&key.text).await, "SECRET_UNKNOWN");
    }
    server.postgres.start().await;
    running.until_noticed("secret", GAUGE, WARNS).await;
    for _ in 0..20 {
        assert_eq!(running.says(&key.text).await, "SECRET_UNKNOWN");
        assert_eq!(running.says("ks_live_x").await, "CREDENTIAL_MALFORMED", "it has not our form");
    }
    let revoke = "UPDATE keystead.api_keys SET state = 'revoked'";
    server.sql(revoke).await;
    running.until_well(GAUGE).await;
    running.until_says(&key.text, "CREDENTIAL_MALFORMED").await;
}

#[tokio::test]
async fn forged_key_is_malformed_only_when_the_store_confirms_that_no_secret_is_missing() {
    let (mut server, key, _) = server().await;
    server.postgres.kill();
    let running = Running::start(&right(&server)).await;
    let forged = forged(&key.text);
    assert_eq!(running.says(&forged).await, "SECRET_UNKNOWN");
    server.postgres.start().await;
    running.until_says(&forged, "CREDENTIAL_MALFORMED").await;
    running.until_says(&key.text, "OK").await;
    running.until_well(GAUGE).await;
    server.postgres.kill();
    assert_eq!(running.says(&forged).await, "CREDENTIAL_MALFORMED", "it was told before");
}

#[tokio::test]
async fn secret_with_which_another_instance_mints_is_noticed_and_so_is_the_end_of_its_keys() {
    let (server, key, _) = server().await;
    let keystead = right(&server);
    let running = Running::start(&keystead).await;
    let forged = forged(&key.text);
    running.until_says(&forged, "CREDENTIAL_MALFORMED").await;
    let insert = format!(
        "INSERT INTO keystead.api_keys (id, digest, principal, secret) \
         VALUES ('key_x', {}, 'x', '0123456789abcdef')",
        Server::digest(&Digest::from_bytes([7; 32]))
    );
    server.sql(&insert).await;
    running.until_noticed("secret", GAUGE, WARNS).await;
    assert_eq!(running.says(&forged).await, "SECRET_UNKNOWN");
    assert_eq!(running.says(&key.text).await, "OK");
    server.sql("DELETE FROM keystead.api_keys WHERE id = 'key_x'").await;
    running.until_well(GAUGE).await;
    running.until_says(&forged, "CREDENTIAL_MALFORMED").await;
}
