use futures::future::join_all;
use tokio::time::sleep;

use super::{
    fixture::{Fixture, Settings, TIMEOUT, until},
    *,
};
use crate::{
    key::Revision,
    store::{
        Answer,
        fake::{Mood, record},
    },
};

mod changes;
mod lateness;
mod suspicion;

const KEY: Digest = Digest::from_bytes([7; 32]);

const fn ours(digest: Digest) -> Credential {
    Credential::Ours(digest)
}

fn nth(n: u32) -> Digest {
    Digest::sha256_of(&n.to_be_bytes())
}

fn fixture(mood: Mood, places: usize, max_queued: usize) -> Fixture {
    of(mood, &Settings::default().places(places).max_queued(max_queued))
}

fn of(mood: Mood, settings: &Settings) -> Fixture {
    let fixture = Fixture::new(mood, settings);
    fixture.store.put(KEY, record("acme", 1));
    fixture
}

fn change(revision: i64, digest: Digest, kind: ChangeKind) -> Change {
    Change { revision: Revision(revision), digest, kind }
}

/// The cached answer for a key.
fn remembered(fixture: &Fixture, digest: &Digest) -> Option<Observation> {
    fixture.memory.look(digest, Instant::now()).map(|held| held.observation)
}

fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

fn principal(outcome: Result<Observation, Unavailable>) -> String {
    match outcome.unwrap().answer {
        Answer::Found(known) => known.principal().to_owned(),
        Answer::Absent(_) => "nobody".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn thousand_callers_of_one_key_share_one_query() {
    let fixture = fixture(Mood::Hangs, 8, 10);
    let callers = join_all((0..1000).map(|_| fixture.fill.find(ours(KEY), soon())));
    let release = async {
        until(|| fixture.store.queries() == 1).await;
        fixture.store.set(Mood::Answers);
    };
    let (outcomes, ()) = tokio::join!(callers, release);
    assert!(outcomes.into_iter().all(|outcome| principal(outcome) == "acme"));
    assert_eq!(fixture.store.queries(), 1);
    assert!(remembered(&fixture, &KEY).is_some(), "the answer is cached");
}

#[tokio::test(start_paused = true)]
async fn failed_store_is_in_doubt_until_it_answers() {
    let fixture = fixture(Mood::Fails(StoreErrorKind::Schema), 8, 10);
    assert_eq!((fixture.fill.in_doubt(), fixture.fill.doubt()), (false, None));
    let failure = Unavailable::Store(StoreErrorKind::Schema);
    assert_eq!(fixture.fill.find(ours(KEY), soon()).await, Err(failure));
    assert_eq!((fixture.fill.in_doubt(), fixture.fill.doubt()), (true, Some(failure)));
    fixture.store.set(Mood::Answers);
    fixture.fill.find(ours(KEY), soon()).await.unwrap();
    assert_eq!((fixture.fill.in_doubt(), fixture.fill.doubt()), (false, None));
}

#[tokio::test(start_paused = true)]
async fn capacity_assumes_full_batches_on_all_permits() {
    let fixture = of(Mood::Hangs, &Settings::default().places(4).batch_max(100));
    // 4 × 100 keys in 100 × 40 µs.
    assert!((fixture.fill.capacity() - 100_000.0).abs() < 1.0, "{}", fixture.fill.capacity());
    let asked = fixture.fill.find(ours(KEY), soon());
    let release = async {
        sleep(Duration::from_millis(16)).await;
        fixture.store.set(Mood::Answers);
    };
    let (asked, ()) = tokio::join!(asked, release);
    asked.unwrap();
    // The estimate is now a quarter of the 16 ms; the keys add 4 ms.
    assert!((fixture.fill.capacity() - 50_000.0).abs() < 1.0, "{}", fixture.fill.capacity());
}

#[tokio::test(start_paused = true)]
async fn distinct_keys_share_queries_and_never_exceed_the_permits() {
    let fixture = of(Mood::Hangs, &Settings::default().places(4).batch_max(50));
    let callers = join_all((0..1000).map(|n| fixture.fill.find(ours(nth(n)), soon())));
    let release = async {
        until(|| fixture.store.queries() == 4).await;
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(fixture.store.queries(), 4, "no fifth query while four are in flight");
        fixture.store.set(Mood::Answers);
    };
    let (outcomes, ()) = tokio::join!(callers, release);
    assert!(outcomes.into_iter().all(|outcome| principal(outcome) == "nobody"));
    assert_eq!(fixture.store.queries(), 1000 / 50);
    assert_eq!(fixture.store.most_at_once(), 4);
}

#[tokio::test(start_paused = true)]
async fn single_miss_is_queried_at_once_and_alone() {
    let fixture = fixture(Mood::Answers, 8, 10);
    let asked = Instant::now();
    assert_eq!(principal(fixture.fill.find(ours(KEY), soon()).await), "acme");
    assert_eq!((asked.elapsed(), fixture.store.queries()), (Duration::ZERO, 1));
}

#[tokio::test(start_paused = true)]
async fn never_seen_keys_cannot_take_the_permits_of_known_ones() {
    let fixture = of(Mood::Hangs, &Settings::default().places(4).batch_max(10));
    let flood = join_all((0..500).map(|n| fixture.fill.find(Credential::Foreign(nth(n)), soon())));
    let known = async {
        until(|| fixture.store.queries() == 1).await;
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(fixture.store.queries(), 1, "a quarter of the permits");
        let known = fixture.fill.find(ours(KEY), soon());
        let release = async {
            until(|| fixture.store.queries() == 2).await;
            fixture.store.set(Mood::Answers);
        };
        tokio::join!(known, release).0
    };
    let (_, known) = tokio::join!(flood, known);
    assert_eq!(principal(known), "acme");
}

#[tokio::test(start_paused = true)]
async fn cached_imported_key_uses_the_known_lane() {
    let fixture = fixture(Mood::Answers, 8, 10);
    assert_eq!(fixture.fill.lane(Credential::Foreign(KEY)), Lane::NeverSeen);
    fixture.fill.find(Credential::Foreign(KEY), soon()).await.unwrap();
    assert_eq!(fixture.fill.lane(Credential::Foreign(KEY)), Lane::Known);
    assert_eq!(fixture.fill.lane(ours(nth(1))), Lane::Known);
}

#[tokio::test(start_paused = true)]
async fn each_lane_has_a_separate_bound() {
    let fixture = fixture(Mood::Hangs, 1, 2);
    let flood = (0..10).map(|n| fixture.fill.find(Credential::Foreign(nth(n)), soon()));
    let known = (10..13).map(|n| fixture.fill.find(ours(nth(n)), soon()));
    let (flood, known) = tokio::join!(join_all(flood), join_all(known));
    let refused = |outcomes: &[Result<Observation, Unavailable>]| {
        outcomes.iter().filter(|outcome| **outcome == Err(Unavailable::Overloaded)).count()
    };
    assert_eq!((refused(&flood), refused(&known)), (8, 1));
}

#[tokio::test(start_paused = true)]
async fn lookup_beyond_the_bound_is_overloaded_but_joining_one_is_not() {
    let fixture = fixture(Mood::Hangs, 1, 2);
    let other = |n: u8| Digest::from_bytes([n; 32]);
    let mut in_flight = Box::pin(fixture.fill.find(ours(other(0)), soon()));
    assert!(futures::poll!(&mut in_flight).is_pending());
    until(|| fixture.store.queries() == 1).await;
    let (first, second, third, again) = tokio::join!(
        fixture.fill.find(ours(other(1)), soon()),
        fixture.fill.find(ours(other(2)), soon()),
        fixture.fill.find(ours(other(3)), soon()),
        fixture.fill.find(ours(other(1)), soon()),
    );
    assert_eq!(third, Err(Unavailable::Overloaded));
    assert_eq!(first, again);
    assert!(![first, second, again].contains(&Err(Unavailable::Overloaded)));
}

#[tokio::test(start_paused = true)]
async fn refreshes_have_a_separate_bound_and_take_no_room_from_foreground_lookups() {
    let fixture = fixture(Mood::Hangs, 1, 10);
    let mut in_flight = Box::pin(fixture.fill.find(ours(KEY), soon()));
    assert!(futures::poll!(&mut in_flight).is_pending());
    until(|| fixture.store.queries() == 1).await;
    let taken = (0..20).filter(|n| fixture.fill.refresh(nth(*n)).is_ok()).count();
    assert_eq!(taken, 10);
    assert_eq!(fixture.fill.refresh(nth(100)), Err(Unavailable::Overloaded));
    let mut callers: Vec<_> =
        (100..110).map(|n| Box::pin(fixture.fill.find(ours(nth(n)), soon()))).collect();
    for caller in &mut callers {
        assert!(futures::poll!(caller).is_pending());
    }
    assert_eq!(fixture.fill.0.queue().waiting(Lane::Known), 20);
}

#[tokio::test(start_paused = true)]
async fn refresh_runs_without_callers_and_once_per_key() {
    let fixture = fixture(Mood::Answers, 8, 10);
    for _ in 0..5 {
        fixture.fill.refresh(KEY).unwrap();
    }
    until(|| remembered(&fixture, &KEY).is_some()).await;
    assert_eq!(fixture.store.queries(), 1);
}

#[tokio::test(start_paused = true)]
async fn failed_refresh_keeps_the_record_and_counts_as_masked() {
    let fixture = fixture(Mood::Answers, 8, 10);
    fixture.fill.find(ours(KEY), soon()).await.unwrap();
    fixture.store.set(Mood::Fails(StoreErrorKind::Unreachable));
    fixture.fill.refresh(KEY).unwrap();
    until(|| fixture.fill.0.queue().under_way() == 0).await;
    assert!(remembered(&fixture, &KEY).is_some());
    let masked = r#"keystead_masked_failures_total{cause="unreachable",tier="store"}"#;
    assert_eq!(fixture.metric(masked), 1);
}

#[tokio::test(start_paused = true)]
async fn refreshed_lookup_finishes_after_its_caller_timed_out() {
    let fixture = fixture(Mood::Hangs, 8, 10);
    fixture.fill.refresh(KEY).unwrap();
    let late = fixture.fill.find(ours(KEY), Instant::now() + Duration::from_millis(20)).await;
    assert_eq!(late, Err(Unavailable::Store(StoreErrorKind::Timeout)));
    fixture.store.set(Mood::Answers);
    until(|| remembered(&fixture, &KEY).is_some()).await;
    assert_eq!(fixture.store.queries(), 1);
}

#[tokio::test(start_paused = true)]
async fn hanging_store_is_a_timeout_and_a_missing_permit_is_saturation() {
    let fixture = of(Mood::Hangs, &Settings::default().places(1).batch_max(1));
    let began = Instant::now();
    let (in_flight, queued) = tokio::join!(
        fixture.fill.find(ours(KEY), began + Duration::from_millis(60)),
        fixture.fill.find(ours(Digest::from_bytes([1; 32])), began + Duration::from_millis(60)),
    );
    assert_eq!(in_flight, Err(Unavailable::Store(StoreErrorKind::Timeout)));
    assert_eq!(queued, Err(Unavailable::Store(StoreErrorKind::Saturated)));
    assert_eq!(began.elapsed(), Duration::from_millis(60), "each caller keeps its own deadline");
}

#[tokio::test(start_paused = true)]
async fn error_is_reported_by_kind_and_never_cached() {
    for kind in StoreErrorKind::ALL {
        let fixture = fixture(Mood::Fails(kind), 8, 10);
        assert_eq!(fixture.fill.find(ours(KEY), soon()).await, Err(Unavailable::Store(kind)));
        assert_eq!(remembered(&fixture, &KEY), None);
        fixture.store.set(Mood::Answers);
        assert_eq!(principal(fixture.fill.find(ours(KEY), soon()).await), "acme");
    }
}

#[tokio::test(start_paused = true)]
async fn lookup_continues_after_its_first_caller_cancels() {
    let fixture = fixture(Mood::Hangs, 8, 10);
    let mut first = Box::pin(fixture.fill.find(ours(KEY), soon()));
    assert!(futures::poll!(&mut first).is_pending());
    let second = fixture.fill.find(ours(KEY), soon());
    let leave = async {
        until(|| fixture.store.queries() == 1).await;
        drop(first);
        fixture.store.set(Mood::Answers);
    };
    let (outcome, ()) = tokio::join!(second, leave);
    assert_eq!(principal(outcome), "acme");
    assert_eq!(fixture.store.queries(), 1);
}

#[tokio::test(start_paused = true)]
async fn lookup_whose_callers_all_cancelled_is_never_queried() {
    let fixture = fixture(Mood::Hangs, 1, 10);
    let mut in_flight = Box::pin(fixture.fill.find(ours(Digest::from_bytes([1; 32])), soon()));
    assert!(futures::poll!(&mut in_flight).is_pending());
    until(|| fixture.store.queries() == 1).await;

    let mut queued = Box::pin(fixture.fill.find(ours(KEY), soon()));
    assert!(futures::poll!(&mut queued).is_pending());
    drop(queued);

    fixture.store.set(Mood::Answers);
    assert_eq!(principal(in_flight.await), "nobody");
    until(|| fixture.fill.0.queue().under_way() == 0).await;
    assert_eq!(fixture.store.queries(), 1, "the abandoned lookup was not queried");
}

#[tokio::test(start_paused = true)]
async fn panic_in_the_store_is_internal_and_leaves_no_pending_lookup() {
    let fixture = fixture(Mood::Panics, 1, 1);
    let both =
        tokio::join!(fixture.fill.find(ours(KEY), soon()), fixture.fill.find(ours(KEY), soon()));
    assert_eq!(both, (Err(Unavailable::Internal), Err(Unavailable::Internal)));
    fixture.store.set(Mood::Answers);
    assert_eq!(principal(fixture.fill.find(ours(KEY), soon()).await), "acme");
}

#[tokio::test(start_paused = true)]
async fn panic_does_not_stall_lookups_outside_its_batch() {
    let fixture = of(Mood::Hangs, &Settings::default().places(1).batch_max(1));
    let both = async {
        tokio::join!(fixture.fill.find(ours(nth(1)), soon()), fixture.fill.find(ours(KEY), soon()))
    };
    let panic = async {
        until(|| fixture.store.queries() == 1).await;
        fixture.store.set(Mood::Panics);
        until(|| fixture.store.queries() == 2).await;
        fixture.store.set(Mood::Answers);
    };
    let ((first, second), ()) = tokio::join!(both, panic);
    assert_eq!(first, Err(Unavailable::Internal));
    assert!(second == Err(Unavailable::Internal) || principal(second) == "acme");
    assert_eq!(principal(fixture.fill.find(ours(KEY), soon()).await), "acme");
}

#[tokio::test(start_paused = true)]
async fn unreadable_row_fails_only_its_own_key() {
    let fixture = fixture(Mood::Answers, 1, 10);
    fixture.store.spoil(nth(1));
    let (bad, good) =
        tokio::join!(fixture.fill.find(ours(nth(1)), soon()), fixture.fill.find(ours(KEY), soon()));
    assert_eq!(bad, Err(Unavailable::Store(StoreErrorKind::Unreadable)));
    assert_eq!(principal(good), "acme");
}
