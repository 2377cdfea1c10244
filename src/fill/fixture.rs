//! A fill with a fake store, for tests.

use std::{num::NonZeroUsize, time::Duration};

use super::{Arc, Fill, FillConfig, Parts};
use crate::{
    cache::{CacheConfig, Coverage, Memory},
    guard::{GuardConfig, Guarded},
    snapshot::Journal,
    store::fake::{FakeStore, Mood},
    suspect::{SuspectConfig, Suspicion},
    tasks::Tasks,
    telemetry::{Exposition, Metrics},
    time::Clock,
};

/// Time-out of a check.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(150);

/// The settings of a fixture.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settings {
    pub(crate) fill: FillConfig,
    pub(crate) guard: GuardConfig,
    pub(crate) cache: CacheConfig,
    pub(crate) suspect: SuspectConfig,
}

impl Settings {
    pub(crate) fn places(mut self, places: usize) -> Self {
        self.guard.max_in_flight = NonZeroUsize::new(places).unwrap();
        self
    }

    pub(crate) fn max_queued(mut self, max_queued: usize) -> Self {
        self.fill.max_queued = NonZeroUsize::new(max_queued).unwrap();
        self
    }

    pub(crate) fn batch_max(mut self, batch_max: usize) -> Self {
        self.fill.batch_max = NonZeroUsize::new(batch_max).unwrap();
        self
    }
}

/// The tiers from the cache to the store.
pub(crate) struct Fixture {
    pub(crate) store: FakeStore,
    pub(crate) guarded: Arc<Guarded<FakeStore>>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) coverage: Arc<Coverage>,
    pub(crate) suspicion: Arc<Suspicion>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) exposition: Exposition,
    pub(crate) fill: Fill<FakeStore>,
}

impl Fixture {
    pub(crate) fn new(mood: Mood, settings: &Settings) -> Self {
        let store = FakeStore::new(mood);
        let (metrics, exposition) = Metrics::new().unwrap();
        let guarded =
            Guarded::new(store.clone(), settings.guard, Arc::clone(&metrics), Clock::System);
        let guarded = Arc::new(guarded);
        let coverage = Arc::new(Coverage::new(Duration::from_secs(3)));
        let suspicion = Arc::new(Suspicion::new(settings.suspect));
        let (for_memory, clock) = (Arc::clone(&suspicion), Clock::System);
        let memory = Memory::new(settings.cache, Arc::clone(&coverage), for_memory, clock.clone());
        let memory = Arc::new(memory);
        let parts = Parts {
            memory: Arc::clone(&memory),
            journal: Journal::default(),
            suspicion: Arc::clone(&suspicion),
            store: Arc::clone(&guarded),
            tasks: Tasks::here(),
            metrics: Arc::clone(&metrics),
            clock,
        };
        let fill = Fill::new(settings.fill, TIMEOUT, parts);
        Self { store, guarded, memory, coverage, suspicion, metrics, exposition, fill }
    }

    /// The value of a counter.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        let text = String::from_utf8(self.exposition.text().unwrap()).unwrap();
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

/// Runs tasks until `done` without advancing time. With paused time, a yield runs
/// every task that is ready.
pub(crate) async fn until(done: impl Fn() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the condition was never met");
}
