//! `keystead config`, `migrate` and `keys new-secret`

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::{list, mint};
use crate::harness::keystead::Keystead;

#[tokio::test]
async fn the_settings_in_force_can_be_loaded_again() {
    let keystead = Keystead::new();
    let first = keystead.run(["config"]).await.ok();
    keystead.write("keystead.toml", &first);
    let second = keystead.run(["config", "--config", "keystead.toml"]).await.ok();
    assert_eq!(first, second);
    let overridden = ["config", "--config", "keystead.toml", "--store", "sqlite:other.db"];
    assert!(keystead.run(overridden).await.ok().contains("sqlite:other.db"));
    let schema = keystead.run(["config", "--format", "json-schema"]).await.json();
    assert_eq!(schema["title"], "Config");
}

#[tokio::test]
async fn a_password_is_not_shown_and_no_file_is_opened() {
    let keystead = Keystead::new();
    keystead.write(
        "keystead.toml",
        "[store]\nurl = \"postgres://k:hidden@db/k\"\n[keys]\nsecret_file = \"/nowhere/x\"\n",
    );
    let shown = keystead.run(["config", "--config", "keystead.toml"]).await.ok();
    assert!(shown.contains("postgres://k:***@db/k") && shown.contains("/nowhere/x"), "{shown}");
    assert!(!shown.contains("hidden"));
}

#[tokio::test]
async fn every_command_reports_all_wrong_settings() {
    let keystead = Keystead::new();
    keystead.write("keystead.toml", "[store]\nurll = \"x\"\n[listen]\ngrpc = \"nowhere\"\n");
    for command in [vec!["serve"], vec!["keys", "list"], vec!["config"], vec!["migrate"]] {
        let args = command.iter().chain(&["--config", "keystead.toml"]);
        let error = keystead.run(args).await.failed(1);
        assert!(error.contains("did you mean `store.url`?"), "{command:?}: {error}");
        assert!(error.contains("`listen.grpc`"), "{command:?}: {error}");
    }
    let error = keystead.run(["keys", "list", "--config", "missing.toml"]).await.failed(1);
    assert!(error.contains("missing.toml"), "{error}");
}

#[tokio::test]
async fn a_setting_comes_from_the_environment_too() {
    let keystead = Keystead::new();
    let mut command = keystead.command(["keys", "create", "--principal", "acme"]);
    command.env("KEYSTEAD_STORE__URL", "sqlite:other.db").env("KEYSTEAD_KEYS__PREFIX", "acme");
    let created = crate::harness::keystead::Ran::of(command, "").await.ok();
    assert!(created.starts_with("acme_live_"), "{created}");
    assert!(keystead.path("other.db").exists() && !keystead.path("keystead.db").exists());
}

#[tokio::test]
async fn the_embedded_store_and_its_secret_are_private() {
    let keystead = Keystead::new();
    mint(&keystead, &[]).await;
    for file in ["keystead.db", "keystead.secret"] {
        let mode = std::fs::metadata(keystead.path(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_lost_secret_is_reported_and_not_replaced() {
    let keystead = Keystead::new();
    mint(&keystead, &[]).await;
    std::fs::remove_file(keystead.path("keystead.secret")).unwrap();
    for command in
        [&["serve", "--listen", "127.0.0.1:0"][..], &["keys", "create", "--principal", "acme"]]
    {
        let error = keystead.run(command).await.failed(1);
        assert!(error.contains("restore it from a backup"), "{error}");
        assert!(!keystead.path("keystead.secret").exists());
    }
}

#[tokio::test]
async fn a_new_secret_is_64_hex_digits_and_needs_no_configuration() {
    let keystead = Keystead::new();
    keystead.write("broken.toml", "this is no TOML");
    let secrets = [
        keystead.run(["keys", "new-secret"]).await,
        keystead.run(["keys", "new-secret", "--config", "broken.toml"]).await,
    ];
    for secret in &secrets {
        assert_eq!((secret.code, secret.stderr.as_str()), (Some(0), ""));
        assert_eq!(secret.stdout.len(), 65);
        let digits = secret.stdout.strip_suffix('\n').unwrap();
        assert!(digits.bytes().all(|b| b.is_ascii_hexdigit()), "64 hex digits");
    }
    assert_ne!(secrets[0].stdout, secrets[1].stdout);
    assert!(!keystead.path("keystead.db").exists());
    keystead.write("secret", &secrets[0].stdout);
    keystead.write("keystead.toml", "[keys]\nsecret_file = \"secret\"\n");
    let create = ["keys", "create", "--principal", "acme", "--config", "keystead.toml"];
    keystead.run(create).await.ok();
}

#[tokio::test]
async fn a_secret_on_a_terminal_comes_with_the_advice_to_write_it_to_a_file() {
    let keystead = Keystead::new();
    // `script` of util-linux runs a command on its own terminal.
    let program = env!("CARGO_BIN_EXE_keystead");
    let call = format!("'{program}' keys new-secret");
    let script = tokio::process::Command::new("script").args(["-qec", &call, "/dev/null"]).output();
    let shown = String::from_utf8(script.await.unwrap().stdout).unwrap();
    assert!(shown.contains("mode 0600") && shown.contains("umask 077"), "{shown}");
    let piped = keystead.run(["keys", "new-secret"]).await;
    assert_eq!(piped.stderr, "");
}

#[tokio::test]
async fn an_embedded_store_needs_no_migration() {
    let keystead = Keystead::new();
    assert_eq!(keystead.run(["migrate"]).await.ok(), "the schema is up to date\n");
    let applied: Value = keystead.run(["migrate", "--json"]).await.json();
    assert_eq!(applied, serde_json::json!({"applied": []}));
    assert_eq!(list(&keystead).await.len(), 0);
}
