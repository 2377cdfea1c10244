//! `keystead keys export`, and what it is good for.

use serde_json::Value;

use super::{import, list, mint, text};
use crate::harness::keystead::Keystead;

/// The records without what an import makes anew, in a fixed order.
fn essence(records: Vec<Value>) -> Vec<String> {
    let mut records: Vec<String> = records
        .into_iter()
        .map(|mut record| {
            let fields = record.as_object_mut().unwrap();
            for new in ["id", "created_at", "revision"] {
                fields.remove(new).unwrap();
            }
            record.to_string()
        })
        .collect();
    records.sort();
    records
}

#[tokio::test]
async fn imported_keys_go_from_one_store_to_another() {
    let (one, other) = (Keystead::new(), Keystead::new());
    one.run_with(["keys", "import", "-"], import::csv(0..2500)).await.ok();
    let full = r#"{"sha256":"00000000000000000000000000000000000000000000000000000000000000ff",
        "principal":"bob","name":"a \"quoted\" name","scopes":["x"],"audiences":["y"],
        "allowed_networks":["10.0.0.0/8","2001:db8::/32"],"metadata":{"k":"v é"},
        "state":"revoked","not_before":"2026-01-01T00:00:00.123456Z",
        "expires_at":"2999-01-01T00:00:00Z"}"#;
    one.run_with(["keys", "import", "-"], full.replace('\n', "")).await.ok();
    let exported = one.run(["keys", "export"]).await.ok();
    let imported = other.run_with(["keys", "import", "-"], &exported).await.ok();
    assert_eq!(imported, "imported 2501 keys\n");
    assert_eq!(essence(list(&one).await), essence(list(&other).await));
}

#[tokio::test]
async fn a_minted_key_is_exported_without_its_digest_and_cannot_be_imported() {
    let (one, other) = (Keystead::new(), Keystead::new());
    let created = mint(&one, &[]).await;
    let exported = one.run(["keys", "export"]).await.ok();
    let line: Value = serde_json::from_str(&exported).unwrap();
    assert_eq!(line["secret"], created["secret"]);
    assert!(line.get("sha256").is_none() && !exported.contains(text(&created, "key")));
    let error = other.run_with(["keys", "import", "-"], exported).await.failed(1);
    assert!(error.contains("line 1: it is a key that keystead minted"), "{error}");
}

#[tokio::test]
async fn an_empty_store_exports_nothing() {
    let keystead = Keystead::new();
    keystead.run(["migrate"]).await.ok();
    assert_eq!(keystead.run(["keys", "export"]).await.ok(), "");
}
