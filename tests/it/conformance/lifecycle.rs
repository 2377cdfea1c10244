//! What is done to a key: the rules are those of `key::Action`, the store
//! applies them inside its transaction.

use jiff::Timestamp;
use keystead::{
    key::{Action, KeyRecord, LifecycleError, Lifetime, NewKey, Rights, State, Successor},
    store::{KeyAdmin, WriteError},
};

use super::{
    Fixture,
    samples::{
        NOW, after_now, by_alice, changes, digest, holdings, id, key, lookup, record, store_keys,
        successor,
    },
};

const STATES: [State; 3] = [State::Active, State::Disabled, State::Revoked];

fn actions() -> [Action; 5] {
    [
        Action::Disable,
        Action::Enable,
        Action::Revoke,
        Action::Rotate { retire_at: after_now(60), again: false },
        Action::Rotate { retire_at: after_now(6000), again: false },
    ]
}

/// A key for every state and expiry, and every action: no expiry, one that is
/// past, one that is to come.
fn all_combinations() -> Vec<(NewKey, Action)> {
    let mut combinations = Vec::new();
    for state in STATES {
        for expires_at in [None, Some(after_now(-1)), Some(NOW), Some(after_now(600))] {
            for action in actions() {
                let number = u32::try_from(combinations.len()).unwrap();
                let mut key = NewKey { state, ..key(number) };
                key.rights.expires_at = expires_at;
                combinations.push((key, action));
            }
        }
    }
    combinations
}

/// What the rules make of a stored record.
fn by_the_rules(
    before: &KeyRecord,
    action: Action,
) -> Result<(State, Option<Timestamp>), LifecycleError> {
    action.apply(before, NOW)
}

pub(super) async fn every_action_ends_as_the_rules_say(fixture: impl Fixture) {
    for (key, action) in all_combinations() {
        store_keys(&fixture, std::slice::from_ref(&key)).await;
        let before = fixture.store().get(&key.id).await.unwrap().unwrap();
        let outcome = fixture.store().act(&key.id, action, None, &by_alice()).await;
        match (by_the_rules(&before, action), outcome) {
            (Ok((state, expires_at)), Ok(after)) => {
                assert_eq!((after.state, after.rights.expires_at), (state, expires_at));
                // All else is as it was, and what was returned is what is stored.
                let mut expected = before.clone();
                expected.state = state;
                expected.rights.expires_at = expires_at;
                expected.revision = after.revision;
                assert_eq!(after, expected);
                assert_eq!(lookup(&fixture, key.digest).await, Some(after));
            }
            (Err(expected), Err(WriteError::Refused { id, reason })) => {
                assert_eq!((id, reason), (key.id, expected));
            }
            (rules, outcome) => panic!("{key:?} {action:?}: {rules:?}, but {outcome:?}"),
        }
    }
}

pub(super) async fn a_refused_action_changes_nothing(fixture: impl Fixture) {
    let keys: Vec<_> = all_combinations().into_iter().map(|(key, _)| key).collect();
    store_keys(&fixture, &keys).await;
    let mut refused = 0;
    for (key, action) in all_combinations() {
        let before = fixture.store().get(&key.id).await.unwrap().unwrap();
        if by_the_rules(&before, action).is_ok() {
            continue;
        }
        let before = holdings(&fixture).await;
        let outcome =
            fixture.store().act(&key.id, action, Some(&successor(1000)), &by_alice()).await;
        assert!(matches!(outcome, Err(WriteError::Refused { .. })), "{outcome:?}");
        assert_eq!(holdings(&fixture).await, before, "{key:?} {action:?}");
        refused += 1;
    }
    // Of revoked keys all but revoking, of disabled ones rotating, and of
    // active ones rotating what has expired.
    assert_eq!(refused, 4 * 4 + 2 * 4 + 2 * 2);
}

pub(super) async fn an_action_on_an_unknown_id_changes_nothing(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    let before = holdings(&fixture).await;
    for action in actions() {
        let unknown = id("key_unknown");
        let outcome = fixture.store().act(&unknown, action, Some(&successor(2)), &by_alice()).await;
        assert!(matches!(outcome, Err(WriteError::NotFound(id)) if id == unknown));
    }
    assert_eq!(holdings(&fixture).await, before);
}

/// Stores a key with rights, and rotates it.
async fn rotate(fixture: &impl Fixture, successor: &Successor) -> (NewKey, KeyRecord) {
    let rights = Rights {
        principal: "acme".to_owned(),
        name: "billing".to_owned(),
        scopes: vec!["read".to_owned()],
        allowed_networks: vec!["10.0.0.0/8".parse().unwrap()],
        audiences: vec!["orders".to_owned()],
        metadata: [("plan".to_owned(), "gold".to_owned())].into(),
        not_before: Some(after_now(-10)),
        expires_at: Some(after_now(1000)),
    };
    let old = NewKey { rights, ..key(1) };
    store_keys(fixture, std::slice::from_ref(&old)).await;
    let rotate = Action::Rotate { retire_at: after_now(60), again: false };
    let retired = fixture.store().act(&old.id, rotate, Some(successor), &by_alice()).await;
    (old, retired.unwrap())
}

