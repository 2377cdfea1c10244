use std::{
    sync::{Mutex, atomic::AtomicUsize, atomic::Ordering::SeqCst},
    time::Duration,
};

use tokio::time::{advance, sleep};

use super::*;
use crate::{
    fill::fixture::{Fixture, Settings},
    store::{
        StoreErrorKind,
        fake::{Mood, record},
    },
};

const KEY: Digest = Digest::from_bytes([7; 32]);
const OURS: Credential = Credential::Ours(KEY);
const MS: Duration = Duration::from_millis(1);
const TIMED_OUT: Unavailable = Unavailable::Store(StoreErrorKind::Timeout);

/// A fake next tier that counts its calls.
#[derive(Debug, Default)]
struct Next {
    /// Latency of its answers.
    takes: Duration,
    fails: Option<Unavailable>,
    doubt: Option<Unavailable>,
    full: Option<Unavailable>,
    found: AtomicUsize,
    refreshed: AtomicUsize,
    deadlines: Mutex<Vec<Instant>>,
}

impl Tier for Arc<Next> {
    async fn find(&self, _: Credential, deadline: Instant) -> Result<Observation, Unavailable> {
        self.found.fetch_add(1, SeqCst);
        self.deadlines.lock().unwrap().push(deadline);
        let answered = Instant::now() + self.takes;
        if answered > deadline {
            tokio::time::sleep_until(deadline).await;
            return Err(TIMED_OUT);
        }
        sleep(self.takes).await;
        match self.fails {
            Some(cause) => Err(cause),
            None => Ok(new_observation().await),
        }
    }
}

impl Refresh for Arc<Next> {
    fn refresh(&self, _: Digest) -> Result<(), Unavailable> {
        self.refreshed.fetch_add(1, SeqCst);
        self.full.map_or(Ok(()), Err)
    }

    fn in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    fn doubt(&self) -> Option<Unavailable> {
        self.doubt
    }
}

async fn new_observation() -> Observation {
    let fixture = Fixture::new(Mood::Answers, &Settings::default());
    fixture.store.put(KEY, record("new", 2));
    fixture.fill.find(OURS, Instant::now() + 1000 * MS).await.unwrap()
}

/// A cache with a key of `acme`, validated `age` ago.
async fn cached(age: Duration, next: Next) -> (Cached<Arc<Next>>, Arc<Next>, Fixture) {
    let fixture = Fixture::new(Mood::Answers, &Settings::default());
    fixture.store.put(KEY, record("acme", 1));
    fixture.fill.find(OURS, Instant::now() + 1000 * MS).await.unwrap();
    advance(age).await;
    let next = Arc::new(next);
    let (memory, metrics) = (Arc::clone(&fixture.memory), Arc::clone(&fixture.metrics));
    let config = CacheConfig::default();
    let (warmth, before) = (Arc::new(Warmth::new(Instant::now())), Arc::clone(&next));
    (Cached::new(memory, config, metrics, warmth, Clock::System, before), next, fixture)
}

const REVALIDATING: Duration = Duration::from_mins(1);
const STALE: Duration = Duration::from_mins(10);
const EXPIRED: Duration = Duration::from_hours(2);

async fn ask(cached: &Cached<Arc<Next>>) -> (String, Freshness, Duration) {
    let asked = Instant::now();
    let observation = cached.find(OURS, asked + 150 * MS).await.unwrap();
    let Answer::Found(known) = observation.answer else { panic!("it is absent") };
    (known.principal().to_owned(), observation.freshness, asked.elapsed())
}

