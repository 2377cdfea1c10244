//! Storing keys, and noting their use.

use keystead::{
    key::NewKey,
    store::{KeyAdmin, Usage, WriteError},
};

use super::{
    Fixture,
    samples::{
        NOW, after_now, by_alice, changes, digest, holdings, id, key, lookup, record, store_keys,
    },
};

async fn positions_refused(fixture: &impl Fixture, keys: &[NewKey]) -> Vec<usize> {
    match fixture.store().insert(keys, &by_alice()).await {
        Err(WriteError::Duplicates(positions)) => positions,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn storing_no_keys_changes_nothing(fixture: impl Fixture) {
    let before = holdings(&fixture).await;
    store_keys(&fixture, &[]).await;
    assert_eq!(holdings(&fixture).await, before);
}

pub(super) async fn a_stored_digest_is_refused_by_position_and_nothing_is_stored(
    fixture: impl Fixture,
) {
    store_keys(&fixture, &[key(1), key(2)]).await;
    let before = holdings(&fixture).await;

    let same_digests = [
        key(3),
        NewKey { id: id("key_x"), ..key(2) },
        key(4),
        NewKey { id: id("key_y"), ..key(1) },
    ];
    assert_eq!(positions_refused(&fixture, &same_digests).await, [1, 3]);
    assert_eq!(holdings(&fixture).await, before);

    let same_id = [NewKey { digest: digest(9), ..key(1) }];
    assert_eq!(positions_refused(&fixture, &same_id).await, [0]);
    assert_eq!(holdings(&fixture).await, before);

    // The rest can be stored without them.
    store_keys(&fixture, &[key(3), key(4)]).await;
}

pub(super) async fn a_digest_twice_in_one_call_is_refused_by_position_and_nothing_is_stored(
    fixture: impl Fixture,
) {
    let before = holdings(&fixture).await;
    let again = |name: &str, number| NewKey { id: id(name), ..key(number) };
    let keys = [key(1), key(2), again("key_x", 1), key(3), again("key_y", 1), again("key_z", 3)];
    assert_eq!(positions_refused(&fixture, &keys).await, [2, 4, 5]);
    assert_eq!(holdings(&fixture).await, before);
}

pub(super) async fn many_keys_are_stored_in_one_call(fixture: impl Fixture) {
    let keys: Vec<_> = (0..2000).map(key).collect();
    store_keys(&fixture, &keys).await;
    assert_eq!(changes(&fixture).await.len(), keys.len());
    assert_eq!(fixture.audit_log().await.len(), keys.len());
    assert!(lookup(&fixture, digest(1999)).await.is_some());
}

pub(super) async fn use_is_noted_and_only_goes_forward(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1), key(2)]).await;
    let used = async |number, seconds| {
        let uses = [(key(number).id, after_now(seconds))];
        fixture.store().touch(&uses).await.unwrap();
        record(&fixture, number).await.last_used_at
    };
    assert_eq!(used(1, 10).await, Some(after_now(10)));
    assert_eq!(used(1, 9).await, Some(after_now(10)));
    assert_eq!(used(1, 10).await, Some(after_now(10)));
    assert_eq!(used(1, 11).await, Some(after_now(11)));
    assert_eq!(record(&fixture, 2).await.last_used_at, None);
}

pub(super) async fn use_of_an_unknown_id_is_passed_over(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1), key(2)]).await;
    let at = after_now(1);
    let uses = [(key(1).id, at), (id("key_unknown"), at), (key(2).id, at), (key(2).id, NOW)];
    fixture.store().touch(&uses).await.unwrap();
    assert_eq!(record(&fixture, 1).await.last_used_at, Some(at));
    assert_eq!(record(&fixture, 2).await.last_used_at, Some(at));
    assert_eq!(fixture.store().get(&id("key_unknown")).await.unwrap(), None);
    fixture.store().touch(&[]).await.unwrap();
}
