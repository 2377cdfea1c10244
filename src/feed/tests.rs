mod canaries;
mod gaps;

use super::*;
use crate::{
    cache::CacheConfig,
    fill::{self, fixture::Settings},
    instance::TierState,
    key::{Credential, Digest, Revision},
    store::{
        Answer, ChangeKind, StoreErrorKind,
        fake::{FakeStore, Mood, record},
    },
    tasks::Tasks,
    telemetry::Exposition,
    tier::Tier,
};

/// Long enough for anything noticed with the next heartbeat.
const A_BEAT: Duration = Duration::from_millis(1_200);

/// Shorter than any heartbeat, longer than a poll.
const AT_ONCE: Duration = Duration::from_millis(60);

/// Digest of a key that is never cached.
const UNKNOWN: Digest = Digest::from_bytes([9; Digest::LEN]);

/// A store, its cache and a running feed.
struct Fixture {
    store: FakeStore,
    guarded: Arc<Guarded<FakeStore>>,
    memory: Arc<Memory>,
    fill: Fill<FakeStore>,
    coverage: Arc<Coverage>,
    instance: Instance,
    exposition: Exposition,
    running: Tasks,
    parts: Option<(FeedConfig, Option<Position>, FeedParts<FakeStore>)>,
}

/// A fixture whose feed is not started.
fn idle_fixture(tune: impl FnOnce(&mut FeedConfig), resume: Option<i64>) -> Fixture {
    // Nothing expires by itself, so only the feed can end an entry.
    let hour = Duration::from_hours(1);
    let cache = CacheConfig { fresh_for: hour, absent_for: hour, ..CacheConfig::default() };
    let fixture =
        fill::fixture::Fixture::new(Mood::Answers, &Settings { cache, ..Settings::default() });
    let fill::fixture::Fixture {
        store, guarded, memory, coverage, metrics, exposition, fill, ..
    } = fixture;
    // Canaries take numbers, which the tests assign themselves.
    let mut config = FeedConfig { canary_every: hour, ..FeedConfig::default() };
    tune(&mut config);
    let instance = Instance::new(Clock::System);
    let parts = FeedParts {
        store: Arc::clone(&guarded),
        fill: fill.clone(),
        memory: Arc::clone(&memory),
        coverage: Arc::clone(&coverage),
        published: watch::Sender::default(),
        instance: instance.clone(),
        metrics,
        clock: Clock::System,
    };
    let parts =
        Some((config, resume.map(|n| Position { revision: Revision(n), landmark: None }), parts));
    let running = Tasks::here();
    Fixture { store, guarded, memory, fill, coverage, instance, exposition, running, parts }
}

/// A fixture whose feed has caught up.
async fn fixture() -> Fixture {
    fixture_with(|_| ()).await
}

async fn fixture_with(tune: impl FnOnce(&mut FeedConfig)) -> Fixture {
    let mut fixture = idle_fixture(tune, None);
    fixture.begin().await;
    fixture
}

impl Fixture {
    async fn begin(&mut self) {
        let (config, resume, parts) = self.parts.take().unwrap();
        let feed = Feed::new(config, resume, parts);
        self.running.spawn_until_stopped("feed", feed.follow());
        sleep(AT_ONCE).await;
    }

    /// Caches a key.
    async fn warm(&self, n: u32) -> Digest {
        let digest = Digest::sha256_of(&n.to_be_bytes());
        self.store.put(digest, record("acme", 0));
        let deadline = Instant::now() + Duration::from_secs(1);
        self.fill.find(Credential::Ours(digest), deadline).await.unwrap();
        assert!(self.has(&digest));
        digest
    }

    /// Whether the entry is cached and still valid.
    fn has(&self, digest: &Digest) -> bool {
        let held = self.memory.look(digest, Instant::now()).map(|held| held.observation.answer);
        matches!(held, Some(Answer::Found(known)) if known.revision() == Revision(0))
    }

    fn principal(&self, digest: &Digest) -> String {
        match self.memory.look(digest, Instant::now()).map(|held| held.observation.answer) {
            Some(Answer::Found(known)) => known.principal().to_owned(),
            other => panic!("the key is cached: {other:?}"),
        }
    }

    /// Whether coverage vouches for an answer of that time.
    fn covers(&self, validated_at: Instant) -> bool {
        let good_until = self.coverage.good_until(validated_at.into());
        good_until.is_some_and(|until| Instant::now() < until.into())
    }
}

#[tokio::test(start_paused = true)]
async fn announced_change_ends_only_the_entry_of_its_key_at_once() {
    let fixture = fixture().await;
    let (changed, other) = (fixture.warm(1).await, fixture.warm(2).await);
    fixture.store.announce(1, changed, ChangeKind::Updated);
    sleep(Duration::from_millis(2)).await;
    assert!(!fixture.has(&changed) && fixture.has(&other));
}

