use futures::poll;
use std::{pin::pin, task::Poll};

use super::*;
use crate::store::fake::{FakeStore, Mood};

const KEY: Digest = Digest::from_bytes([7; 32]);
const QUERY_TIMEOUT: Duration = Duration::from_millis(100);

fn guarded(store: &FakeStore, places: usize) -> Guarded<FakeStore> {
    let (metrics, _) = Metrics::new().unwrap();
    let max_in_flight = NonZeroUsize::new(places).unwrap();
    let config = GuardConfig { max_in_flight, query_timeout: QUERY_TIMEOUT };
    Guarded::new(store.clone(), config, metrics)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

#[tokio::test(start_paused = true)]
async fn there_are_as_many_places_as_were_set_and_no_more() {
    let guarded = guarded(&FakeStore::new(Mood::Answers), 2);
    let (first, second) = (guarded.enter(soon()).await, guarded.enter(soon()).await);
    assert!(first.is_some() && second.is_some());
    assert!(guarded.try_enter().is_none());
    let began = Instant::now();
    assert!(guarded.enter(began + QUERY_TIMEOUT).await.is_none());
    assert_eq!(began.elapsed(), QUERY_TIMEOUT);
    drop(first);
    assert!(guarded.try_enter().is_some());
}

#[tokio::test(start_paused = true)]
async fn places_are_given_to_those_who_wait_in_their_order_and_before_work_that_comes_last() {
    let guarded = guarded(&FakeStore::new(Mood::Answers), 1);
    let held = guarded.enter(soon()).await;
    let mut first = pin!(guarded.enter(soon()));
    let mut second = pin!(guarded.enter(soon()));
    assert!(poll!(first.as_mut()).is_pending() && poll!(second.as_mut()).is_pending());
    drop(held);
    assert!(guarded.try_enter().is_none(), "somebody waits");
    assert!(poll!(second.as_mut()).is_pending());
    let Poll::Ready(Some(place)) = poll!(first.as_mut()) else {
        panic!("the first who waits is the first who enters");
    };
    drop(place);
    assert!(second.await.is_some());
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_loses_nobody_a_place() {
    let guarded = guarded(&FakeStore::new(Mood::Answers), 1);
    let held = guarded.enter(soon()).await;
    {
        let mut gone = pin!(guarded.enter(soon()));
        assert!(poll!(gone.as_mut()).is_pending());
    }
    drop(held);
    assert!(guarded.try_enter().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_in_time_and_gives_its_place_back() {
    let store = FakeStore::new(Mood::Hangs);
    let guarded = guarded(&store, 1);
    let began = Instant::now();
    let outcome = guarded.enter(soon()).await.unwrap().find(&[KEY]).await;
    assert_eq!(outcome.unwrap_err().kind(), StoreErrorKind::Timeout);
    assert_eq!(began.elapsed(), QUERY_TIMEOUT);
    assert!(guarded.try_enter().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_gives_its_place_back() {
    let store = FakeStore::new(Mood::Hangs);
    let guarded = guarded(&store, 1);
    {
        let mut dropped = pin!(guarded.enter(soon()).await.unwrap().find(&[KEY]));
        assert!(poll!(dropped.as_mut()).is_pending());
        assert!(guarded.try_enter().is_none());
    }
    assert!(guarded.try_enter().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_gives_its_place_back() {
    use futures::FutureExt;
    let store = FakeStore::new(Mood::Panics);
    let guarded = guarded(&store, 1);
    let call = guarded.enter(soon()).await.unwrap().find(&[KEY]);
    assert!(std::panic::AssertUnwindSafe(call).catch_unwind().await.is_err());
    assert!(guarded.try_enter().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_feed_needs_no_place_but_keeps_the_time_out() {
    let store = FakeStore::new(Mood::Answers);
    let guarded = guarded(&store, 1);
    let _held = guarded.enter(soon()).await;
    guarded.run_for_feed(async |store: &FakeStore| store.head().await).await.unwrap();
    store.set(Mood::Hangs);
    let outcome = guarded.run_for_feed(async |store: &FakeStore| store.head().await).await;
    assert_eq!(outcome.unwrap_err().kind(), StoreErrorKind::Timeout);
}