#[tokio::test(start_paused = true)]
async fn fresh_record_is_served_without_a_query() {
    let (cached, next, fixture) = cached(Duration::ZERO, Next::default()).await;
    assert_eq!(ask(&cached).await, ("acme".to_owned(), Freshness::Fresh, Duration::ZERO));
    assert_eq!((next.found.load(SeqCst), next.refreshed.load(SeqCst)), (0, 0));
    assert_eq!(fixture.metric(r#"keystead_cache_lookups_total{result="fresh"}"#), 1);
}

#[tokio::test(start_paused = true)]
async fn revalidating_record_is_served_at_once_and_refreshed_once() {
    let (cached, next, fixture) = cached(REVALIDATING, Next::default()).await;
    for _ in 0..100 {
        let expected = ("acme".to_owned(), Freshness::Revalidating, Duration::ZERO);
        assert_eq!(ask(&cached).await, expected);
    }
    assert_eq!((next.found.load(SeqCst), next.refreshed.load(SeqCst)), (0, 1));
    assert_eq!(fixture.metric(r#"keystead_cache_lookups_total{result="revalidating"}"#), 100);
}

#[tokio::test(start_paused = true)]
async fn hit_is_served_and_the_dropped_refresh_counted_when_the_queue_is_full() {
    let next = Next { full: Some(Unavailable::Overloaded), ..Next::default() };
    let (cached, _, fixture) = cached(REVALIDATING, next).await;
    let expected = ("acme".to_owned(), Freshness::Revalidating, Duration::ZERO);
    assert_eq!(ask(&cached).await, expected);
    assert_eq!(fixture.metric(r#"keystead_refreshes_dropped_total{cause="overloaded"}"#), 1);
}

#[tokio::test(start_paused = true)]
async fn stale_record_is_replaced_by_the_answer_of_the_store() {
    let (cached, next, _) = cached(STALE, Next { takes: 10 * MS, ..Next::default() }).await;
    assert_eq!(ask(&cached).await, ("new".to_owned(), Freshness::Fresh, 10 * MS));
    assert_eq!(next.refreshed.load(SeqCst), 1, "the lookup continues without its caller");
}

#[tokio::test(start_paused = true)]
async fn stale_record_is_served_when_the_store_is_late() {
    let (cached, _, fixture) = cached(STALE, Next { takes: 50 * MS, ..Next::default() }).await;
    assert_eq!(ask(&cached).await, ("acme".to_owned(), Freshness::StaleIfError, 20 * MS));
    assert_eq!(fixture.metric(r#"keystead_cache_lookups_total{result="stale_if_error"}"#), 1);
    let masked = r#"keystead_masked_failures_total{cause="timeout",tier="store"}"#;
    assert_eq!(fixture.metric(masked), 1);
}

#[tokio::test(start_paused = true)]
async fn caller_never_waits_past_its_deadline() {
    let (cached, next, _) = cached(STALE, Next { takes: 50 * MS, ..Next::default() }).await;
    let asked = Instant::now();
    cached.find(OURS, asked + 5 * MS).await.unwrap();
    assert_eq!(asked.elapsed(), 5 * MS);
    assert_eq!(*next.deadlines.lock().unwrap(), [asked + 5 * MS]);
}

#[tokio::test(start_paused = true)]
async fn stale_record_masks_every_failure() {
    let kinds = StoreErrorKind::ALL.map(Unavailable::Store);
    let others = [Unavailable::BreakerOpen, Unavailable::Suspect, Unavailable::Overloaded];
    for cause in kinds.into_iter().chain(others) {
        let (cached, _, fixture) =
            cached(STALE, Next { fails: Some(cause), ..Next::default() }).await;
        let expected = ("acme".to_owned(), Freshness::StaleIfError, Duration::ZERO);
        assert_eq!(ask(&cached).await, expected);
        let cause = cause.as_str();
        let masked = format!(r#"keystead_masked_failures_total{{cause="{cause}",tier="store"}}"#);
        assert_eq!(fixture.metric(&masked), 1, "{cause}");
    }
}

#[tokio::test(start_paused = true)]
async fn stale_hit_refreshes_in_the_background_while_the_store_is_in_doubt() {
    let next = Next { takes: 10 * MS, doubt: Some(TIMED_OUT), ..Next::default() };
    let (cached, next, _) = cached(STALE, next).await;
    let expected = ("acme".to_owned(), Freshness::StaleIfError, Duration::ZERO);
    assert_eq!(ask(&cached).await, expected);
    assert_eq!((next.found.load(SeqCst), next.refreshed.load(SeqCst)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn record_is_not_served_past_the_stale_if_error_bound() {
    let next = Next { fails: Some(TIMED_OUT), ..Next::default() };
    let (cached, _, fixture) = cached(EXPIRED, next).await;
    assert_eq!(cached.find(OURS, Instant::now() + 150 * MS).await, Err(TIMED_OUT));
    assert_eq!(fixture.metric(r#"keystead_cache_lookups_total{result="miss"}"#), 1);
}

#[tokio::test(start_paused = true)]
async fn hits_and_misses_of_known_keys_are_counted_while_the_store_is_in_doubt() {
    let next = Next { fails: Some(TIMED_OUT), doubt: Some(TIMED_OUT), ..Next::default() };
    let (cached, _, _) = cached(STALE, next).await;
    let other = Digest::from_bytes([8; 32]);
    for credential in [OURS, Credential::Foreign(KEY), Credential::Ours(other)] {
        let _ = cached.find(credential, Instant::now() + MS).await;
    }
    let _ = cached.find(Credential::Foreign(other), Instant::now() + MS).await;
    let share = cached.warmth.share(Instant::now());
    assert_eq!((share.keys.answered, share.keys.unanswered), (1, 1), "each key once");
    assert_eq!((share.checks.answered, share.checks.unanswered), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_counted_while_the_store_is_healthy() {
    let (cached, _, _) = cached(Duration::ZERO, Next::default()).await;
    ask(&cached).await;
    assert_eq!(cached.warmth.share(Instant::now()), crate::instance::Share::default());
}