#[tokio::test(start_paused = true)]
async fn change_whose_announcement_is_lost_is_read_with_the_next_heartbeat() {
    let fixture = fixture().await;
    let key = fixture.warm(1).await;
    fixture.store.tune(|channel| channel.loses_announcements = true);
    fixture.store.announce(1, key, ChangeKind::Updated);
    sleep(A_BEAT).await;
    assert!(!fixture.has(&key));
}

#[tokio::test(start_paused = true)]
async fn feed_polls_while_heartbeats_do_not_return() {
    let fixture = fixture().await;
    sleep(A_BEAT * 2).await;
    let reads = fixture.store.change_reads();
    sleep(Duration::from_secs(1)).await;
    assert!(fixture.store.change_reads() - reads <= 4, "it polls although announcements arrive");

    fixture.store.tune(|channel| channel.loses_announcements = true);
    sleep(A_BEAT * 5).await;
    let key = fixture.warm(1).await;
    fixture.store.announce(1, key, ChangeKind::Updated);
    sleep(AT_ONCE).await;
    assert!(!fixture.has(&key), "it does not poll");
    let beats = fixture.store.beats();
    sleep(Duration::from_secs(10)).await;
    let beats = fixture.store.beats() - beats;
    assert!((8..=12).contains(&beats), "{beats} words in ten seconds");

    fixture.store.tune(|channel| channel.loses_announcements = false);
    sleep(A_BEAT * 2).await;
    let reads = fixture.store.change_reads();
    sleep(Duration::from_secs(1)).await;
    assert!(
        fixture.store.change_reads() - reads <= 4,
        "it polls although announcements arrive again"
    );
}

#[tokio::test(start_paused = true)]
async fn store_without_announcements_is_polled() {
    let mut fixture = idle_fixture(|_| (), None);
    fixture.store.tune(|channel| channel.announces_nothing = true);
    fixture.begin().await;
    let key = fixture.warm(1).await;
    fixture.store.announce(1, key, ChangeKind::Updated);
    sleep(AT_ONCE).await;
    assert!(!fixture.has(&key));
}

#[tokio::test(start_paused = true)]
async fn store_without_changes_is_absent_and_covers_nothing() {
    let mut fixture = idle_fixture(|config| config.canary_every = AT_ONCE, None);
    fixture.store.tune(|channel| channel.has_no_changes = true);
    fixture.begin().await;
    assert_eq!(fixture.instance.standing().feed, TierState::None);
    assert_eq!(fixture.coverage.until(), None);
    sleep(A_BEAT).await;
    assert_eq!(fixture.store.canaries(), 0, "none would come back");
    assert!(fixture.running.stop(Duration::from_secs(1)).await);
    assert!(!fixture.running.is_broken());
}

#[tokio::test(start_paused = true)]
async fn all_changes_during_an_outage_are_replayed() {
    let fixture = fixture().await;
    let last = fixture.warm(5_000).await;
    fixture.store.cut();
    fixture.store.set(Mood::Fails(StoreErrorKind::Unreachable));
    for n in 1..5_000_u32 {
        fixture.store.announce(n.into(), Digest::sha256_of(&n.to_be_bytes()), ChangeKind::Created);
    }
    fixture.store.announce(5_000, last, ChangeKind::Deleted);
    sleep(Duration::from_secs(10)).await;
    assert!(matches!(fixture.instance.standing().feed, TierState::Down { .. }));
    assert!(fixture.has(&last));
    let warmed_before = fixture.coverage.since().unwrap();

    fixture.store.set(Mood::Answers);
    sleep(LONGEST_PAUSE * 2 + TRUSTED_AFTER).await;
    assert!(fixture.instance.standing().feed.is_up());
    assert!(!fixture.has(&last));
    assert!(fixture.covers(warmed_before), "nothing was missed");
}

#[tokio::test(start_paused = true)]
async fn repeatedly_broken_connection_loses_no_change() {
    let fixture = fixture().await;
    for n in 1..=50_u32 {
        let key = fixture.warm(n).await;
        fixture.store.announce(n.into(), key, ChangeKind::Updated);
        fixture.store.cut();
        sleep(Duration::from_millis(1_500)).await;
        assert!(!fixture.has(&key), "change {n}");
    }
    assert_eq!(fixture.coverage.since().unwrap().elapsed().as_secs(), 75, "nothing was missed");
}

#[tokio::test(start_paused = true)]
async fn short_lived_connections_count_as_down_and_back_off() {
    let fixture = fixture().await;
    let cut_for = async |time| {
        let (until, reads) = (Instant::now() + time, fixture.store.change_reads());
        while Instant::now() < until {
            fixture.store.cut();
            sleep(Duration::from_millis(50)).await;
        }
        fixture.store.change_reads() - reads
    };
    cut_for(Duration::from_secs(10)).await;
    assert!(matches!(fixture.instance.standing().feed, TierState::Down { .. }));
    let reads = cut_for(Duration::from_secs(10)).await;
    assert!(reads < 60, "{reads} reads in 10 s");

    sleep(LONGEST_PAUSE * 2 + TRUSTED_AFTER).await;
    assert!(fixture.instance.standing().feed.is_up());
}

