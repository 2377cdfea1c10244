//! Keys to store, and looking at all that is stored.

use std::num::NonZeroU32;

use jiff::{SignedDuration, Timestamp};
use keystead::{
    key::{
        CompactKey, Digest, KeyId, KeyRecord, Lifetime, NewKey, Revision, Rights, State, Successor,
    },
    store::{Answer, Change, ChangeKind, KeyAdmin, Lookups, Page, Provenance, StoredKey},
};

use super::{AuditEntry, Fixture};
use crate::harness::changes::{changes_after, head};

/// When everything here happens, to the microsecond.
pub(super) const NOW: Timestamp = Timestamp::constant(1_800_000_000, 123_456_000);

pub(super) const ALL: NonZeroU32 = NonZeroU32::MAX;

pub(super) fn after_now(seconds: i64) -> Timestamp {
    NOW + SignedDuration::from_secs(seconds)
}

pub(super) fn id(text: &str) -> KeyId {
    text.parse().unwrap()
}

pub(super) fn digest(number: u32) -> Digest {
    Digest::sha256_of(&number.to_be_bytes())
}

/// An active key of `acme`, different for each number.
pub(super) fn key(number: u32) -> NewKey {
    NewKey {
        id: id(&format!("key_{number:06}")),
        digest: digest(number),
        secret: None,
        hint: String::new(),
        rights: Rights { principal: "acme".to_owned(), ..Rights::default() },
        state: State::Active,
    }
}

pub(super) fn successor(number: u32) -> Successor {
    Successor { key: key(number), lifetime: Lifetime::OfOld }
}

pub(super) fn by_alice() -> Provenance {
    Provenance { actor: "cli:alice".to_owned(), origin: "laptop".to_owned(), at: NOW }
}

/// What a key looks like in the store.
pub(super) fn record_of(key: &NewKey, revision: Revision) -> KeyRecord {
    KeyRecord {
        id: key.id.clone(),
        hint: key.hint.clone(),
        secret: key.secret,
        rights: key.rights.clone(),
        state: key.state,
        created_at: NOW,
        last_used_at: None,
        predecessor: None,
        successor: None,
        revision,
    }
}

pub(super) async fn store_keys(fixture: &impl Fixture, keys: &[NewKey]) {
    fixture.store().insert(keys, &by_alice()).await.unwrap();
}

pub(super) async fn record(fixture: &impl Fixture, number: u32) -> KeyRecord {
    fixture.store().get(&key(number).id).await.unwrap().unwrap()
}

/// The record of the key that a lookup finds, if it does. The lookup says the same
/// of it, as far as it is held in memory.
pub(super) async fn lookup(fixture: &impl Fixture, digest: Digest) -> Option<KeyRecord> {
    let lookup = fixture.store().find(&[digest]).await.unwrap();
    match lookup.get(&digest).unwrap() {
        Answer::Found(known) => {
            let record = fixture.store().get(&known.key_id()).await.unwrap();
            assert_eq!(record.as_ref().map(CompactKey::from).as_ref(), Some(known));
            record
        }
        Answer::Absent(_) => None,
    }
}

pub(super) async fn changes(fixture: &impl Fixture) -> Vec<Change> {
    changes_after(fixture.store(), Revision(0)).await
}

/// Changes without their numbers, which only have to grow.
pub(super) fn without_numbers(changes: &[Change]) -> Vec<(Digest, ChangeKind)> {
    assert!(changes.is_sorted_by(|a, b| a.revision < b.revision), "{changes:?}");
    changes.iter().map(|change| (change.digest, change.kind)).collect()
}

/// The changes after those that were seen, without their numbers.
pub(super) async fn changes_since(
    fixture: &impl Fixture,
    seen: &[Change],
) -> Vec<(Digest, ChangeKind)> {
    let all = changes(fixture).await;
    assert_eq!(&all[..seen.len()], seen);
    without_numbers(&all)[seen.len()..].to_vec()
}

/// All that a store holds.
#[derive(Debug, PartialEq)]
pub(super) struct Holdings {
    keys: Vec<StoredKey>,
    changes: Vec<Change>,
    head: Revision,
    audit_log: Vec<AuditEntry>,
}

pub(super) async fn holdings(fixture: &impl Fixture) -> Holdings {
    let page = Page { principal: None, after: None, limit: ALL };
    Holdings {
        keys: fixture.store().list(&page).await.unwrap(),
        changes: changes(fixture).await,
        head: head(fixture.store()).await,
        audit_log: fixture.audit_log().await,
    }
}
