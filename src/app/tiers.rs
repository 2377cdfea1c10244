//! The tiers between a check and the store, put together from the store up. The
//! one place that knows their order.

use std::sync::Arc;

use tokio::sync::watch;

use super::snapshot;
use crate::{
    cache::{Cached, Coverage, Memory},
    config::Config,
    explain,
    feed::{self, Feed, FeedParts},
    fill::{self, Fill},
    guard::Guarded,
    instance::{Instance, Warmth},
    key::KeyRing,
    snapshot::Writer,
    store::{AnyStore, Position},
    suspect::Suspicion,
    tasks::Tasks,
    telemetry::Metrics,
    time::Clock,
};

/// The tiers, and what connects them.
pub(super) struct Tiers {
    pub(super) store: Arc<Guarded<AnyStore>>,
    pub(super) fill: Fill<AnyStore>,
    memory: Arc<Memory>,
    /// How far the changes of the store have come.
    pub(super) coverage: Arc<Coverage>,
    suspicion: Arc<Suspicion>,
    /// How known keys fare while the store is in doubt.
    pub(super) warmth: Arc<Warmth>,
    /// What keeps the memory on disk, if anything.
    snapshot: Option<Writer>,
    resume: Option<Position>,
    told: watch::Sender<Option<Position>>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Tiers {
    /// Puts the tiers on `store`. The memory is filled from the snapshot, where
    /// there is one; the store is not asked.
    pub(super) async fn on(
        store: AnyStore,
        ring: &KeyRing,
        config: &Config,
        tasks: Tasks,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        let store = Guarded::new(store, config.store.guard, Arc::clone(&metrics), clock.clone());
        let store = Arc::new(store);
        let coverage = Arc::new(Coverage::new(config.feed.grace()));
        let suspicion = Arc::new(Suspicion::new(config.suspect).awaiting_history());
        let (told, position) = watch::channel(None);
        let parts = snapshot::Parts {
            coverage: Arc::clone(&coverage),
            suspicion: Arc::clone(&suspicion),
            position,
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
        };
        let kept = snapshot::memory(config, ring, parts).await;
        let snapshot::Kept { memory, resume, journal, writer: snapshot } = kept;
        let parts = fill::Parts {
            memory: Arc::clone(&memory),
            journal,
            suspicion: Arc::clone(&suspicion),
            store: Arc::clone(&store),
            tasks,
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
        };
        let fill = Fill::new(config.fill, config.check.timeout, parts);
        let warmth = Arc::new(Warmth::new(clock.monotonic()));
        Self {
            store,
            fill,
            memory,
            coverage,
            suspicion,
            warmth,
            snapshot,
            resume,
            told,
            metrics,
            clock,
        }
    }

    /// Whether there were keys in memory from the start.
    pub(super) fn is_warm(&self) -> bool {
        !self.memory.is_empty()
    }

    /// The topmost tier, which a check asks.
    pub(super) fn cached(&self, config: &Config) -> Cached<Fill<AnyStore>> {
        Cached::new(
            Arc::clone(&self.memory),
            config.cache,
            Arc::clone(&self.metrics),
            Arc::clone(&self.warmth),
            self.clock.clone(),
            self.fill.clone(),
        )
    }

    /// What explanations look at.
    pub(super) fn looked(&self, ring: KeyRing, config: &Config) -> explain::Parts<AnyStore> {
        explain::Parts {
            ring,
            memory: Arc::clone(&self.memory),
            suspicion: Arc::clone(&self.suspicion),
            coverage: Arc::clone(&self.coverage),
            checks: Arc::clone(&self.store),
            revalidate_wait: config.cache.revalidate_wait,
            clock: self.clock.clone(),
        }
    }

    /// Shows the tiers in the metrics.
    pub(super) fn show(&self, instance: &Instance) {
        let Self { metrics, memory, .. } = self;
        let entries = Arc::clone(memory);
        metrics.observe_cache_entries(move || entries.len());
        let outranked = Arc::clone(memory);
        metrics.observe_rows_outranked(move || outranked.rows_outranked());
        self.fill.observe(metrics);
        feed::observe(metrics, instance.clone(), Arc::clone(&self.coverage), self.clock.clone());
    }

    /// The feed that keeps the memory true, and what keeps it on disk.
    pub(super) fn into_feed(
        self,
        config: &Config,
        instance: Instance,
    ) -> (Feed<AnyStore>, Option<Writer>) {
        let parts = FeedParts {
            store: self.store,
            fill: self.fill,
            memory: self.memory,
            coverage: self.coverage,
            published: self.told,
            instance,
            metrics: self.metrics,
            clock: self.clock,
        };
        (Feed::new(config.feed, self.resume, parts), self.snapshot)
    }
}