pub(super) async fn the_successor_of_a_rotated_key_has_its_rights(fixture: impl Fixture) {
    let minted = NewKey {
        secret: Some("0011223344556677".parse().unwrap()),
        hint: "ks_live_…abcd".to_owned(),
        rights: Rights { principal: "mallory".to_owned(), ..Rights::default() },
        ..key(2)
    };
    let successor = Successor { key: minted, lifetime: Lifetime::OfOld };
    let (old, retired) = rotate(&fixture, &successor).await;

    assert_eq!(retired.rights.expires_at, Some(after_now(60)));
    assert_eq!(retired.state, State::Active);
    let new = record(&fixture, 2).await;
    assert_eq!(new.rights, old.rights);
    assert_eq!((new.secret, &new.hint), (successor.key.secret, &successor.key.hint));
    assert_eq!((new.state, new.created_at, new.last_used_at), (State::Active, NOW, None));
    assert_eq!(lookup(&fixture, digest(2)).await, Some(new));
    assert_eq!(lookup(&fixture, digest(1)).await, Some(retired));
}

pub(super) async fn the_successor_of_a_rotated_key_may_expire_at_another_time(
    fixture: impl Fixture,
) {
    let successor = Successor { lifetime: Lifetime::Until(Some(after_now(9000))), ..successor(2) };
    let (old, _) = rotate(&fixture, &successor).await;
    let new = record(&fixture, 2).await;
    assert_eq!(new.rights.expires_at, Some(after_now(9000)));
    assert_eq!(new.rights.scopes, old.rights.scopes);
}

pub(super) async fn the_two_keys_of_a_rotation_name_each_other(fixture: impl Fixture) {
    let (_, retired) = rotate(&fixture, &successor(2)).await;
    assert_eq!((retired.predecessor, retired.successor), (None, Some(key(2).id)));
    let new = record(&fixture, 2).await;
    assert_eq!((new.predecessor, new.successor), (Some(key(1).id), None));
    fixture.store().act(&key(1).id, Action::Revoke, None, &by_alice()).await.unwrap();
    assert_eq!(record(&fixture, 1).await.successor, Some(key(2).id));
}

pub(super) async fn a_key_that_has_a_successor_is_rotated_again_only_on_request(
    fixture: impl Fixture,
) {
    let (old, _) = rotate(&fixture, &successor(2)).await;
    let before = holdings(&fixture).await;
    let again = |again| Action::Rotate { retire_at: after_now(30), again };
    let store = fixture.store();
    let refused = store.act(&old.id, again(false), Some(&successor(3)), &by_alice()).await;
    let Err(WriteError::Refused { reason, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(reason, LifecycleError::Rotated(key(2).id));
    assert_eq!(holdings(&fixture).await, before);

    let lifetime = Lifetime::Until(None);
    let third = Successor { lifetime, ..successor(3) };
    let rotated = store.act(&old.id, again(true), Some(&third), &by_alice()).await.unwrap();
    assert_eq!(rotated.successor, Some(key(3).id));
    assert_eq!(rotated.rights.expires_at, Some(after_now(30)));
    assert_eq!(record(&fixture, 3).await.rights.expires_at, None);
}

pub(super) async fn a_rotation_whose_successor_is_a_duplicate_changes_nothing(
    fixture: impl Fixture,
) {
    store_keys(&fixture, &[key(1), key(2)]).await;
    let before = holdings(&fixture).await;
    let rotate = Action::Rotate { retire_at: after_now(60), again: false };
    for duplicate in [NewKey { id: id("key_x"), ..key(2) }, key(1)] {
        let successor = Successor { key: duplicate, lifetime: Lifetime::OfOld };
        let outcome = fixture.store().act(&key(1).id, rotate, Some(&successor), &by_alice()).await;
        assert!(
            matches!(&outcome, Err(WriteError::Duplicates(positions)) if positions == &[0]),
            "{outcome:?}"
        );
        assert_eq!(holdings(&fixture).await, before);
    }
}

pub(super) async fn what_is_done_already_is_no_error_and_no_change(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    for action in [Action::Enable, Action::Disable, Action::Revoke] {
        let once = fixture.store().act(&key(1).id, action, None, &by_alice()).await.unwrap();
        let seen = changes(&fixture).await;
        let twice = fixture.store().act(&key(1).id, action, None, &by_alice()).await.unwrap();
        assert_eq!(twice, once);
        assert_eq!(changes(&fixture).await, seen);
    }
}
