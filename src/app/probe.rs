//! Asks the store regularly whether it would answer a check.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    guard::Guarded,
    key::Digest,
    ladder::{Dependency, Ladder, TierWatch},
    store::{Store, StoreError, StoreErrorKind},
    time::{Clock, jittered},
};

/// How far the probes of several instances are spread.
const JITTER: f64 = 0.1;

/// A digest that no key has: no preimage of it is known.
const NOBODY: Digest = Digest::from_bytes([0; Digest::LEN]);

/// Asks for a key that does not exist, with the query that checks use: a table
/// that is gone or rights that are missing are found as well as a server that
/// is down.
#[derive(Debug)]
pub(super) struct Probe<S> {
    store: Arc<Guarded<S>>,
    watch: TierWatch,
    every: Duration,
    clock: Clock,
}

impl<S: Store> Probe<S> {
    pub(super) fn new(
        store: Arc<Guarded<S>>,
        ladder: Ladder,
        every: Duration,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            watch: TierWatch::new(Dependency::Store, ladder, clock.clone()),
            every,
            clock,
        }
    }

    /// Probes for ever.
    pub(super) async fn run(mut self) {
        loop {
            let outcome = self.ask().await;
            self.watch.observe(outcome);
            sleep(jittered(self.every, JITTER)).await;
        }
    }

    async fn ask(&self) -> Result<(), StoreError> {
        let deadline = self.clock.monotonic() + self.every;
        let place = self.store.enter(deadline).await.ok_or_else(|| {
            StoreError::new(StoreErrorKind::Saturated, "no place at the store until the next probe")
        })?;
        place.run(async |store: &S| store.find(&[NOBODY]).await).await.map(drop)
    }
}
