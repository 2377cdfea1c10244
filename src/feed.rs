//! Changes of the store, brought to the memory.
//!
//! The change table is polled: its numbers are given out in the order in which
//! changes become visible, so that going on from the last number that was seen
//! misses nothing, however long the store was away.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::{
    fill::Fill,
    guard::Guarded,
    key::Revision,
    ladder::{Dependency, Ladder, TierWatch},
    store::{Change, Store, StoreError},
    time::{Clock, DurationText, jittered},
};

/// How many changes are read at once. A page of this size is about 60 KB.
const PAGE: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// How far the polls of several instances are spread.
const POLL_JITTER: f64 = 0.1;

/// The feed: how changes reach the cache.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FeedConfig {
    /// How often the store is asked for new changes: about the longest time
    /// that a revoked key goes on working while the store answers. One small
    /// query each time, on every instance.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1m"))]
    pub poll_every: Duration,
}

impl Default for FeedConfig {
    fn default() -> Self {
        Self { poll_every: Duration::from_millis(100) }
    }
}

/// Follows the changes of a store.
#[derive(Debug)]
pub struct Feed<S> {
    store: Arc<Guarded<S>>,
    fill: Fill<S>,
    poll_every: Duration,
    /// The last change that was seen; `None` until the store has answered once.
    /// What was cached before then is bounded by `cache.fresh_for` alone.
    position: Option<Revision>,
    watch: TierWatch,
}

impl<S: Store> Feed<S> {
    /// A feed that begins at the newest change, and tells `ladder` how it fares.
    pub const fn new(
        store: Arc<Guarded<S>>,
        fill: Fill<S>,
        poll_every: Duration,
        ladder: Ladder,
        clock: Clock,
    ) -> Self {
        let watch = TierWatch::new(Dependency::Feed, ladder, clock);
        Self { store, fill, poll_every, position: None, watch }
    }

    /// Follows for ever. Failures of the store are waited out.
    pub async fn follow(mut self) {
        loop {
            let outcome = self.catch_up().await;
            self.watch.observe(outcome);
            sleep(jittered(self.poll_every, POLL_JITTER)).await;
        }
    }

    async fn catch_up(&mut self) -> Result<(), StoreError> {
        let head = self.store.run_for_feed(async |store: &S| store.head().await).await?;
        let position = *self.position.get_or_insert(head);
        if head < position {
            tracing::warn!(
                %position, %head,
                "the store has lost changes, as after a backup was restored; following on from there"
            );
            self.position = Some(head);
            return Ok(());
        }
        let mut seen = position;
        while seen < head {
            let page =
                self.store.run_for_feed(async |store: &S| store.changes(seen, PAGE).await).await?;
            let Some(last) = page.last() else { break };
            seen = last.revision;
            self.apply(&page);
            self.position = Some(seen);
        }
        Ok(())
    }

    fn apply(&self, changes: &[Change]) {
        for change in changes {
            self.fill.invalidate(&change.digest);
        }
    }
}

#[cfg(test)]
mod tests;
