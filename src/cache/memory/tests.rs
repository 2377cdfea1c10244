mod suspicion;

use std::{num::NonZeroUsize, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::advance;

use super::*;
use crate::{
    key::{KeyRecord, Revision, State},
    store::{
        Lookups,
        fake::{FakeStore, Mood, record},
    },
    suspect::SuspectConfig,
};

const SECOND: Duration = Duration::from_secs(1);
const KEY: Digest = Digest::from_bytes([7; 32]);

/// A cache with exact windows, apart from their jitter.
struct Fixture {
    memory: Memory,
    coverage: Arc<Coverage>,
    suspicion: Arc<Suspicion>,
}

impl Fixture {
    fn new() -> Self {
        Self::of(CacheConfig::default(), SuspectConfig::default())
    }

    fn of(config: CacheConfig, suspect: SuspectConfig) -> Self {
        let coverage = Arc::new(Coverage::new(3 * SECOND));
        let suspicion = Arc::new(Suspicion::new(suspect));
        let (of_memory, clock) = (Arc::clone(&coverage), Clock::System);
        let memory = Memory::new(config, of_memory, Arc::clone(&suspicion), clock);
        Self { memory, coverage, suspicion }
    }

    async fn knows(&self, digest: Digest) {
        self.takes(digest, Some(record("acme", 1))).await.unwrap();
    }

    /// Caches an answer that the store gives now.
    async fn takes(&self, digest: Digest, row: Option<KeyRecord>) -> Result<(), Unavailable> {
        self.memory.take(digest, &answer(digest, row).await, Instant::now()).map(drop)
    }

    fn freshness(&self, digest: &Digest) -> Option<(Freshness, Serve)> {
        let held = self.memory.look(digest, Instant::now())?;
        Some((held.observation.freshness, held.serve))
    }

    fn is_absent(&self, digest: &Digest) -> bool {
        let held = self.memory.look(digest, Instant::now());
        held.is_some_and(|held| matches!(held.observation.answer, Answer::Absent(_)))
    }
}

async fn answer(digest: Digest, row: Option<KeyRecord>) -> Answer {
    let store = FakeStore::new(Mood::Answers);
    if let Some(row) = row {
        store.put(digest, row);
    }
    store.find(&[digest]).await.unwrap().get(&digest).unwrap().clone()
}

fn nth(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

fn change(revision: i64, digest: Digest, kind: ChangeKind) -> Change {
    Change { revision: Revision(revision), digest, kind }
}

fn count(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

#[tokio::test(start_paused = true)]
async fn record_passes_through_all_states() {
    let fixture = Fixture::new();
    fixture.knows(KEY).await;
    assert_eq!(fixture.freshness(&KEY), Some((Freshness::Fresh, Serve::AtOnce)));
    advance(34 * SECOND).await;
    assert_eq!(fixture.freshness(&KEY), Some((Freshness::Revalidating, Serve::AndRefresh)));
    advance(6 * 60 * SECOND).await;
    assert_eq!(fixture.freshness(&KEY), Some((Freshness::StaleIfError, Serve::IfError)));
    advance(3600 * SECOND).await;
    assert_eq!(fixture.freshness(&KEY), None);
}

#[tokio::test(start_paused = true)]
async fn hits_trigger_one_refresh_per_tenth_of_a_second() {
    let fixture = Fixture::new();
    fixture.knows(KEY).await;
    advance(34 * SECOND).await;
    let serve = || fixture.freshness(&KEY).unwrap().1;
    assert_eq!([serve(), serve(), serve()], [Serve::AndRefresh, Serve::AtOnce, Serve::AtOnce]);
    advance(SECOND / 10).await;
    assert_eq!([serve(), serve()], [Serve::AndRefresh, Serve::AtOnce]);
}

#[tokio::test(start_paused = true)]
async fn only_a_healthy_feed_keeps_records_fresh() {
    let fixture = Fixture::new();
    fixture.coverage.confirm(Instant::now());
    fixture.knows(KEY).await;
    advance(300 * SECOND).await;
    fixture.coverage.confirm(Instant::now());
    assert_eq!(fixture.freshness(&KEY), Some((Freshness::Fresh, Serve::AtOnce)));
    advance(4 * SECOND).await;
    assert_eq!(fixture.freshness(&KEY).unwrap().0, Freshness::Revalidating);
    fixture.coverage.confirm(Instant::now());
    assert_eq!(
        fixture.freshness(&KEY),
        Some((Freshness::Fresh, Serve::AtOnce)),
        "nothing was missed"
    );
    fixture.coverage.begin_anew(Instant::now());
    assert_eq!(fixture.freshness(&KEY).unwrap().0, Freshness::Revalidating);
}

#[tokio::test(start_paused = true)]
async fn slow_answer_is_not_fresh_for_longer() {
    let fixture = Fixture::new();
    let asked_at = Instant::now();
    let answer = answer(KEY, Some(record("acme", 1))).await;
    advance(34 * SECOND).await;
    fixture.memory.take(KEY, &answer, asked_at).unwrap();
    assert_eq!(fixture.freshness(&KEY).unwrap().0, Freshness::Revalidating);
}

#[tokio::test(start_paused = true)]
async fn absence_is_believed_for_its_window_and_never_served_stale() {
    let fixture = Fixture::new();
    fixture.takes(KEY, None).await.unwrap();
    assert!(fixture.is_absent(&KEY));
    advance(6 * SECOND).await;
    assert_eq!(fixture.freshness(&KEY), None);
}

#[tokio::test(start_paused = true)]
async fn creation_of_a_key_ends_its_absence() {
    let fixture = Fixture::new();
    fixture.takes(KEY, None).await.unwrap();
    assert!(!fixture.memory.change(&change(1, KEY, ChangeKind::Created)), "no record was cached");
    assert_eq!(fixture.freshness(&KEY), None);
}

#[tokio::test(start_paused = true)]
async fn change_drops_an_older_record_and_keeps_a_newer_one() {
    let fixture = Fixture::new();
    fixture.coverage.confirm(Instant::now());
    fixture.takes(KEY, Some(record("acme", 5))).await.unwrap();
    for revision in [4, 5] {
        assert!(!fixture.memory.change(&change(revision, KEY, ChangeKind::Updated)));
    }
    assert!(fixture.freshness(&KEY).is_some());
    assert!(fixture.memory.change(&change(6, KEY, ChangeKind::Updated)));
    assert_eq!(fixture.freshness(&KEY), None);
}

#[tokio::test(start_paused = true)]
async fn change_with_an_old_revision_counts_after_a_gap() {
    let fixture = Fixture::new();
    fixture.coverage.confirm(Instant::now());
    fixture.takes(KEY, Some(record("acme", 100))).await.unwrap();
    advance(SECOND).await;
    // The store was restored and reuses revisions.
    fixture.coverage.begin_anew(Instant::now());
    assert!(fixture.memory.change(&change(90, KEY, ChangeKind::Updated)));
    assert_eq!(fixture.freshness(&KEY), None);
}

#[tokio::test(start_paused = true)]
async fn no_record_counts_as_newer_than_a_change_before_the_feed_reports() {
    let fixture = Fixture::new();
    fixture.takes(KEY, Some(record("acme", 100))).await.unwrap();
    assert!(fixture.memory.change(&change(90, KEY, ChangeKind::Updated)));
}

#[tokio::test(start_paused = true)]
async fn record_older_than_an_applied_change_is_not_cached() {
    let fixture = Fixture::new();
    fixture.coverage.confirm(Instant::now());
    assert!(!fixture.memory.change(&change(7, KEY, ChangeKind::Updated)));
    let lagging = fixture.takes(KEY, Some(record("acme", 6))).await;
    assert_eq!(lagging, Err(Unavailable::Suspect));
    assert_eq!(fixture.freshness(&KEY), None);
    fixture.takes(KEY, Some(record("acme", 7))).await.unwrap();

    // A restored store reuses revisions.
    advance(SECOND).await;
    fixture.coverage.begin_anew(Instant::now());
    fixture.takes(KEY, Some(record("acme", 3))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn both_maps_are_bounded_separately() {
    let config =
        CacheConfig { max_entries: count(100), max_absent: count(50), ..CacheConfig::default() };
    let fixture = Fixture::of(config, SuspectConfig::default());
    let many = |from: u32| (from..from + 1000).map(|n| Digest::sha256_of(&n.to_be_bytes()));
    for digest in many(0) {
        fixture.knows(digest).await;
    }
    assert!((1..=100).contains(&fixture.memory.len()), "{}", fixture.memory.len());
    let kept = fixture.memory.len();
    for digest in many(10_000) {
        fixture.takes(digest, None).await.unwrap();
    }
    assert_eq!(fixture.memory.len(), kept, "absences evict no record");
    let absent = many(10_000).filter(|digest| fixture.is_absent(digest)).count();
    assert!((1..=50).contains(&absent), "{absent}");
}

#[tokio::test(start_paused = true)]
async fn huge_records_count_as_several() {
    let config = CacheConfig { max_entries: count(1000), ..CacheConfig::default() };
    let fixture = Fixture::of(config, SuspectConfig::default());
    for n in 0..1000u32 {
        let mut huge = record("acme", 1);
        huge.rights.metadata = [("blob".to_owned(), "x".repeat(10 * 1024))].into();
        fixture.takes(Digest::sha256_of(&n.to_be_bytes()), Some(huge)).await.unwrap();
    }
    assert!((16..=34).contains(&fixture.memory.len()), "{}", fixture.memory.len());
}

#[tokio::test(start_paused = true)]
async fn inspection_reports_whether_the_feed_vouches_for_a_record() {
    let fixture = Fixture::new();
    fixture.knows(KEY).await;
    let vouched = || match fixture.memory.inspect(&KEY, true, Instant::now()).held {
        Some(Remembered::Record { vouched, .. }) => vouched,
        other => panic!("it is remembered: {other:?}"),
    };
    assert!(!vouched(), "the feed has not reported");
    fixture.coverage.confirm(Instant::now());
    assert!(vouched());
    advance(4 * SECOND).await;
    assert!(!vouched(), "the feed is silent");
}

#[test]
fn weight_of_a_record_follows_its_size() {
    let weight = |change: &dyn Fn(&mut KeyRecord)| {
        let mut row = record("acme", 1);
        change(&mut row);
        Entry::new(CompactKey::from(&row), Instant::now().into()).weight()
    };
    assert_eq!(weight(&|_| ()), 1);
    let network = "10.0.0.0/8".parse().unwrap();
    let networks = weight(&|row| row.rights.allowed_networks = vec![network; 1000]);
    let scopes = weight(&|row| row.rights.scopes = vec!["s".repeat(64); 1000]);
    let both = weight(&|row| {
        row.rights.allowed_networks = vec![network; 1000];
        row.rights.scopes = vec!["s".repeat(64); 1000];
    });
    // A thousand of 6 bytes each and a thousand of 65 bytes each, three times.
    assert!((17..=20).contains(&networks), "{networks}");
    assert!((188..=194).contains(&scopes), "{scopes}");
    assert!((networks + scopes - 2..=networks + scopes).contains(&both), "{both}");
}

#[tokio::test(start_paused = true)]
async fn records_read_together_do_not_end_together() {
    let fixture = Fixture::new();
    for n in 0..100 {
        fixture.knows(Digest::sha256_of(&[n])).await;
    }
    advance(30 * SECOND).await;
    let fresh = (0..100u8)
        .filter(|n| fixture.freshness(&Digest::sha256_of(&[*n])).unwrap().0 == Freshness::Fresh)
        .count();
    assert!((20..=80).contains(&fresh), "{fresh}");
}

#[tokio::test(start_paused = true)]
async fn restored_record_keeps_its_age_and_is_not_fresh() {
    let fixture = Fixture::new();
    let now = Instant::now();
    let validated_at = now.checked_sub(10 * SECOND).unwrap();
    fixture.coverage.resume(validated_at, now);
    let known = CompactKey::from(&record("acme", 1));
    fixture.memory.restore(KEY, known.clone(), validated_at, Clock::System.wall());
    let held = fixture.memory.look(&KEY, now).unwrap();
    assert_eq!(held.observation.validated_at, validated_at);
    assert_eq!(held.observation.freshness, Freshness::Revalidating);
    fixture.coverage.confirm(now);
    assert_eq!(fixture.freshness(&KEY).unwrap().0, Freshness::Fresh);
    let exported: Vec<_> = fixture.memory.export().collect();
    assert_eq!(exported, [Exported::Record(KEY, known, validated_at)]);
}

#[test]
fn an_entry_takes_few_bytes_of_its_slot() {
    // With the digest and the links of the cache, a slot has 64 bytes.
    assert_eq!(size_of::<Entry>(), 16);
}

#[tokio::test(start_paused = true)]
async fn keys_with_the_same_rights_share_one_profile() {
    let fixture = Fixture::new();
    let scoped = |scope: &str, name: &str| {
        let mut row = record(name, 1);
        row.rights.scopes = vec![scope.to_owned()];
        row
    };
    for (key, row) in [(1, scoped("a", "x")), (2, scoped("a", "y")), (3, scoped("b", "y"))] {
        fixture.takes(nth(key), Some(row)).await.unwrap();
    }
    let known =
        |key| match fixture.memory.look(&nth(key), Instant::now()).unwrap().observation.answer {
            Answer::Found(known) => known,
            Answer::Absent(_) => panic!("it is there"),
        };
    assert!(known(1).profile().is(known(2).profile()));
    assert!(!known(1).profile().is(known(3).profile()));
    assert_eq!((known(1).principal(), known(2).principal()), ("x", "y"));
}

#[tokio::test(start_paused = true)]
async fn record_cached_again_starts_without_marks() {
    let fixture = Fixture::new();
    let answer = answer(KEY, Some(record("acme", 1))).await;
    fixture.memory.take(KEY, &answer, Instant::now()).unwrap();
    assert_eq!(fixture.takes(KEY, None).await, Err(Unavailable::Suspect));
    fixture.memory.take(KEY, &answer, Instant::now()).unwrap();
    assert_eq!(fixture.freshness(&KEY), Some((Freshness::Fresh, Serve::AtOnce)));
}

#[test]
fn record_is_usable_until_exactly_its_expiry() {
    let mut expiring = record("acme", 1);
    let end: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
    expiring.rights.expires_at = Some(end);
    let entry = Entry::new(CompactKey::from(&expiring), Instant::now().into());
    assert!(entry.is_usable(end - SignedDuration::from_nanos(1)) && !entry.is_usable(end));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_fresh_or_absent_while_the_store_lags() {
    let fixture = Fixture::new();
    fixture.knows(KEY).await;
    fixture.takes(nth(70), None).await.unwrap();
    assert!(fixture.is_absent(&nth(70)));
    fixture.coverage.lags(true);
    assert_eq!(fixture.freshness(&KEY), Some((Freshness::StaleIfError, Serve::AtOnce)));
    assert!(!fixture.is_absent(&nth(70)));
    let lagging = Err(Unavailable::Store(StoreErrorKind::Lagging));
    assert_eq!(fixture.takes(nth(80), None).await, lagging);
    fixture.coverage.lags(false);
    assert_eq!(fixture.freshness(&KEY), Some((Freshness::Fresh, Serve::AtOnce)));
    assert!(fixture.is_absent(&nth(70)) && !fixture.is_absent(&nth(80)));
}

#[tokio::test(start_paused = true)]
async fn older_record_of_a_standby_does_not_replace_a_newer_one() {
    let fixture = Fixture::new();
    let before = Instant::now();
    tokio::time::advance(SECOND).await;
    fixture.takes(KEY, Some(record("acme", 6))).await.unwrap();
    let older = answer(KEY, Some(record("acme", 5))).await;
    assert_eq!(fixture.memory.take(KEY, &older, before), Err(Unavailable::Suspect));
}

#[tokio::test(start_paused = true)]
async fn record_from_another_server_is_outdated_by_any_change() {
    let fixture = Fixture::new();
    fixture.coverage.confirm(Instant::now());
    fixture.takes(KEY, Some(record("acme", 9))).await.unwrap();
    assert!(!fixture.memory.change(&change(5, KEY, ChangeKind::Updated)));
    tokio::time::advance(SECOND).await;
    fixture.coverage.new_history(Instant::now());
    assert!(fixture.memory.change(&change(5, KEY, ChangeKind::Updated)));
}
