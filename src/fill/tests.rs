use std::num::NonZeroUsize;

use futures::future::join_all;

use super::*;
use crate::{
    cache::CacheConfig,
    guard::GuardConfig,
    store::{
        Answer,
        fake::{FakeStore, Mood, record},
    },
    telemetry::Metrics,
};

const KEY: Digest = Digest::from_bytes([7; 32]);
const TIMEOUT: Duration = Duration::from_millis(150);
const QUERY_TIMEOUT: Duration = Duration::from_millis(100);

struct Bench {
    store: FakeStore,
    memory: Arc<Memory>,
    fill: Fill<FakeStore>,
}

fn bench(mood: Mood, max_in_flight: usize, max_queued: usize) -> Bench {
    let store = FakeStore::new(mood);
    store.put(KEY, record("acme", 1));
    let (metrics, _) = Metrics::new().unwrap();
    let guard = GuardConfig {
        max_in_flight: NonZeroUsize::new(max_in_flight).unwrap(),
        query_timeout: QUERY_TIMEOUT,
    };
    let guarded = Arc::new(Guarded::new(store.clone(), guard, metrics));
    let memory = Arc::new(Memory::new(CacheConfig::default(), Clock::System));
    let config = FillConfig { max_queued: NonZeroUsize::new(max_queued).unwrap() };
    let fill =
        Fill::new(config, TIMEOUT, Arc::clone(&memory), guarded, Tasks::default(), Clock::System);
    Bench { store, memory, fill }
}

fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

fn principal(outcome: Result<Sighting, Unavailable>) -> String {
    match outcome.unwrap().answer {
        Answer::Found(known) => known.rights.principal.clone(),
        Answer::Absent(_) => "nobody".to_owned(),
    }
}

/// Lets tasks run until `done`, without any time passing. With paused time a
/// yield runs every task that is ready.
async fn until(done: impl Fn() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never came to that");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_of_one_key_share_one_query() {
    let bench = bench(Mood::Hangs, 8, 10);
    let callers = join_all((0..1000).map(|_| bench.fill.find(KEY, soon())));
    let release = async {
        until(|| bench.store.queries() == 1).await;
        bench.store.set(Mood::Answers);
    };
    let (outcomes, ()) = tokio::join!(callers, release);
    assert!(outcomes.into_iter().all(|outcome| principal(outcome) == "acme"));
    assert_eq!(bench.store.queries(), 1);
    assert!(bench.memory.get(&KEY).is_some(), "the answer is remembered");
}

#[tokio::test(start_paused = true)]
async fn distinct_keys_never_exceed_the_places_at_the_store() {
    let bench = bench(Mood::Hangs, 4, 1000);
    let keys = (0..200).map(|n| Digest::sha256_of(&[n]));
    let callers = join_all(keys.map(|key| bench.fill.find(key, soon())));
    let release = async {
        until(|| bench.store.queries() == 4).await;
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(bench.store.queries(), 4, "no fifth while four are at the store");
        bench.store.set(Mood::Answers);
    };
    let (outcomes, ()) = tokio::join!(callers, release);
    assert!(outcomes.into_iter().all(|outcome| principal(outcome) == "nobody"));
    assert_eq!(bench.store.queries(), 200);
    assert_eq!(bench.store.most_at_once(), 4);
}

