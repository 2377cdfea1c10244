//! Asks the store regularly whether it would answer a check.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::secrets::Secrets;
use crate::{
    fill::Fill,
    guard::{Guarded, Refused},
    ladder::{Dependency, Doubt, Ladder, TierWatch, Warmth},
    store::{Store, StoreError, StoreErrorKind},
    time::{Clock, jittered},
};

/// How far the probes of several instances are spread.
const JITTER: f64 = 0.1;

/// Which part of the usual pause passes between probes at least.
const SHORTEST_PART: u32 = 10;

/// Tells the ladder how the store fares. See [`Fill::probe`].
#[derive(Debug)]
pub(super) struct Probe<S> {
    store: Arc<Guarded<S>>,
    fill: Fill<S>,
    secrets: Secrets,
    watch: TierWatch,
    ladder: Ladder,
    warmth: Arc<Warmth>,
    every: Duration,
    clock: Clock,
}

impl<S: Store> Probe<S> {
    pub(super) fn new(
        store: Arc<Guarded<S>>,
        fill: Fill<S>,
        secrets: Secrets,
        ladder: Ladder,
        warmth: Arc<Warmth>,
        every: Duration,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            fill,
            secrets,
            watch: TierWatch::new(Dependency::Store, ladder.clone(), clock.clone()),
            ladder,
            warmth,
            every,
            clock,
        }
    }

    /// Probes for ever.
    pub(super) async fn run(mut self) {
        loop {
            if let Some(outcome) = self.ask().await {
                self.watch.observe(outcome);
            }
            self.ladder.doubt(Doubt::Suspect, self.fill.is_suspect());
            self.ladder.assess(self.warmth.share(self.clock.monotonic()));
            sleep(self.pause()).await;
        }
    }

    /// What is known of the store now. While the breaker refuses the probe, that
    /// is how the store failed last: its cause stays the one that opened it.
    ///
    /// One that answers is asked as well what it should have, and with which secrets
    /// its keys were minted.
    async fn ask(&mut self) -> Option<Result<(), StoreError>> {
        let deadline = self.clock.monotonic() + self.every;
        let mut outcome = self.fill.probe(deadline).await;
        if let Ok(Ok(())) = outcome {
            outcome = self.fill.recall(deadline).await;
            self.secrets.follow(&self.store, deadline).await;
        }
        match outcome {
            Ok(outcome) => Some(outcome),
            Err(Refused::Saturated) => Some(Err(StoreError::new(
                StoreErrorKind::Saturated,
                "no place at the store until the next probe",
            ))),
            Err(Refused::Open) => self.store.last_failure().map(Err),
        }
    }

    /// Until the next probe. While the breaker is not closed, the probe is there
    /// when the store may be tried, so that the end of an outage is noticed
    /// without any check.
    fn pause(&self) -> Duration {
        let usual = jittered(self.every, JITTER);
        let shortest = (self.every / SHORTEST_PART).min(usual);
        self.store.tries_in().map_or(usual, |tries_in| tries_in.clamp(shortest, usual))
    }
}

#[cfg(test)]
mod tests;
