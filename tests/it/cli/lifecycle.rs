//! `keystead keys list`, `show`, `disable`, `enable`, `revoke` and `rotate`

use serde_json::{Value, json};

use super::{is_key, list, mint, text};
use crate::harness::keystead::Keystead;

/// Does something to a key, and returns the record as it is afterwards.
async fn act(keystead: &Keystead, action: &str, id: &str) -> Value {
    keystead.run(["keys", action, id, "--json"]).await.json()
}

#[tokio::test]
async fn a_disabled_key_can_be_enabled_and_a_revoked_one_never() {
    let keystead = Keystead::new();
    let created = mint(&keystead, &[]).await;
    let id = text(&created, "id");
    for (action, state) in [
        ("disable", "disabled"),
        ("disable", "disabled"),
        ("enable", "active"),
        ("revoke", "revoked"),
        ("revoke", "revoked"),
    ] {
        assert_eq!(act(&keystead, action, id).await["state"], state);
    }
    for action in ["enable", "disable", "rotate"] {
        let error = keystead.run(["keys", action, id]).await.failed(1);
        assert!(error.contains("it is revoked, and that is final"), "{error}");
        assert!(error.contains("`keystead keys create`"), "{error}");
    }
    let shown = keystead.run(["keys", "show", id, "--json"]).await.json();
    assert_eq!(shown["state"], "revoked");
}

#[tokio::test]
async fn a_change_prints_the_record_as_it_is_afterwards_in_one_line() {
    let keystead = Keystead::new();
    let created = mint(&keystead, &[]).await;
    let id = text(&created, "id");
    for (action, state) in [("disable", "disabled"), ("enable", "active"), ("revoke", "revoked")] {
        let printed = keystead.run(["keys", action, id]).await.ok();
        assert_eq!(printed, format!("{id} of acme is {state}\n"));
    }
}

#[tokio::test]
async fn an_unknown_id_is_an_error_that_says_how_to_find_the_right_one() {
    let keystead = Keystead::new();
    keystead.run(["migrate"]).await.ok();
    for action in ["show", "disable", "enable", "revoke", "rotate"] {
        let error = keystead.run(["keys", action, "key_x"]).await.failed(1);
        let said = "keystead: there is no key key_x; `keystead keys list` shows all\n";
        assert_eq!(error, said, "{action}");
        let error = keystead.run(["keys", action, ""]).await.failed(1);
        assert!(error.contains("a key id is 1 to 128 visible ASCII characters"), "{error}");
    }
}

#[tokio::test]
async fn a_key_in_place_of_its_id_is_refused_and_not_repeated() {
    let keystead = Keystead::new();
    let created = mint(&keystead, &[]).await;
    let key = text(&created, "key");
    for action in ["show", "disable", "enable", "revoke", "rotate"] {
        let error = keystead.run(["keys", action, key]).await.failed(1);
        assert!(error.contains("that is a key, not the id of one"), "{error}");
        assert!(!error.contains(key), "{error}");
    }
}

#[tokio::test]
async fn a_table_has_every_key_with_aligned_columns() {
    let keystead = Keystead::new();
    let named = ["--metadata", "größer=als", "--scope", "read", "--scope", "write"];
    mint(&keystead, &named).await;
    mint(&keystead, &["--env", "test", "--expires-in", "90d"]).await;
    let table = keystead.run(["keys", "list"]).await.ok();
    let lines: Vec<Vec<char>> = table.lines().map(|line| line.chars().collect()).collect();
    assert_eq!(lines.len(), 3, "{table}");
    let heads: String = lines[0].iter().collect();
    for head in ["ID", "PRINCIPAL", "STATE", "EXPIRES", "LAST USED", "HINT", "SCOPES"] {
        let start = heads.find(head).unwrap();
        for line in &lines[1..] {
            let edge: String = line[start.saturating_sub(2)..=start].iter().collect();
            assert!(start == 0 || edge.starts_with("  ") && !edge.ends_with(' '), "{table}");
        }
    }
    for said in ["read write", "never"] {
        assert!(table.contains(said), "{said} is missing in\n{table}");
    }
}

#[tokio::test]
async fn newest_key_is_listed_first() {
    let keystead = Keystead::new();
    let mut minted = Vec::new();
    for _ in 0..5 {
        minted.insert(0, text(&mint(&keystead, &[]).await, "id").to_owned());
    }
    let table = keystead.run(["keys", "list"]).await.ok();
    let listed: Vec<_> = table.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(listed, minted, "{table}");
    let records = keystead.run(["keys", "list", "--json"]).await.json();
    let ids: Vec<_> = records.as_array().unwrap().iter().map(|key| text(key, "id")).collect();
    assert_eq!(ids, minted);
}