#[tokio::test(start_paused = true)]
async fn occasionally_lost_connections_do_not_change_the_state() {
    let fixture = fixture().await;
    for _ in 0..10 {
        fixture.store.cut();
        for _ in 0..20 {
            sleep(Duration::from_millis(100)).await;
            assert!(fixture.instance.standing().feed.is_up());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reconnect_pauses_grow_to_two_seconds() {
    let fixture = fixture().await;
    fixture.store.set(Mood::Fails(StoreErrorKind::Unreachable));
    fixture.store.cut();
    sleep(Duration::from_secs(3)).await;
    fixture.store.set(Mood::Answers);
    sleep(LONGEST_PAUSE.mul_f64(1.0 + PAUSE_JITTER) + TRUSTED_AFTER).await;
    assert!(fixture.instance.standing().feed.is_up());
}

#[tokio::test(start_paused = true)]
async fn feed_recovers_from_a_store_that_hangs() {
    let fixture = fixture().await;
    let key = fixture.warm(1).await;
    fixture.store.set(Mood::Hangs);
    sleep(Duration::from_secs(5)).await;
    fixture.store.announce(1, key, ChangeKind::Updated);
    fixture.store.set(Mood::Answers);
    sleep(LONGEST_PAUSE * 2).await;
    assert!(!fixture.has(&key));
}

#[tokio::test(start_paused = true)]
async fn misses_that_hold_all_permits_do_not_delay_changes() {
    let fixture = fixture().await;
    let key = fixture.warm(1).await;
    let mut places = Vec::new();
    while let Some(place) = fixture.guarded.try_acquire() {
        places.push(place);
    }
    fixture.store.announce(1, key, ChangeKind::Updated);
    sleep(AT_ONCE).await;
    assert!(!fixture.has(&key));
}

#[tokio::test(start_paused = true)]
async fn changes_before_the_start_are_not_replayed() {
    let mut fixture = idle_fixture(|_| (), None);
    let key = fixture.warm(1).await;
    let warmed = Instant::now();
    for n in 1..2_400 {
        fixture.store.announce(n, UNKNOWN, ChangeKind::Created);
    }
    fixture.store.announce(2_400, key, ChangeKind::Created);
    sleep(AT_ONCE).await;
    fixture.begin().await;
    assert!(fixture.has(&key));
    assert!(!fixture.covers(warmed), "entries older than the feed are not covered");
}

#[tokio::test(start_paused = true)]
async fn changes_after_a_restored_position_are_replayed() {
    let mut fixture = idle_fixture(|_| (), Some(1));
    let (before, after) = (fixture.warm(1).await, fixture.warm(2).await);
    fixture.store.announce(1, before, ChangeKind::Updated);
    fixture.store.announce(2, after, ChangeKind::Updated);
    fixture.begin().await;
    assert!(fixture.has(&before) && !fixture.has(&after));
}

#[tokio::test(start_paused = true)]
async fn coverage_reaches_the_last_heartbeat_and_ends_when_the_feed_is_silent() {
    let fixture = fixture().await;
    let began = fixture.coverage.since().unwrap();
    for _ in 0..5 {
        sleep(A_BEAT).await;
        assert!(fixture.coverage.until().unwrap().elapsed() < A_BEAT);
        assert!(fixture.covers(began));
    }
    fixture.store.set(Mood::Hangs);
    sleep(A_BEAT * 4).await;
    assert!(!fixture.covers(began));
    fixture.store.set(Mood::Answers);
    sleep(LONGEST_PAUSE * 2).await;
    assert!(fixture.covers(began), "nothing was missed");
}

#[tokio::test(start_paused = true)]
async fn changes_during_a_catch_up_are_read_too() {
    let fixture = fixture().await;
    let key = fixture.warm(1).await;
    for n in 1..=2_500 {
        fixture.store.announce(n, UNKNOWN, ChangeKind::Created);
    }
    // One page has been requested.
    tokio::task::yield_now().await;
    fixture.store.announce(2_501, key, ChangeKind::Updated);
    sleep(AT_ONCE).await;
    assert!(!fixture.has(&key));
}

#[tokio::test(start_paused = true)]
async fn lagging_data_ends_coverage_until_it_is_current() {
    let fixture = fixture().await;
    let since = Instant::now();
    fixture.store.tune(|channel| channel.lags_since = Some(since));
    sleep(A_BEAT * 4).await;
    assert!(fixture.coverage.is_lagging() && !fixture.covers(since));
    assert_eq!(fixture.coverage.until(), Some(since), "the true age is shown");
    fixture.store.tune(|channel| channel.lags_since = None);
    sleep(A_BEAT).await;
    assert!(!fixture.coverage.is_lagging() && fixture.covers(since));
}
