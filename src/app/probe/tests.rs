use tokio::time::Instant;

use super::*;
use crate::{
    fill::{self, PROBE_DIGEST, fixture::Settings},
    guard::{BreakerState, GuardConfig, Guarded},
    instance::TierState,
    key::{KeyRing, Prefix, Secret},
    store::fake::{FakeStore, Mood},
};

const EVERY: Duration = Duration::from_secs(1);

/// The time limit for full recovery after an outage.
const RECOVERY: Duration = Duration::from_secs(10);

struct Fixture {
    store: FakeStore,
    guarded: Arc<Guarded<FakeStore>>,
    instance: Instance,
}

/// A store, and a probe that runs until the test ends.
fn fixture(mood: Mood) -> (Fixture, impl Future<Output = ()>) {
    let fixture = fill::fixture::Fixture::new(mood, &Settings::default().places(1));
    let fill::fixture::Fixture { store, guarded, fill, coverage, .. } = fixture;
    let instance = Instance::new(Clock::System);
    let warmth = Arc::new(Warmth::new(Instant::now()));
    let ring = KeyRing::parse(&Secret::generate().unwrap(), Prefix::default(), true).unwrap();
    let secrets = Secrets::new(&ring, &[], false, instance.clone(), Clock::System);
    let probe = Probe::new(fill, secrets, instance.clone(), warmth, coverage, EVERY, Clock::System);
    (Fixture { store, guarded, instance }, probe.run())
}

impl Fixture {
    fn state(&self) -> TierState {
        self.instance.standing().store
    }

    /// Fails checks until the breaker opens.
    async fn open_breaker(&self, kind: StoreErrorKind) {
        self.store.set(Mood::Fails(kind));
        while let Ok(permit) = self.guarded.acquire(Instant::now() + EVERY).await {
            permit.find(&[PROBE_DIGEST]).await.unwrap_err();
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

/// Runs a probe during a test.
async fn with_probe(probe: impl Future<Output = ()>, test: impl Future<Output = ()>) {
    tokio::select! {
        () = probe => unreachable!("the probe runs forever"),
        () = test => {}
    }
}

#[tokio::test(start_paused = true)]
async fn store_that_failed_checks_is_down_with_their_cause_while_the_probe_is_rejected() {
    let (fixture, probe) = fixture(Mood::Answers);
    with_probe(probe, async {
        fixture.until(|fixture| fixture.state().is_up()).await;
        fixture.open_breaker(StoreErrorKind::Forbidden).await;
        let took = fixture.until(|fixture| fixture.is_down_by(StoreErrorKind::Forbidden)).await;
        assert!(took < EVERY * 3, "{took:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn probe_alone_detects_recovery_after_any_outage() {
    for outage in [1, 7, 60, 3600] {
        let (fixture, probe) = fixture(Mood::Answers);
        with_probe(probe, async {
            fixture.until(|fixture| fixture.state().is_up()).await;
            fixture.open_breaker(StoreErrorKind::Unreachable).await;
            sleep(Duration::from_secs(outage)).await;
            fixture.store.set(Mood::Answers);
            let took = fixture
                .until(|fixture| {
                    fixture.state().is_up()
                        && fixture.guarded.breaker().state() == BreakerState::Closed
                })
                .await;
            assert!(took < RECOVERY / 2, "{took:?} after an outage of {outage} s");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn store_that_times_out_one_probe_recovers_in_time() {
    let (fixture, probe) = fixture(Mood::Answers);
    with_probe(probe, async {
        fixture.until(|fixture| fixture.state().is_up()).await;
        fixture.open_breaker(StoreErrorKind::Unreachable).await;
        sleep(Duration::from_mins(1)).await;
        // The first probe after the outage still times out.
        let asked = fixture.store.queries();
        fixture.store.set(Mood::Hangs);
        let waited = fixture.until(|fixture| fixture.store.queries() > asked).await;
        sleep(GuardConfig::default().query_timeout * 2).await;
        fixture.store.set(Mood::Answers);
        let took = fixture
            .until(|fixture| fixture.guarded.breaker().state() == BreakerState::Closed)
            .await;
        assert!(waited + took < RECOVERY, "{waited:?} and {took:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn probe_queries_only_what_the_breaker_admits() {
    let (fixture, probe) = fixture(Mood::Answers);
    with_probe(probe, async {
        fixture.open_breaker(StoreErrorKind::Unreachable).await;
        let asked = fixture.store.queries();
        sleep(Duration::from_mins(10)).await;
        let asked = fixture.store.queries() - asked;
        // One for each interval, which has grown to 2 s ± 20 %.
        assert!((240..=380).contains(&asked), "{asked}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn probe_without_a_permit_reports_saturation() {
    let (fixture, probe) = fixture(Mood::Answers);
    let _held = fixture.guarded.try_acquire().unwrap();
    with_probe(probe, async {
        fixture.until(|fixture| fixture.is_down_by(StoreErrorKind::Saturated)).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn probe_detects_lag_without_a_feed() {
    let (fixture, probe) = fixture(Mood::Answers);
    TierWatch::new(Dependency::Feed, fixture.instance.clone(), Clock::System).absent();
    with_probe(probe, async {
        fixture.until(|fixture| fixture.state().is_up()).await;
        let lags = |fixture: &Fixture| fixture.instance.standing().doubts(Doubt::Lagging);
        assert!(!lags(&fixture));
        fixture.store.tune(|channel| channel.lags_since = Some(Instant::now()));
        assert!(fixture.until(lags).await < EVERY * 2);
        fixture.store.tune(|channel| channel.lags_since = None);
        assert!(fixture.until(|fixture| !lags(fixture)).await < EVERY * 2);
    })
    .await;
}
