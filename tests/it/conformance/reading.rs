//! Lookups and lists.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use jiff::Timestamp;
use keystead::{
    key::{CompactKey, NewKey, Rights, State},
    store::{Answer, KeyAdmin, Lookups, Page, Usage},
};

use super::{
    Fixture,
    samples::{ALL, after_now, changes, digest, id, key, lookup, record, record_of, store_keys},
};

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().copied().map(str::to_owned).collect()
}

/// A key with something in every field.
fn full() -> NewKey {
    let mut metadata = BTreeMap::new();
    metadata.insert("plan".to_owned(), "gold".to_owned());
    metadata.insert("город".to_owned(), "Ω \"quoted\" \\ back\nslash 🦀".to_owned());
    metadata.insert(String::new(), String::new());
    NewKey {
        id: id("key_~everything!"),
        digest: digest(1),
        secret: Some("00ff112233445566".parse().unwrap()),
        hint: "ks_live_…abcd".to_owned(),
        rights: Rights {
            principal: "ünïcode <acme> 'quoted'".to_owned(),
            name: "billing; DROP TABLE api_keys --".to_owned(),
            scopes: texts(&["read", "write:*", "", "ключ", "a,b", "{c}", "NULL", "\"d\"", "read"]),
            allowed_networks: [
                "10.0.0.0/8",
                "192.0.2.7/32",
                "2001:db8::/32",
                "::/0",
                "172.16.0.0/12",
            ]
            .map(|network| network.parse().unwrap())
            .to_vec(),
            audiences: texts(&["orders", "päyments"]),
            metadata,
            not_before: Some(Timestamp::from_microsecond(-1).unwrap()),
            expires_at: Some(Timestamp::from_microsecond(4_102_444_800_999_999).unwrap()),
        },
        state: State::Disabled,
    }
}

/// A key with as little as possible.
fn bare() -> NewKey {
    let rights = Rights { principal: "p".to_owned(), ..Rights::default() };
    NewKey { id: id("k"), rights, ..key(2) }
}

/// A key with more in it than anybody needs.
fn many() -> NewKey {
    let numbered = |what| (0..500).map(|n| format!("{what}-{n}")).collect::<Vec<_>>();
    let mut key = key(3);
    key.rights.scopes = numbered("scope");
    key.rights.audiences = numbered("audience");
    key.rights.allowed_networks =
        (0..=255).map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
    key.rights.metadata = numbered("m").into_iter().map(|m| (m.clone(), m)).collect();
    key
}

pub(super) async fn every_field_of_a_key_is_found_as_it_was_stored(fixture: impl Fixture) {
    let keys = [full(), bare(), many()];
    store_keys(&fixture, &keys).await;
    let changes = changes(&fixture).await;
    for (key, change) in keys.iter().zip(changes) {
        let stored = Some(record_of(key, change.revision));
        assert_eq!(fixture.store().get(&key.id).await.unwrap(), stored);
        assert_eq!(lookup(&fixture, key.digest).await, stored);
    }
    // The time of use is the one field that is not given at the start.
    let used_at = after_now(1);
    fixture.store().touch(&[(keys[0].id.clone(), used_at)]).await.unwrap();
    assert_eq!(lookup(&fixture, keys[0].digest).await.unwrap().last_used_at, Some(used_at));
    let found = fixture.store().find(&[keys[0].digest]).await.unwrap();
    let Some(Answer::Found(known)) = found.get(&keys[0].digest) else { panic!("it is stored") };
    let minute = Duration::from_mins(1);
    assert!(!known.note_use(used_at + minute / 2, minute), "its last use was found with it");
    assert!(known.note_use(used_at + minute, minute));
}

pub(super) async fn networks_of_plain_sql_are_read_as_they_are_compared(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    let given = ["::ffff:10.0.0.0/104", "192.0.2.7", "::ffff:192.0.2.8", "2001:db8::/32"];
    let (table, given) = (fixture.api_keys(), fixture.networks(&given));
    fixture.sql(&format!("UPDATE {table} SET allowed_networks = {given}")).await;
    let networks = record(&fixture, 1).await.rights.allowed_networks;
    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.0.2.7/32", "192.0.2.8/32", "2001:db8::/32"]);
}

