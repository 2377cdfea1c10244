//! Commands on a PostgreSQL store.

use serde_json::json;

use super::{list, mint, text};
use crate::harness::{
    keystead::Keystead,
    postgres::{PASSWORD, Postgres},
};

/// A folder whose configuration names the server, and a secret.
async fn with(postgres: &Postgres, more: &str) -> Keystead {
    let url = postgres.url();
    configured(&format!("[store]\nurl = {url:?}\n{more}")).await
}

async fn configured(store: &str) -> Keystead {
    let keystead = Keystead::new();
    let secret = keystead.run(["keys", "new-secret"]).await.ok();
    keystead.write("secret", secret);
    let config = format!("{store}\n[keys]\nsecret_file = \"secret\"\n");
    keystead.configured_by("keystead.toml", config)
}

#[tokio::test]
async fn a_missing_schema_is_reported_with_the_command_that_creates_it() {
    let postgres = Postgres::start_new().await;
    let keystead = with(&postgres, "").await;
    for command in [
        vec!["keys", "create", "--principal", "acme"],
        vec!["keys", "list"],
        vec!["keys", "show", "key_1"],
        vec!["keys", "revoke", "key_1"],
        vec!["keys", "export"],
    ] {
        let error = keystead.run(&command).await.failed(1);
        assert!(error.contains("`keystead migrate`"), "{command:?}: {error}");
        assert!(!error.contains(PASSWORD), "{error}");
    }
}

#[tokio::test]
async fn keys_are_created_changed_and_imported_after_a_migration() {
    let postgres = Postgres::start_new().await;
    let keystead = with(&postgres, "").await;
    let migrated = keystead.run(["migrate", "--json"]).await.json();
    assert_eq!(migrated["applied"].as_array().unwrap().len(), 1, "{migrated}");
    assert_eq!(keystead.run(["migrate"]).await.ok(), "the schema is up to date\n");

    let created = mint(&keystead, &["--scope", "read"]).await;
    let id = text(&created, "id");
    let new = keystead.run(["keys", "rotate", id, "--json"]).await.json();
    assert_eq!(new["replaces"]["id"], created["id"]);
    let revoked = keystead.run(["keys", "revoke", id, "--json"]).await.json();
    assert_eq!(revoked["state"], "revoked");
    let import = ["keys", "import", "-", "--skip-bad", "--json"];
    let file = super::import::csv([1, 2, 1]);
    let imported = keystead.run_with(import, &file).await.json();
    assert_eq!(imported, json!({"imported": 2, "skipped": 1}));
    let again = keystead.run_with(["keys", "import", "-"], super::import::csv([3, 2])).await;
    let error = again.failed(1);
    assert!(error.contains("  line 3: its key is stored already"), "{error}");
    assert_eq!(list(&keystead).await.len(), 4);
    let actor = "SELECT DISTINCT actor FROM keystead.audit_log";
    assert!(postgres.value(actor).await.starts_with("cli:"));
}

#[tokio::test]
async fn a_relation_of_somebody_else_is_listed_and_never_changed() {
    let postgres = Postgres::start_new().await;
    let own = with(&postgres, "").await;
    own.run(["migrate"]).await.ok();
    let created = mint(&own, &[]).await;
    let id = text(&created, "id");

    let keystead = with(&postgres, "relation = \"keystead.api_keys\"").await;
    keystead.write("secret", std::fs::read(own.path("secret")).unwrap());
    assert_eq!(list(&keystead).await.len(), 1);
    for command in [
        vec!["keys", "create", "--principal", "acme"],
        vec!["keys", "rotate", id],
        vec!["keys", "revoke", id],
    ] {
        let error = keystead.run(&command).await.failed(1);
        assert!(error.contains("`store.relation` is set, so that keys are read from"), "{error}");
    }
    let import = keystead.run_with(["keys", "import", "-"], super::import::csv([1])).await;
    assert!(import.failed(1).contains("`store.relation` is set"));
    assert!(keystead.run(["migrate"]).await.failed(1).contains("store.relation is set"));
    assert_eq!(list(&own).await.len(), 1);
}

#[tokio::test]
async fn an_unreachable_or_refusing_server_is_reported_without_the_password() {
    let keystead =
        configured("[store]\nurl = \"postgres://keystead:hidden@127.0.0.1:1/keystead\"").await;
    let error = keystead.run(["keys", "list"]).await.failed(1);
    assert!(error.contains("the store gave no answer: unreachable"), "{error}");
    assert!(error.contains("check that the server runs, and that `store.url`"), "{error}");
    assert!(!error.contains("hidden"), "{error}");
    let error = keystead.run(["keys", "create", "--principal", "acme"]).await.failed(1);
    assert!(error.contains("check that the server runs"), "{error}");

    let postgres = Postgres::start_new().await;
    let url = postgres.url().replace(PASSWORD, "hidden");
    let keystead = configured(&format!("[store]\nurl = {url:?}")).await;
    let error = keystead.run(["keys", "list"]).await.failed(1);
    assert!(error.contains("check the user, password and rights of `store.url`"), "{error}");
    assert!(!error.contains("hidden"), "{error}");
}

#[tokio::test]
async fn postgres_without_a_secret_says_how_to_make_one() {
    let keystead = Keystead::new();
    let store = ["--store", "postgres://keystead@127.0.0.1:1/keystead"];
    for command in [&["serve"][..], &["keys", "create", "--principal", "acme"]] {
        let error = keystead.run(command.iter().chain(&store)).await.failed(1);
        assert!(error.contains("`keystead keys new-secret > FILE`"), "{error}");
    }
}
