use tokio::time::Instant;

use super::*;
use crate::{
    fill::{self, NOBODY, bench::Settings},
    guard::{BreakerState, GuardConfig, Guarded},
    key::{KeyRing, Prefix, Secret},
    ladder::TierState,
    store::fake::{FakeStore, Mood},
};

const EVERY: Duration = Duration::from_secs(1);

/// The time in which all is well again once an outage has ended.
const RECOVERY: Duration = Duration::from_secs(10);

struct Bench {
    store: FakeStore,
    guarded: Arc<Guarded<FakeStore>>,
    ladder: Ladder,
}

/// A store with a probe that runs until the test ends.
fn bench(mood: Mood) -> (Bench, impl Future<Output = ()>) {
    let fixture = fill::bench::Bench::new(mood, &Settings::default().places(1));
    let fill::bench::Bench { store, guarded, fill, coverage, .. } = fixture;
    let ladder = Ladder::new(Clock::System);
    let warmth = Arc::new(Warmth::new(Instant::now()));
    let ring = KeyRing::parse(&Secret::generate().unwrap(), Prefix::default(), true).unwrap();
    let secrets = Secrets::new(&ring, &[], false, ladder.clone(), Clock::System);
    let probe = Probe::new(fill, secrets, ladder.clone(), warmth, coverage, EVERY, Clock::System);
    (Bench { store, guarded, ladder }, probe.run())
}

impl Bench {
    fn state(&self) -> TierState {
        self.ladder.standing().store
    }

    /// Checks that fail, until the breaker opens.
    async fn break_it(&self, kind: StoreErrorKind) {
        self.store.set(Mood::Fails(kind));
        while let Ok(place) = self.guarded.enter(Instant::now() + EVERY).await {
            place.find(&[NOBODY]).await.unwrap_err();
        }
    }

    async fn until(&self, what: impl Fn(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !what(self) {
            assert!(began.elapsed() < Duration::from_mins(1));
            sleep(Duration::from_millis(1)).await;
        }
        began.elapsed()
    }

    fn is_down_by(&self, kind: StoreErrorKind) -> bool {
        matches!(self.state(), TierState::Down { cause, .. } if cause == kind)
    }
}

/// Runs a probe beside a test.
async fn beside(probe: impl Future<Output = ()>, test: impl Future<Output = ()>) {
    tokio::select! {
        () = probe => unreachable!("it probes for ever"),
        () = test => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_checks_found_broken_is_down_with_their_cause_though_the_probe_is_refused() {
    let (bench, probe) = bench(Mood::Answers);
    beside(probe, async {
        bench.until(|bench| bench.state().is_up()).await;
        bench.break_it(StoreErrorKind::Forbidden).await;
        let took = bench.until(|bench| bench.is_down_by(StoreErrorKind::Forbidden)).await;
        assert!(took < EVERY * 3, "{took:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn recovery_is_noticed_by_the_probe_alone_however_long_the_outage_was() {
    for outage in [1, 7, 60, 3600] {
        let (bench, probe) = bench(Mood::Answers);
        beside(probe, async {
            bench.until(|bench| bench.state().is_up()).await;
            bench.break_it(StoreErrorKind::Unreachable).await;
            sleep(Duration::from_secs(outage)).await;
            bench.store.set(Mood::Answers);
            let took = bench
                .until(|bench| {
                    bench.state().is_up() && bench.guarded.breaker().state() == BreakerState::Closed
                })
                .await;
            assert!(took < RECOVERY / 2, "{took:?} after an outage of {outage} s");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_answers_one_probe_slowly_is_back_in_time_all_the_same() {
    let (bench, probe) = bench(Mood::Answers);
    beside(probe, async {
        bench.until(|bench| bench.state().is_up()).await;
        bench.break_it(StoreErrorKind::Unreachable).await;
        sleep(Duration::from_mins(1)).await;
        // The first probe after the outage still meets a time-out.
        let asked = bench.store.queries();
        bench.store.set(Mood::Hangs);
        let waited = bench.until(|bench| bench.store.queries() > asked).await;
        sleep(GuardConfig::default().query_timeout * 2).await;
        bench.store.set(Mood::Answers);
        let took =
            bench.until(|bench| bench.guarded.breaker().state() == BreakerState::Closed).await;
        assert!(waited + took < RECOVERY, "{waited:?} and {took:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn while_the_breaker_is_open_the_probe_asks_nothing_and_afterwards_no_more_than_few() {
    let (bench, probe) = bench(Mood::Answers);
    beside(probe, async {
        bench.break_it(StoreErrorKind::Unreachable).await;
        let asked = bench.store.queries();
        sleep(Duration::from_mins(10)).await;
        let asked = bench.store.queries() - asked;
        // One for each pause, which are 2 s ± 20 % once they have grown.
        assert!((240..=380).contains(&asked), "{asked}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_finds_no_place_is_told_as_saturation() {
    let (bench, probe) = bench(Mood::Answers);
    let _held = bench.guarded.try_enter().unwrap();
    beside(probe, async {
        bench.until(|bench| bench.is_down_by(StoreErrorKind::Saturated)).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_a_feed_the_probe_finds_a_store_whose_data_are_old() {
    let (bench, probe) = bench(Mood::Answers);
    TierWatch::new(Dependency::Feed, bench.ladder.clone(), Clock::System).absent();
    beside(probe, async {
        bench.until(|bench| bench.state().is_up()).await;
        let lags = |bench: &Bench| bench.ladder.standing().doubts(Doubt::Lagging);
        assert!(!lags(&bench));
        bench.store.tune(|channel| channel.lags_since = Some(Instant::now()));
        assert!(bench.until(lags).await < EVERY * 2);
        bench.store.tune(|channel| channel.lags_since = None);
        assert!(bench.until(|bench| !lags(bench)).await < EVERY * 2);
    })
    .await;
}
