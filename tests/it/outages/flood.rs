//! Floods of keys that are no good: what they cost the store, and what keys that
//! are known notice of them.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use keystead::transport::pb::Freshness;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::site::Site;
use crate::harness::{
    admin::checks_total,
    app::{Service, channel_to, check_over, presenting},
    beside,
    fixture::without_background,
    keys::Key,
    observer::{Observer, counting, lookups_carried_out},
};

/// How long a flood lasts.
const LASTS: Duration = Duration::from_secs(2);

/// How many clients it comes from, each with its own connection.
const CLIENTS: usize = 4;

/// How many checks of each of them are under way at once.
const AT_ONCE: usize = 50;

/// Permits, of which keys that nobody has seen may take a quarter.
const PERMITS: usize = 8;
const QUARTER: usize = 2;

/// How long a query takes at least.
const NAP: Duration = Duration::from_millis(20);

/// Keys that are known, and how many of them are checked at once.
const KNOWN: usize = 40;
const KNOWN_AT_ONCE: usize = 10;

/// Whether what a flood costs is compared with what there was before: in a slow
/// build, beside other tests, most of it is waiting for a processor.
/// `scripts/soak` runs an optimised one with nothing beside it.
const COMPARED: bool = !cfg!(debug_assertions);

/// How much longer the slowest hundredth of those who check known keys may
/// wait while there is a flood of never-seen ones.
const FACTOR: u32 = 2;

/// How many forged keys a second are a flood.
const FLOOD: f64 = if COMPARED { 10_000.0 } else { 100.0 };

/// How long a check of a known key may wait for the store.
const WAIT: Duration = Duration::from_secs(5);

const CHECKS: &str = "keystead_checks_total";

/// A flood of credentials, each checked once, until it is stopped.
struct Flood {
    stop: Arc<AtomicBool>,
    flowing: Vec<JoinHandle<usize>>,
    began: Instant,
}

/// How many credentials there were so far, so that none comes twice.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Flood {
    async fn of(service: &Service, credential: fn(usize) -> String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut flowing = Vec::new();
        for _ in 0..CLIENTS {
            let (channel, _) = channel_to(service.grpc).await;
            flowing.push(beside(flow(channel, credential, Arc::clone(&stop))));
        }
        Self { stop, flowing, began: Instant::now() }
    }

    /// How many a second there were.
    async fn stop(self) -> f64 {
        self.stop.store(true, Ordering::SeqCst);
        let mut count = 0;
        for client in self.flowing {
            count += client.await.unwrap();
        }
        f64::from(u32::try_from(count).unwrap()) / self.began.elapsed().as_secs_f64()
    }
}

async fn flow(channel: Channel, credential: fn(usize) -> String, stop: Arc<AtomicBool>) -> usize {
    let credentials = stream::repeat_with(|| credential(NEXT.fetch_add(1, Ordering::Relaxed)));
    let going_on = credentials.take_while(|_| std::future::ready(!stop.load(Ordering::SeqCst)));
    let checks = going_on.map(|text| check_over(channel.clone(), presenting(&text)));
    checks.buffer_unordered(AT_ONCE).map(Result::unwrap_err).count().await
}

/// Our form, and no tag that anybody could have made.
fn forged(n: usize) -> String {
    format!("ks_live_{n:040}")
}

/// Somebody else's form, and no key of anybody.
fn foreign(n: usize) -> String {
    format!("sk-proj-{n:040}")
}

async fn site() -> Site {
    // Long enough that a busy machine refuses nobody in the store's stead.
    let mut site = Site::with(Duration::from_secs(5), counting()).await;
    site.config.store.guard.max_in_flight = NonZeroUsize::new(PERMITS).unwrap();
    without_background(&mut site.config);
    site
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_forged_keys_costs_the_store_nothing() {
    let site = site().await;
    let keys = site.keys(1).await;
    let service = Service::ready(&site.config).await;
    service.check_key(&keys[0]).await.unwrap();
    let before = service.admin.scrape().await;
    let carried_out = lookups_carried_out(site.postgres()).await;

    let flood = Flood::of(&service, forged).await;
    tokio::time::sleep(LASTS).await;
    service.check_key(&keys[0]).await.unwrap();
    let rate = flood.stop().await;

    println!("{rate:.0} forged keys a second");
    assert!(rate > FLOOD, "{rate} a second are no flood");
    let after = service.admin.scrape().await;
    let told: Vec<_> = after.changes_since(&before, CHECKS).into_keys().collect();
    let malformed = checks_total("UNAUTHENTICATED", "CREDENTIAL_MALFORMED");
    assert_eq!(told, [checks_total("OK", ""), malformed]);
    assert!(after.changes_since(&before, "keystead_store_queries_total").is_empty());
    assert_eq!(lookups_carried_out(site.postgres()).await, carried_out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_never_seen_keys_gets_a_quarter_of_the_permits_and_refuses_no_known_key() {
    let mut site = site().await;
    // Each check of a known key asks the store first.
    site.config.cache.fresh_for = Duration::from_millis(1);
    site.config.cache.feed_fresh_for = Duration::from_millis(1);
    site.config.cache.revalidate_for = Duration::ZERO;
    site.config.cache.revalidate_wait = WAIT;
    let keys = site.keys(KNOWN).await;
    let service = Service::ready(&site.config).await;
    for key in &keys {
        service.check_key(key).await.unwrap();
    }
    site.server.slow_by(NAP).await;

    let before = service.admin.scrape().await;
    let quiet = p99_of_revalidation(&service, &keys).await;
    let flood = Flood::of(&service, foreign).await;
    let alone = Observer::of(site.postgres());
    tokio::time::sleep(LASTS / 2).await;
    assert_eq!(alone.most().lookups, QUARTER, "the flood alone: {:?}", alone.most());
    drop(alone);
    let flooded = p99_of_revalidation(&service, &keys).await;
    let rate = flood.stop().await;

    println!("{rate:.0} never-seen keys a second; p99 of known ones {quiet:?}, then {flooded:?}");
    let told = service.admin.scrape().await.changes_since(&before, CHECKS);
    assert!(told.contains_key(&checks_total("UNAUTHENTICATED", "KEY_UNKNOWN")), "{told:?}");
    let limit = if COMPARED { FACTOR * quiet } else { WAIT };
    assert!(flooded < limit, "{flooded:?} instead of {quiet:?}");
}

/// Asks about known keys in turn, each of which waits for the store. All are
/// answered with what it says now.
async fn p99_of_revalidation(service: &Service, keys: &[Key]) -> Duration {
    let began = Instant::now();
    let in_time = stream::iter(keys.iter().cycle())
        .take_while(|_| std::future::ready(began.elapsed() < LASTS / 2));
    let checks = in_time.map(|key| async {
        let asked = Instant::now();
        let answer = service.check_key(key).await.expect("a known key is never refused");
        let took = asked.elapsed();
        assert_eq!(answer.evidence.unwrap().freshness(), Freshness::Fresh);
        took
    });
    let mut times: Vec<_> = checks.buffer_unordered(KNOWN_AT_ONCE).collect().await;
    times.sort_unstable();
    times[times.len() * 99 / 100]
}