#[tokio::test(start_paused = true)]
async fn one_lookup_too_many_is_refused_as_overloaded_but_joining_one_is_not() {
    let bench = bench(Mood::Hangs, 1, 2);
    let other = |n: u8| Digest::from_bytes([n; 32]);
    let (first, second, third, again) = tokio::join!(
        bench.fill.find(other(1), soon()),
        bench.fill.find(other(2), soon()),
        bench.fill.find(other(3), soon()),
        bench.fill.find(other(1), soon()),
    );
    assert_eq!(third, Err(Unavailable::Overloaded));
    let timeout = Err(Unavailable::Store(StoreErrorKind::Timeout));
    assert_eq!((first, again), (timeout.clone(), timeout));
    assert!(second.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_a_timeout_and_no_place_is_saturation() {
    let bench = bench(Mood::Hangs, 1, 10);
    let began = Instant::now();
    let (at_the_store, queued) = tokio::join!(
        bench.fill.find(KEY, began + Duration::from_millis(60)),
        bench.fill.find(Digest::from_bytes([1; 32]), began + Duration::from_millis(60)),
    );
    assert_eq!(at_the_store, Err(Unavailable::Store(StoreErrorKind::Timeout)));
    assert_eq!(queued, Err(Unavailable::Store(StoreErrorKind::Saturated)));
    assert_eq!(began.elapsed(), Duration::from_millis(60), "each caller keeps its own deadline");
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_could_no_longer_be_answered_in_time_gets_no_place() {
    let bench = bench(Mood::Hangs, 1, 10);
    let began = Instant::now();
    let late = Digest::from_bytes([1; 32]);
    let (_, queued) = tokio::join!(bench.fill.find(KEY, soon()), bench.fill.find(late, soon()));
    assert_eq!(queued, Err(Unavailable::Store(StoreErrorKind::Saturated)));
    assert_eq!(bench.store.queries(), 1);
    assert!(began.elapsed() <= TIMEOUT, "waiting and asking together keep the time-out");
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_as_its_kind_and_never_remembered() {
    for kind in StoreErrorKind::ALL {
        let bench = bench(Mood::Fails(kind), 8, 10);
        assert_eq!(bench.fill.find(KEY, soon()).await, Err(Unavailable::Store(kind)));
        assert_eq!(bench.memory.get(&KEY), None);
        bench.store.set(Mood::Answers);
        assert_eq!(principal(bench.fill.find(KEY, soon()).await), "acme");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_goes_on_when_the_caller_who_started_it_has_gone() {
    let bench = bench(Mood::Hangs, 8, 10);
    let mut first = Box::pin(bench.fill.find(KEY, soon()));
    assert!(futures::poll!(&mut first).is_pending());
    let second = bench.fill.find(KEY, soon());
    let leave = async {
        until(|| bench.store.queries() == 1).await;
        drop(first);
        bench.store.set(Mood::Answers);
    };
    let (outcome, ()) = tokio::join!(second, leave);
    assert_eq!(principal(outcome), "acme");
    assert_eq!(bench.store.queries(), 1);
}

#[tokio::test(start_paused = true)]
async fn work_whose_callers_have_gone_never_reaches_the_store() {
    let bench = bench(Mood::Hangs, 1, 10);
    let mut at_the_store = Box::pin(bench.fill.find(Digest::from_bytes([1; 32]), soon()));
    assert!(futures::poll!(&mut at_the_store).is_pending());
    until(|| bench.store.queries() == 1).await;

    let mut queued = Box::pin(bench.fill.find(KEY, soon()));
    assert!(futures::poll!(&mut queued).is_pending());
    drop(queued);
    until(|| bench.fill.0.under_way().len() == 1).await;

    bench.store.set(Mood::Answers);
    assert_eq!(principal(at_the_store.await), "nobody");
    assert_eq!(bench.store.queries(), 1, "the abandoned one was not asked");
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_began_before_a_change_cannot_bring_the_old_record_back() {
    let bench = bench(Mood::Hangs, 8, 10);
    let old = bench.fill.find(KEY, soon());
    let change = async {
        until(|| bench.store.queries() == 1).await;
        bench.store.put(KEY, record("changed", 2));
        bench.fill.invalidate(&KEY);
        // Who asks after the change must not be told what was before.
        let new = bench.fill.find(KEY, soon());
        let release = async {
            until(|| bench.store.queries() == 2).await;
            bench.store.set(Mood::Answers);
        };
        tokio::join!(new, release).0
    };
    let (old, new) = tokio::join!(old, change);
    assert_eq!(principal(old), "acme");
    assert_eq!(principal(new), "changed");
    assert_eq!(principal(bench.memory.get(&KEY).ok_or(Unavailable::Internal)), "changed");
}

#[tokio::test(start_paused = true)]
async fn a_panic_at_the_store_is_internal_and_leaves_nothing_behind() {
    let bench = bench(Mood::Panics, 1, 1);
    let both = tokio::join!(bench.fill.find(KEY, soon()), bench.fill.find(KEY, soon()));
    assert_eq!(both, (Err(Unavailable::Internal), Err(Unavailable::Internal)));
    bench.store.set(Mood::Answers);
    assert_eq!(principal(bench.fill.find(KEY, soon()).await), "acme");
}
