//! The memory, restored from a snapshot if there is one.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    cache::{Coverage, Memory},
    config::Config,
    key::KeyRing,
    snapshot::{self, Journal, Seals, Setup, Writer},
    store::{Position, StoreIdentity},
    suspect::Suspicion,
    telemetry::Metrics,
    time::Clock,
};

/// The memory and its persistence.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) memory: Arc<Memory>,
    /// Where the feed resumes.
    pub(super) resume: Option<Position>,
    pub(super) journal: Journal,
    pub(super) writer: Option<Writer>,
}

/// Dependencies of the memory and its persistence.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) coverage: Arc<Coverage>,
    pub(super) suspicion: Arc<Suspicion>,
    /// The position of the feed.
    pub(super) position: watch::Receiver<Option<Position>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
}

/// Restores the memory from the snapshot. Without a snapshot path it is empty, and
/// nothing is persisted.
pub(super) async fn memory(config: &Config, ring: &KeyRing, parts: Parts) -> Kept {
    let Parts { coverage, suspicion, position, metrics, clock } = parts;
    let cache = config.cache;
    let empty = {
        let (coverage, clock) = (Arc::clone(&coverage), clock.clone());
        move || Memory::new(cache, Arc::clone(&coverage), Arc::clone(&suspicion), clock.clone())
    };
    let Some(setup) = setup(config, ring) else {
        let (memory, journal) = (Arc::new(empty()), Journal::default());
        return Kept { memory, resume: None, journal, writer: None };
    };
    let warm = snapshot::load(setup, empty, metrics, clock.clone()).await;
    if let Some(restored) = &warm.restored {
        coverage.resume(restored.covered_since, clock.monotonic());
    }
    let (memory, resume) = (Arc::clone(&warm.memory), warm.restored.map(|it| it.position));
    let (journal, writer) = warm.keep(coverage, position);
    Kept { memory, resume, journal, writer: Some(writer) }
}

fn setup(config: &Config, ring: &KeyRing) -> Option<Setup> {
    Some(Setup {
        path: config.snapshot.path.clone()?,
        every: config.snapshot.every,
        store: StoreIdentity::of(&config.store.url, config.store.relation.as_deref()),
        seals: Seals::of(ring),
        max_age: config.cache.stale_if_error_for,
        numbered: config.store.relation.is_none(),
    })
}