#[tokio::test]
async fn an_empty_list_is_no_table_and_says_how_to_make_a_key() {
    let keystead = Keystead::new();
    keystead.run(["migrate"]).await.ok();
    let listed = keystead.run(["keys", "list"]).await;
    assert_eq!(listed.stdout, "");
    assert!(listed.stderr.contains("`keystead keys create --principal NAME`"), "{listed}");
    let listed = keystead.run(["keys", "list", "--json"]).await;
    assert_eq!((listed.stdout.as_str(), listed.stderr.as_str()), ("[]\n", ""));
}

#[tokio::test]
async fn a_list_can_be_narrowed_to_a_principal_or_to_a_secret() {
    let keystead = Keystead::new();
    let old = mint(&keystead, &[]).await;
    let secret = text(&old, "secret").to_owned();
    let create = ["keys", "create", "--principal", "bob", "--json"];
    keystead.run(create).await.json();
    // A new secret mints from now on.
    let fresh = keystead.run(["keys", "new-secret"]).await.ok();
    let old_secret = std::fs::read_to_string(keystead.path("keystead.secret")).unwrap();
    keystead.write("keystead.secret", format!("{fresh}{old_secret}"));
    let new = keystead.run(create).await.json();
    assert_ne!(new["secret"], old["secret"]);

    let of_bob = keystead.run(["keys", "list", "--principal", "bob", "--json"]).await.json();
    assert_eq!(of_bob.as_array().unwrap().len(), 2);
    let left = ["keys", "list", "--secret", &secret, "--json"];
    assert_eq!(keystead.run(left).await.json().as_array().unwrap().len(), 2);
    let left = ["keys", "list", "--secret", &secret, "--principal", "bob", "--json"];
    assert_eq!(keystead.run(left).await.json().as_array().unwrap().len(), 1);
    let none = ["keys", "list", "--secret", "0000000000000000", "--json"];
    assert_eq!(keystead.run(none).await.json(), json!([]));
    let error = keystead.run(["keys", "list", "--secret", "x"]).await.failed(1);
    assert!(error.contains("a fingerprint is 16 hex digits"), "{error}");
}

#[tokio::test]
async fn show_has_everything_but_the_key() {
    let keystead = Keystead::new();
    let mut created = mint(&keystead, &["--metadata", "plan=gold"]).await;
    let key = created.as_object_mut().unwrap().remove("key").unwrap();
    let id = text(&created, "id");
    let shown = keystead.run(["keys", "show", id]).await.ok();
    for field in ["id", "hint", "secret", "principal", "state"] {
        assert!(shown.contains(text(&created, field)), "{field} is missing in\n{shown}");
    }
    assert!(shown.contains("metadata    plan=gold"), "{shown}");
    assert!(!shown.contains(key.as_str().unwrap()));
    assert_eq!(keystead.run(["keys", "show", id, "--json"]).await.json(), created);
}

#[tokio::test]
async fn a_rotated_key_has_a_successor_with_its_rights_and_ends_after_the_grace() {
    let keystead = Keystead::new();
    let args = ["--scope", "read", "--metadata", "plan=gold", "--env", "test"];
    let old = mint(&keystead, &args).await;
    let id = text(&old, "id");
    let new = keystead.run(["keys", "rotate", id, "--grace", "2h", "--json"]).await.json();
    assert!(is_key(text(&new, "key"), "test"), "the environment of the old key: {new}");
    assert_ne!(new["id"], old["id"]);
    assert_ne!(new["key"], old["key"]);
    for field in ["principal", "scopes", "metadata", "expires_at", "secret", "state"] {
        assert_eq!(new[field], old[field], "{field}");
    }
    let replaced = &new["replaces"];
    assert_eq!(replaced["id"], old["id"]);
    let end: jiff::Timestamp = text(replaced, "expires_at").parse().unwrap();
    let now: jiff::Timestamp = text(&new, "created_at").parse().unwrap();
    assert_eq!(now.duration_until(end).as_hours(), 2);
    assert_eq!(list(&keystead).await.len(), 2);
}

#[tokio::test]
async fn a_rotation_prints_the_new_key_alone_and_reports_both_ids_and_the_end_of_the_old() {
    let keystead = Keystead::new();
    let old = mint(&keystead, &[]).await;
    let id = text(&old, "id");
    let rotated = keystead.run(["keys", "rotate", id]).await;
    let key = rotated.stdout.trim_end();
    assert!(is_key(key, "live"), "{rotated}");
    assert!(rotated.stderr.contains(&format!("It replaces {id}, which ends at 2")), "{rotated}");
    assert!(!rotated.stderr.contains(key), "{rotated}");
    let listed = list(&keystead).await;
    let new = listed.iter().find(|key| key["id"] != old["id"]).unwrap();
    assert!(rotated.stderr.contains(text(new, "id")), "{rotated}");
}

