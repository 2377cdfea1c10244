use std::num::NonZeroUsize;

use super::*;
use crate::{
    guard::GuardConfig,
    key::Digest,
    store::{
        Answer, Lookups, StoreErrorKind,
        fake::{FakeStore, Mood, record},
    },
    telemetry::Metrics,
};

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

async fn known(store: &FakeStore, principal: &str) -> CompactKey {
    let digest = Digest::sha256_of(principal.as_bytes());
    store.put(digest, record(principal, 1));
    match store.find(&[digest]).await.unwrap().get(&digest) {
        Some(Answer::Found(known)) => known.clone(),
        other => panic!("{other:?}"),
    }
}

fn guarded(store: &FakeStore) -> Arc<Guarded<FakeStore>> {
    let (metrics, _) = Metrics::new().unwrap();
    let config = GuardConfig { max_in_flight: NonZeroUsize::MIN, ..GuardConfig::default() };
    Arc::new(Guarded::new(store.clone(), config, metrics, Clock::System))
}

#[tokio::test(start_paused = true)]
async fn many_uses_of_a_key_are_one_write() {
    let store = FakeStore::new(Mood::Answers);
    let (log, writer) = use_log(guarded(&store), Clock::System);
    let (a, b) = (known(&store, "a").await, known(&store, "b").await);
    for second in 0..59 {
        log.note(&a, NOW + Duration::from_secs(second));
    }
    log.note(&b, NOW);
    let stop = CancellationToken::new();
    stop.cancel();
    writer.run(stop.clone()).await;
    let mut touched = store.touched();
    touched.sort();
    assert_eq!(touched, [(a.key_id(), NOW), (b.key_id(), NOW)]);
}

#[tokio::test(start_paused = true)]
async fn queued_uses_are_written_at_the_stop_even_while_a_log_is_held() {
    let store = FakeStore::new(Mood::Answers);
    let (log, writer) = use_log(guarded(&store), Clock::System);
    let a = known(&store, "a").await;
    let stop = CancellationToken::new();
    let stopping = async {
        tokio::time::sleep(WRITE_EVERY * 3).await;
        log.note(&a, NOW);
        stop.cancel();
    };
    tokio::join!(writer.run(stop.clone()), stopping);
    assert_eq!(store.touched().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn uses_are_written_while_the_service_runs() {
    let store = FakeStore::new(Mood::Answers);
    let (log, writer) = use_log(guarded(&store), Clock::System);
    let a = known(&store, "a").await;
    let stop = CancellationToken::new();
    let later = async {
        log.note(&a, NOW);
        tokio::time::sleep(WRITE_EVERY * 2).await;
        assert_eq!(store.touched().len(), 1);
        stop.cancel();
    };
    tokio::join!(writer.run(stop.clone()), later);
}

#[tokio::test(start_paused = true)]
async fn busy_or_failing_store_costs_only_the_uses() {
    let store = FakeStore::new(Mood::Answers);
    let guarded = guarded(&store);
    let (log, writer) = use_log(Arc::clone(&guarded), Clock::System);
    let (a, b) = (known(&store, "a").await, known(&store, "b").await);
    let permit = guarded.try_acquire();
    assert!(permit.is_some());
    log.note(&a, NOW);
    let stop = CancellationToken::new();
    let busy = async {
        tokio::time::sleep(WRITE_EVERY * 2).await;
        drop(permit);
        store.set(Mood::Fails(StoreErrorKind::Unreachable));
        log.note(&b, NOW);
        tokio::time::sleep(WRITE_EVERY * 2).await;
        store.set(Mood::Answers);
        stop.cancel();
    };
    tokio::join!(writer.run(stop.clone()), busy);
    assert!(store.touched().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_never_makes_a_check_wait() {
    let store = FakeStore::new(Mood::Answers);
    let (log, _writer) = use_log(guarded(&store), Clock::System);
    let a = known(&store, "a").await;
    for minute in 0..=MAX_QUEUED {
        let minutes = u64::try_from(minute).unwrap() * 60;
        log.note(&a, NOW + Duration::from_secs(minutes));
    }
    assert_eq!(log.0.capacity(), 0);
}
