//! When keys were last used.

use jiff::Timestamp;
use keystead::{app::Stop, time::Clock};

use crate::harness::{
    backend::{Backend, on_both_stores},
    eventually,
    fixture::Fixture,
    keys::{Key, Keys, of_acme},
};

on_both_stores! {
    use_is_stored_while_the_service_runs_and_is_no_change,
    use_is_stored_when_the_service_stops,
}

async fn used(keys: &Keys, key: &Key) -> Option<Timestamp> {
    keys.record(key).await.last_used_at
}

async fn use_is_stored_while_the_service_runs_and_is_no_change(backend: impl Backend) {
    let Fixture { service, keys, .. } = &Fixture::new(backend).await;
    let (key, other) = (keys.create(of_acme()).await, keys.create(of_acme()).await);
    let stored = keys.record(&key).await;
    let began = Clock::System.wall();
    for _ in 0..10 {
        service.check_key(&key).await.unwrap();
    }
    let ended = Clock::System.wall();
    let at = eventually("the use is stored", async || used(keys, &key).await).await;
    assert!(at.as_microsecond() >= began.as_microsecond() && at <= ended, "{at}");
    assert_eq!(used(keys, &other).await, None);
    assert_eq!(keys.record(&key).await.revision, stored.revision);
}

async fn use_is_stored_when_the_service_stops(backend: impl Backend) {
    let mut fixture = Fixture::new(backend).await;
    let keys = fixture.keys.create_many(100).await;
    for key in &keys {
        fixture.service.check_key(key).await.unwrap();
    }
    fixture.service.stop(Stop::AtOnce);
    fixture.service.ended().await;
    for key in &keys {
        assert!(used(&fixture.keys, key).await.is_some());
    }
}