pub(super) async fn one_lookup_returns_found_and_absent_keys(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1), key(2)]).await;
    let asked = [digest(1), digest(9), digest(2), digest(9)];
    let lookup = fixture.store().find(&asked).await.unwrap();
    for number in [1, 2] {
        let Some(Answer::Found(found)) = lookup.get(&digest(number)) else {
            panic!("{number} is stored");
        };
        assert_eq!(*found, CompactKey::from(&record(&fixture, number).await));
    }
    assert!(matches!(lookup.get(&digest(9)), Some(Answer::Absent(_))));
}

pub(super) async fn lookup_returns_only_requested_digests(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1), key(2)]).await;
    let lookup = fixture.store().find(&[digest(1)]).await.unwrap();
    assert_eq!(lookup.get(&digest(2)), None);
    assert_eq!(lookup.get(&digest(9)), None);
}

pub(super) async fn a_lookup_of_no_digests_is_no_error(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    let lookup = fixture.store().find(&[]).await.unwrap();
    assert_eq!(lookup.get(&digest(1)), None);
}

pub(super) async fn a_thousand_digests_are_found_in_one_lookup(fixture: impl Fixture) {
    let keys: Vec<_> = (0..500).map(key).collect();
    store_keys(&fixture, &keys).await;
    let asked: Vec<_> = (0..1000).map(digest).collect();
    let lookup = fixture.store().find(&asked).await.unwrap();
    for (number, digest) in (0..).zip(&asked) {
        match lookup.get(digest).unwrap() {
            Answer::Found(record) => assert_eq!(record.key_id(), key(number).id),
            Answer::Absent(_) => assert!(number >= 500, "{number} is stored"),
        }
    }
}

pub(super) async fn an_id_that_is_not_stored_is_none(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    assert_eq!(fixture.store().get(&id("key_000002")).await.unwrap(), None);
    assert_eq!(fixture.store().get(&id("KEY_000001")).await.unwrap(), None);
}

pub(super) async fn a_list_goes_on_page_by_page_in_the_order_of_ids(fixture: impl Fixture) {
    // In the order of bytes, which no language sorts by.
    let sorted = ["Key_a", "_", "key_10", "key_9", "key_A", "key_Z", "key__", "key_a", "key_z~"];
    let keys: Vec<_> = sorted
        .iter()
        .rev()
        .zip(0..)
        .map(|(text, number)| NewKey { id: id(text), ..key(number) })
        .collect();
    store_keys(&fixture, &keys).await;

    let mut listed = Vec::new();
    let mut page = Page { principal: None, after: None, limit: NonZeroU32::new(2).unwrap() };
    loop {
        let keys = fixture.store().list(&page).await.unwrap();
        assert!(keys.len() <= 2);
        let Some(last) = keys.last() else { break };
        page.after = Some(last.record.id.clone());
        listed.extend(keys);
    }
    let ids: Vec<_> = listed.iter().map(|key| key.record.id.as_str()).collect();
    assert_eq!(ids, sorted);
    for listed in listed {
        assert_eq!(lookup(&fixture, listed.digest).await, Some(listed.record));
    }
}

pub(super) async fn a_list_can_be_of_one_principal(fixture: impl Fixture) {
    let principals = ["other", "acme", "other", "acme", "other", "acme"];
    let keys: Vec<_> = (0..)
        .zip(principals)
        .map(|(number, principal)| {
            let rights = Rights { principal: principal.to_owned(), ..Rights::default() };
            NewKey { rights, ..key(number) }
        })
        .collect();
    store_keys(&fixture, &keys).await;

    let of =
        |principal: &str, after| Page { principal: Some(principal.to_owned()), after, limit: ALL };
    let ids = async |page: Page| -> Vec<_> {
        let keys = fixture.store().list(&page).await.unwrap();
        keys.into_iter().map(|key| key.record.id).collect()
    };
    assert_eq!(ids(of("acme", None)).await, [key(1).id, key(3).id, key(5).id]);
    assert_eq!(ids(of("acme", Some(key(1).id))).await, [key(3).id, key(5).id]);
    assert_eq!(ids(of("Acme", None)).await, []);
    assert_eq!(ids(of("", None)).await, []);
}
