//! Storing many keys in one call.

use std::time::Duration;

use keystead::{
    key::{NewKey, Revision},
    store::{KeyAdmin, WriteError},
};
use tokio::time::timeout;

use super::fixture::{Embedded, by_alice, key};
use crate::{conformance::Fixture as _, harness::changes::head};

#[tokio::test]
async fn duplicates_keep_their_positions_however_many_keys_there_are() {
    let embedded = Embedded::start().await;
    embedded.insert(2500).await;
    let mut keys: Vec<NewKey> = (0..3000).map(key).collect();
    keys[1700] = key(3);
    let refused = embedded.store.insert(&keys, &by_alice()).await;
    assert!(
        matches!(&refused, Err(WriteError::Duplicates(p)) if p == &[1700, 2500]),
        "{refused:?}"
    );
    assert_eq!(head(&embedded.store).await, Revision(1));
}

#[tokio::test]
async fn of_a_large_insert_that_is_cancelled_half_way_nothing_is_stored() {
    let embedded = Embedded::start().await;
    let keys: Vec<NewKey> = (0..20_000).map(key).collect();
    let by = by_alice();
    // Storing all takes seconds.
    for patience in [1, 20, 100].map(Duration::from_millis) {
        let cancelled = timeout(patience, embedded.store.insert(&keys, &by)).await;
        assert!(cancelled.is_err(), "it was too fast to be cancelled");
    }
    embedded.insert(20_000).await;
    assert_eq!(head(&embedded.store).await, Revision(1));
    assert!(!embedded.has(0).await.unwrap());
}
