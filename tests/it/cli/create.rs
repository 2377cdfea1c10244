//! `keystead keys create`

use std::fs;

use rusqlite::Connection;
use serde_json::json;

use super::{is_key, list, mint, text};
use crate::harness::keystead::{Keystead, Ran};

#[tokio::test]
async fn a_created_key_is_alone_on_stdout_and_its_description_on_stderr() {
    let keystead = Keystead::new();
    let created = keystead.run(["keys", "create", "--principal", "acme", "--scope", "read"]).await;
    let key = created.stdout.trim_end();
    assert!(is_key(key, "live"), "{created}");
    assert_eq!(created.stdout, format!("{key}\n"));
    for said in ["id          key_", "principal   acme", "scopes      read", "shown this once"] {
        assert!(created.stderr.contains(said), "{created}");
    }
    assert!(!created.stderr.contains(key), "{created}");
}

#[tokio::test]
async fn json_has_the_key_its_id_and_every_field_of_the_record() {
    let keystead = Keystead::new();
    let args = [
        "--name",
        "billing job",
        "--scope",
        "read",
        "--scope",
        "write",
        "--expires-in",
        "90d",
        "--not-before",
        "2026-01-01T00:00:00Z",
        "--allow-network",
        "10.0.0.0/8",
        "--allow-network",
        "192.0.2.7",
        "--audience",
        "billing",
        "--metadata",
        "plan=gold",
        "--metadata",
        "note=a=b",
        "--env",
        "test",
    ];
    let created = mint(&keystead, &args).await;
    assert!(is_key(text(&created, "key"), "test"), "{created}");
    assert!(text(&created, "id").starts_with("key_"));
    let key = text(&created, "key");
    assert_eq!(text(&created, "hint"), format!("ks_test_…{}", &key[key.len() - 4..]));
    for (field, value) in [
        ("principal", json!("acme")),
        ("name", json!("billing job")),
        ("scopes", json!(["read", "write"])),
        ("allowed_networks", json!(["10.0.0.0/8", "192.0.2.7/32"])),
        ("audiences", json!(["billing"])),
        ("metadata", json!({"plan": "gold", "note": "a=b"})),
        ("state", json!("active")),
        ("not_before", json!("2026-01-01T00:00:00Z")),
        ("last_used_at", json!(null)),
        ("revision", json!(1)),
    ] {
        assert_eq!(created[field], value, "{field}");
    }
    let [born, end]: [jiff::Timestamp; 2] =
        ["created_at", "expires_at"].map(|field| text(&created, field).parse().unwrap());
    assert_eq!(born.duration_until(end).as_hours(), 90 * 24);

    let mut stored = list(&keystead).await.remove(0);
    stored["key"] = created["key"].clone();
    assert_eq!(stored, created, "the list shows the same record");
}

#[tokio::test]
async fn the_key_itself_is_stored_nowhere() {
    let keystead = Keystead::new();
    let created = mint(&keystead, &[]).await;
    let key = text(&created, "key").as_bytes();
    for file in ["keystead.db", "keystead.db-wal", "keystead.secret"] {
        // The log is gone when the last command has closed the database.
        let bytes = fs::read(keystead.path(file)).unwrap_or_default();
        assert!(!bytes.windows(key.len()).any(|window| window == key), "{file}");
    }
}

#[tokio::test]
async fn the_audit_log_says_which_user_did_it_and_on_which_host() {
    let keystead = Keystead::new();
    let created = mint(&keystead, &[]).await;
    keystead.run(["keys", "revoke", text(&created, "id")]).await.ok();
    let db = Connection::open(keystead.path("keystead.db")).unwrap();
    let mut query = db.prepare("SELECT actor, origin, action FROM audit_log ORDER BY id").unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let rows: Vec<(String, String, String)> = rows.map(Result::unwrap).collect();
    let [created, revoked] = rows.as_slice() else { panic!("{rows:?}") };
    let user = std::process::Command::new("id").arg("-un").output().unwrap();
    let user = String::from_utf8(user.stdout).unwrap();
    assert_eq!(created.0, format!("cli:{}", user.trim()));
    assert_eq!((created.2.as_str(), revoked.2.as_str()), ("create", "revoke"));
    assert!(!created.1.is_empty() && created.1 == revoked.1, "{rows:?}");
}

#[tokio::test]
async fn invalid_key_settings_are_refused_with_the_remedy_and_nothing_is_stored() {
    let keystead = Keystead::new();
    let long = "x".repeat(257);
    let long_pair = format!("n={}", "x".repeat(1025));
    for (args, said) in [
        (vec!["--principal", ""], "the principal is empty; write 1 to 256 bytes"),
        (vec!["--principal", &long], "the principal is 257 bytes long; 256 are allowed"),
        (vec!["--principal", "p", "--scope", "a b"], "has white space in it; give each one"),
        (vec!["--principal", "p", "--scope", ""], "the scope is empty"),
        (vec!["--principal", "p", "--audience", "a b"], "has white space in it"),
        (vec!["--principal", "p", "--name", &long], "the name is 257 bytes long"),
        (vec!["--principal", "p", "--metadata", &long_pair], "1025 bytes long; 1024 are allowed"),
        (vec!["--principal", "p", "--metadata", "plan"], "write NAME=VALUE"),
        (vec!["--principal", "p", "--metadata", "a=1", "--metadata", "a=2"], "is given twice"),
        (
            vec!["--principal", "p", "--allow-network", "10.1.2.3/8"],
            "did you mean 10.0.0.0/8, or 10.1.2.3 alone?",
        ),
        (vec!["--principal", "p", "--allow-network", "here"], "is no network; write one such as"),
        (vec!["--principal", "p", "--expires-in", "soon"], "write a length of time such as 90d"),
        (vec!["--principal", "p", "--expires-in", "0s"], "the key would never be valid"),
        (vec!["--principal", "p", "--expires-in", "9000y"], "ends past the year 9999"),
        (vec!["--principal", "p", "--not-before", "2027-01-01"], "write an RFC 3339 time"),
        (
            vec!["--principal", "p", "--not-before", "2999-01-01T00:00:00Z", "--expires-in", "1d"],
            "it expires before it becomes valid",
        ),
        (vec!["--principal", "p", "--env", "prod"], "[possible values: live, test]"),
        (vec![], "--principal <NAME>"),
    ] {
        let error = keystead.run(["keys", "create"].iter().chain(&args)).await.failed(1);
        assert!(error.contains(said), "{args:?}: {error}");
    }
    assert_eq!(list(&keystead).await.len(), 0);
}

#[tokio::test]
async fn a_key_that_cannot_be_printed_is_named_so_that_it_can_be_revoked() {
    let keystead = Keystead::new();
    let command = keystead.command(["keys", "create", "--principal", "acme"]);
    let error = Ran::unread(command).await.failed(1);
    let stored = list(&keystead).await;
    let id = text(&stored[0], "id");
    assert!(error.contains(&format!("`keystead keys revoke {id}`")), "{error}");
}
