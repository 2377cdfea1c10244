//! The audit log: who did what, from where, when, and what it changed.

use keystead::{
    key::{Action, KeyRecord, NewKey},
    store::KeyAdmin,
};
use serde_json::{Value, json};

use super::{
    AuditEntry, Fixture,
    samples::{NOW, after_now, by_alice, id, key, record, store_keys, successor},
};

fn as_json(record: &KeyRecord) -> Value {
    serde_json::to_value(record).unwrap()
}

fn entry(action: &str, before: Option<&KeyRecord>, after: &KeyRecord) -> AuditEntry {
    AuditEntry {
        at: NOW,
        actor: "cli:alice".to_owned(),
        origin: "laptop".to_owned(),
        action: action.to_owned(),
        key_id: after.id.as_str().to_owned(),
        before: before.map(as_json),
        after: Some(as_json(after)),
    }
}

pub(super) async fn every_write_is_in_the_audit_log(fixture: impl Fixture) {
    let mut imported = key(2);
    imported.rights.metadata.insert("städtchen".to_owned(), "'\"\\".to_owned());
    store_keys(&fixture, &[key(1), imported]).await;
    let mut before = record(&fixture, 1).await;
    let mut expected =
        vec![entry("create", None, &before), entry("create", None, &record(&fixture, 2).await)];
    for (word, action) in [
        ("disable", Action::Disable),
        ("enable", Action::Enable),
        ("revoke", Action::Revoke),
        // Somebody did it, though it was done already.
        ("revoke", Action::Revoke),
    ] {
        let after = fixture.store().act(&before.id, action, None, &by_alice()).await.unwrap();
        expected.push(entry(word, Some(&before), &after));
        before = after;
    }
    assert_eq!(fixture.audit_log().await, expected);
}

pub(super) async fn both_keys_of_a_rotation_are_in_the_audit_log(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    let old = record(&fixture, 1).await;
    let rotate = Action::Rotate { retire_at: after_now(60), again: false };
    let retired =
        fixture.store().act(&old.id, rotate, Some(&successor(2)), &by_alice()).await.unwrap();
    let new = record(&fixture, 2).await;
    let log = fixture.audit_log().await;
    assert_eq!(log[1..], [entry("rotate", Some(&old), &retired), entry("create", None, &new)]);
}

pub(super) async fn a_refused_write_is_not_in_the_audit_log(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    fixture.store().act(&key(1).id, Action::Revoke, None, &by_alice()).await.unwrap();
    let before = fixture.audit_log().await;
    let store = fixture.store();
    store.act(&key(1).id, Action::Enable, None, &by_alice()).await.unwrap_err();
    store.act(&id("key_unknown"), Action::Revoke, None, &by_alice()).await.unwrap_err();
    let duplicate = NewKey { id: id("key_x"), ..key(1) };
    store.insert(&[key(2), duplicate], &by_alice()).await.unwrap_err();
    assert_eq!(fixture.audit_log().await, before);
}

pub(super) async fn the_audit_log_holds_no_digest(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    fixture.store().act(&key(1).id, Action::Revoke, None, &by_alice()).await.unwrap();
    for entry in fixture.audit_log().await {
        let whole = json!([entry.before, entry.after]).to_string();
        assert!(!whole.contains("digest"), "{whole}");
        assert!(!whole.contains(&key(1).digest.to_hex()), "{whole}");
    }
}