#[tokio::test]
async fn a_rotation_without_grace_ends_the_old_key_at_once_and_the_new_one_at_the_given_time() {
    let keystead = Keystead::new();
    let old = mint(&keystead, &[]).await;
    let id = text(&old, "id");
    let rotate = ["keys", "rotate", id, "--grace", "0s", "--expires-in", "30d", "--env", "test"];
    let new = keystead.run(rotate.iter().chain(&["--json"])).await.json();
    assert!(is_key(text(&new, "key"), "test"));
    let [now, end]: [jiff::Timestamp; 2] =
        ["created_at", "expires_at"].map(|field| text(&new, field).parse().unwrap());
    assert_eq!(now.duration_until(end).as_hours(), 30 * 24);
    assert!(keystead.run(["keys", "show", id]).await.ok().contains("state       active, expired"));
    assert!(keystead.run(["keys", "list"]).await.ok().contains("  expired  "));
    let error = keystead.run(["keys", "rotate", id]).await.failed(1);
    assert!(error.contains("it has expired; mint a new key"), "{error}");
}

#[tokio::test]
async fn a_disabled_key_cannot_be_rotated_and_nothing_is_printed() {
    let keystead = Keystead::new();
    let created = mint(&keystead, &[]).await;
    let id = text(&created, "id");
    keystead.run(["keys", "disable", id]).await.ok();
    let error = keystead.run(["keys", "rotate", id]).await.failed(1);
    assert!(error.contains("it is disabled; enable it first"), "{error}");
    assert_eq!(list(&keystead).await.len(), 1);
    for grace in ["soon", "-1h"] {
        let error = keystead.run(["keys", "rotate", id, &format!("--grace={grace}")]).await;
        let error = error.failed(1);
        assert!(error.contains("write a length of time such as 90d, 24h or 30m"), "{error}");
    }
}

#[tokio::test]
async fn a_key_is_rotated_twice_only_on_request_and_then_for_the_time_that_it_had() {
    let keystead = Keystead::new();
    let old = mint(&keystead, &["--expires-in", "90d"]).await;
    let id = text(&old, "id");
    let first = keystead.run(["keys", "rotate", id, "--grace", "1h", "--json"]).await.json();
    assert_eq!(
        (&first["predecessor"], &first["replaces"]["successor"]),
        (&old["id"], &first["id"])
    );
    let error = keystead.run(["keys", "rotate", id]).await.failed(1);
    assert!(error.contains(&format!("a successor already, {}", text(&first, "id"))), "{error}");
    assert_eq!(list(&keystead).await.len(), 2);

    let second = keystead.run(["keys", "rotate", id, "--again", "--json"]).await.json();
    assert_eq!(second["expires_at"], old["expires_at"], "not when the grace of the first ends");
    let shown = keystead.run(["keys", "show", id]).await.ok();
    assert!(shown.contains(&format!("replaced by {}", text(&second, "id"))), "{shown}");
    let exported = keystead.run(["keys", "export"]).await.ok();
    assert!(exported.contains(&format!(r#""successor":{}"#, second["id"])), "{exported}");
}

#[tokio::test]
async fn a_key_whose_successor_is_gone_is_rotated_again_and_the_grace_is_printed() {
    let keystead = Keystead::new();
    let old = mint(&keystead, &["--expires-in", "90d"]).await;
    let id = text(&old, "id");
    let first = keystead.run(["keys", "rotate", id, "--json"]).await.json();
    let db = rusqlite::Connection::open(keystead.path("keystead.db")).unwrap();
    db.execute("DELETE FROM api_keys WHERE id = ?1", [text(&first, "id")]).unwrap();
    let error = keystead.run(["keys", "rotate", id, "--again"]).await.failed(1);
    assert!(error.contains("say how long the new key is valid with --expires-in"), "{error}");
    keystead.run(["keys", "rotate", id, "--again", "--expires-in", "30d"]).await.ok();
}

#[tokio::test]
async fn a_successor_that_no_key_may_be_is_refused_with_the_remedy() {
    let keystead = Keystead::new();
    let old = mint(&keystead, &["--not-before", "2999-01-01T00:00:00.5Z"]).await;
    let id = text(&old, "id");
    let error = keystead.run(["keys", "rotate", id, "--expires-in", "1d"]).await.failed(1);
    let said = format!(
        "keystead: key {id} becomes valid at 2999-01-01T00:00:00Z, and its successor would have \
         expired by then; lengthen --expires-in\n"
    );
    assert_eq!(error, said);
    let db = rusqlite::Connection::open(keystead.path("keystead.db")).unwrap();
    db.execute("UPDATE api_keys SET scopes = '[\"read write\"]'", ()).unwrap();
    let error = keystead.run(["keys", "rotate", id]).await.failed(1);
    let said = format!("key {id} has rights that no new key may have: the scope \"read write\"");
    assert!(error.contains(&said), "{error}");
    assert_eq!(list(&keystead).await.len(), 1);
}
