use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::{
    cache::{CacheConfig, Memory},
    fill::FillConfig,
    guard::GuardConfig,
    key::Digest,
    store::{
        ChangeKind, StoreErrorKind,
        fake::{FakeStore, Mood, record},
    },
    tasks::Tasks,
    telemetry::Metrics,
    tier::Tier,
};

struct Bench {
    store: FakeStore,
    memory: Arc<Memory>,
    fill: Fill<FakeStore>,
    feed: Feed<FakeStore>,
}

fn bench() -> Bench {
    let store = FakeStore::new(Mood::Answers);
    let (metrics, _) = Metrics::new().unwrap();
    let guarded = Arc::new(Guarded::new(store.clone(), GuardConfig::default(), metrics));
    let memory = Arc::new(Memory::new(CacheConfig::default(), Clock::System));
    let fill = Fill::new(
        FillConfig::default(),
        Duration::from_millis(150),
        Arc::clone(&memory),
        Arc::clone(&guarded),
        Tasks::default(),
        Clock::System,
    );
    let feed = Feed::new(
        guarded,
        fill.clone(),
        Duration::from_millis(100),
        Ladder::new(Clock::System),
        Clock::System,
    );
    Bench { store, memory, fill, feed }
}

impl Bench {
    /// Brings a key into the memory.
    async fn warm(&self, n: u32) -> Digest {
        let digest = Digest::sha256_of(&n.to_be_bytes());
        self.store.put(digest, record("acme", 1));
        let deadline = Instant::now() + Duration::from_secs(1);
        self.fill.find(digest, deadline).await.unwrap();
        assert!(self.memory.get(&digest).is_some());
        digest
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_ends_the_entry_of_its_key_and_no_other() {
    let mut bench = bench();
    let (changed, other) = (bench.warm(1).await, bench.warm(2).await);
    bench.feed.catch_up().await.unwrap();
    bench.store.announce(1, changed, ChangeKind::Updated);
    bench.feed.catch_up().await.unwrap();
    assert_eq!(bench.memory.get(&changed), None);
    assert!(bench.memory.get(&other).is_some());
}

#[tokio::test(start_paused = true)]
async fn changes_during_an_outage_are_caught_up_with_however_many() {
    let mut bench = bench();
    let last = bench.warm(5_000).await;
    bench.feed.catch_up().await.unwrap();
    bench.store.set(Mood::Fails(StoreErrorKind::Unreachable));
    bench.feed.catch_up().await.unwrap_err();
    for n in 1..5_000_u32 {
        bench.store.announce(n.into(), Digest::sha256_of(&n.to_be_bytes()), ChangeKind::Created);
    }
    bench.store.announce(5_000, last, ChangeKind::Deleted);
    bench.store.set(Mood::Answers);
    bench.feed.catch_up().await.unwrap();
    assert_eq!(bench.memory.get(&last), None);
    assert_eq!(bench.feed.position, Some(Revision(5_000)));
}

#[tokio::test(start_paused = true)]
async fn misses_that_take_all_places_do_not_keep_changes_away() {
    let mut bench = bench();
    let key = bench.warm(1).await;
    bench.feed.catch_up().await.unwrap();
    let store = Arc::clone(&bench.feed.store);
    let mut places = Vec::new();
    while let Some(place) = store.try_enter() {
        places.push(place);
    }
    bench.store.announce(1, key, ChangeKind::Updated);
    bench.feed.catch_up().await.unwrap();
    assert_eq!(bench.memory.get(&key), None);
}

#[tokio::test(start_paused = true)]
async fn changes_from_before_the_start_are_not_replayed() {
    let mut bench = bench();
    let key = bench.warm(1).await;
    bench.store.announce(1, key, ChangeKind::Created);
    bench.feed.catch_up().await.unwrap();
    assert!(bench.memory.get(&key).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_its_changes_is_followed_from_where_it_is() {
    let mut bench = bench();
    let key = bench.warm(1).await;
    bench.store.announce(100, key, ChangeKind::Created);
    bench.feed.catch_up().await.unwrap();
    bench.store.lose_changes();
    bench.feed.catch_up().await.unwrap();
    bench.store.announce(1, key, ChangeKind::Updated);
    bench.feed.catch_up().await.unwrap();
    assert_eq!(bench.memory.get(&key), None);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_does_not_stop_the_feed_for_ever() {
    let bench = bench();
    let key = bench.warm(1).await;
    let (store, memory) = (bench.store.clone(), Arc::clone(&bench.memory));
    let following = Tasks::default();
    following.spawn_until_stopped("feed", bench.feed.follow());
    let second = Duration::from_secs(1);
    tokio::time::sleep(second).await;
    store.set(Mood::Hangs);
    tokio::time::sleep(second).await;
    store.announce(1, key, ChangeKind::Updated);
    store.set(Mood::Answers);
    tokio::time::sleep(second).await;
    assert_eq!(memory.get(&key), None);
    assert!(following.stop(second).await);
}
