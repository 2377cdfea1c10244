//! What holds when many call at once, or give up.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use futures::future::{join, join_all};
use keystead::{
    key::{Action, NewKey, Revision, State},
    store::{ChangeKind, KeyAdmin, Lookups, WriteError},
};
use tokio::time::timeout;

use super::{
    Fixture,
    samples::{
        after_now, by_alice, changes, digest, holdings, id, key, lookup, record, store_keys,
    },
};
use crate::harness::changes::{follower, head, page};

/// How often a race is run.
const ROUNDS: u32 = 20;

pub(super) async fn concurrent_writers_lose_no_update(fixture: impl Fixture) {
    let keys: Vec<_> = (0..ROUNDS).map(key).collect();
    store_keys(&fixture, &keys).await;
    for key in &keys {
        let act = async |action| fixture.store().act(&key.id, action, None, &by_alice()).await;
        // An update that is made from what was read before another one would
        // bring back the state of then.
        let rotate = Action::Rotate { retire_at: after_now(60), again: false };
        let ((disabled, revoked), (enabled, rotated)) = join(
            join(act(Action::Disable), act(Action::Revoke)),
            join(act(Action::Enable), act(rotate)),
        )
        .await;
        revoked.unwrap();
        for outcome in [disabled, enabled, rotated] {
            assert!(matches!(outcome, Ok(_) | Err(WriteError::Refused { .. })), "{outcome:?}");
        }
        assert_eq!(lookup(&fixture, key.digest).await.unwrap().state, State::Revoked);
    }
    // Each change was made to what the one before it had left.
    let mut last = HashMap::new();
    for entry in fixture.audit_log().await {
        let before = last.insert(entry.key_id.clone(), entry.after.clone());
        assert_eq!(entry.before, before.flatten(), "{entry:?}");
    }
}

pub(super) async fn concurrent_writers_of_one_digest_store_it_once(fixture: impl Fixture) {
    let twins: Vec<_> =
        (0..8).map(|n| NewKey { id: id(&format!("key_twin_{n}")), ..key(1) }).collect();
    let by = by_alice();
    let storing = twins.chunks(1).map(|twin| fixture.store().insert(twin, &by));
    let mut stored = 0;
    for outcome in join_all(storing).await {
        match outcome {
            Ok(()) => stored += 1,
            Err(WriteError::Duplicates(positions)) => assert_eq!(positions, [0]),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(stored, 1);
    assert_eq!(changes(&fixture).await.len(), 1);
    assert_eq!(fixture.audit_log().await.len(), 1);
}

pub(super) async fn changes_that_a_reader_follows_have_no_gap(fixture: impl Fixture) {
    const WRITES: u32 = 60;
    let by = by_alice();
    let keys: Vec<_> = (0..WRITES).map(key).collect();
    let writing = join_all(keys.chunks(3).map(|keys| fixture.store().insert(keys, &by)));
    let following = async {
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut followed: Vec<keystead::store::Change> = Vec::new();
        let mut reader = follower(fixture.store()).await;
        while followed.len() < keys.len() {
            assert!(Instant::now() < deadline, "{} changes were seen", followed.len());
            let last = followed.last().map_or(Revision(0), |change| change.revision);
            let limit = NonZeroU32::new(4).unwrap();
            followed.extend(page(&mut reader, last, limit).await.changes);
        }
        followed
    };
    let (written, followed) = join(writing, following).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    assert_eq!(followed, changes(&fixture).await);
}

pub(super) async fn a_cancelled_write_is_done_wholly_or_not_at_all(fixture: impl Fixture) {
    for round in 0..ROUNDS {
        let keys: Vec<_> = (0..50).map(|n| key(round * 50 + n)).collect();
        // From at once to about as long as it takes.
        let patience = Duration::from_micros(500) * round;
        let cancelled = timeout(patience, fixture.store().insert(&keys, &by_alice())).await;
        if let Ok(outcome) = cancelled {
            outcome.unwrap();
        }
        // A write waits for the one that goes on without its caller.
        let marker = key(1_000_000 + round);
        store_keys(&fixture, &[marker]).await;
        let mut stored = 0;
        for key in &keys {
            stored += usize::from(lookup(&fixture, key.digest).await.is_some());
        }
        assert!(stored == 0 || stored == keys.len(), "{stored} of {}", keys.len());
    }
    let changes = changes(&fixture).await;
    assert!(changes.iter().all(|change| change.kind == ChangeKind::Created));
    assert_eq!(fixture.audit_log().await.len(), changes.len());
}

pub(super) async fn cancelled_readings_leave_the_store_usable(fixture: impl Fixture) {
    store_keys(&fixture, &[key(1)]).await;
    let before = holdings(&fixture).await;
    for round in 0..200 {
        let patience = Duration::from_micros(20) * (round % 10);
        let asked = [digest(1), digest(2)];
        drop(timeout(patience, fixture.store().find(&asked)).await);
        drop(timeout(patience, fixture.store().get(&key(1).id)).await);
        drop(timeout(patience, head(fixture.store())).await);
    }
    assert_eq!(lookup(&fixture, digest(1)).await, Some(record(&fixture, 1).await));
    assert_eq!(holdings(&fixture).await, before);
}
