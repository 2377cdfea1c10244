//! Asks the store regularly whether it would answer a check.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::secrets::Secrets;
use crate::{
    cache::Coverage,
    fill::Fill,
    guard::Refused,
    instance::{Dependency, Doubt, Instance, TierState, TierWatch, Warmth},
    store::{DataAge, KeyAdmin, Lookups, StoreError, StoreErrorKind},
    time::{Clock, jittered, rounded},
};

/// How far the probes of several instances are spread.
const JITTER: f64 = 0.1;

/// Which part of the usual pause passes between probes at least.
const SHORTEST_PART: u32 = 10;

/// Tells the instance how the store fares. See [`Fill::probe`].
#[derive(Debug)]
pub(super) struct Probe<S> {
    fill: Fill<S>,
    secrets: Secrets,
    watch: TierWatch,
    instance: Instance,
    warmth: Arc<Warmth>,
    coverage: Arc<Coverage>,
    lag: Lag,
    every: Duration,
    clock: Clock,
}

/// Tells once that the data of the store are old, and once that they are not.
#[derive(Debug, Default)]
struct Lag {
    since: Option<Instant>,
}

impl<S: Lookups + KeyAdmin> Probe<S> {
    pub(super) fn new(
        fill: Fill<S>,
        secrets: Secrets,
        instance: Instance,
        warmth: Arc<Warmth>,
        coverage: Arc<Coverage>,
        every: Duration,
        clock: Clock,
    ) -> Self {
        Self {
            fill,
            secrets,
            watch: TierWatch::new(Dependency::Store, instance.clone(), clock.clone()),
            instance,
            warmth,
            coverage,
            lag: Lag::default(),
            every,
            clock,
        }
    }

    /// Probes for ever.
    pub(super) async fn run(mut self) {
        loop {
            if let Some(outcome) = self.ask().await {
                self.observe(&outcome);
                self.watch.observe(outcome.map(drop));
            }
            self.lag.tell(&self.instance, &self.coverage, self.clock.monotonic());
            self.instance.doubt(Doubt::Suspect, self.fill.is_suspect());
            self.instance.assess(self.warmth.share(self.clock.monotonic()));
            sleep(self.pause()).await;
        }
    }

    /// Where there is no feed, lookups alone tell how old the data are.
    fn observe(&self, outcome: &Result<DataAge, StoreError>) {
        if let (Ok(age), TierState::None) = (outcome, self.instance.standing().feed) {
            self.coverage.lags(age.is_lagging());
        }
    }

    /// What is known of the store now. While the breaker refuses the probe, that
    /// is how the store failed last: its cause stays the one that opened it.
    ///
    /// One that answers is asked as well what it should have, and with which secrets
    /// its keys were minted.
    async fn ask(&mut self) -> Option<Result<DataAge, StoreError>> {
        let deadline = self.clock.monotonic() + self.every;
        let mut outcome = self.fill.probe(deadline).await;
        if let Ok(Ok(age)) = outcome {
            let recalled = self.fill.recall(deadline).await;
            outcome = recalled.map(|recalled| recalled.map(|()| age));
            self.secrets.follow(self.fill.store(), deadline).await;
        }
        match outcome {
            Ok(outcome) => Some(outcome),
            Err(Refused::Saturated) => Some(Err(StoreError::new(
                StoreErrorKind::Saturated,
                "no place at the store until the next probe",
            ))),
            Err(Refused::Open) => self.fill.store().last_failure().map(Err),
        }
    }

    /// Until the next probe. While the breaker is not closed, the probe is there
    /// when the store may be tried, so that the end of an outage is noticed
    /// without any check.
    fn pause(&self) -> Duration {
        let usual = jittered(self.every, JITTER);
        let shortest = (self.every / SHORTEST_PART).min(usual);
        self.fill.store().tries_in().map_or(usual, |tries_in| tries_in.clamp(shortest, usual))
    }
}

impl Lag {
    fn tell(&mut self, instance: &Instance, coverage: &Coverage, now: Instant) {
        let lagging = coverage.is_lagging();
        instance.doubt(Doubt::Lagging, lagging);
        match (lagging, self.since) {
            (true, None) => {
                self.since = Some(now);
                let age = coverage.until().map(|until| now.saturating_duration_since(until));
                let age =
                    age.map_or_else(|| "not known".to_owned(), |age| rounded(age).to_string());
                tracing::warn!(
                    age,
                    "the data of the store are older than `store.max_lag`, or it is not known which \
                     server answers behind `store.url`: nothing is called fresh and no key unknown; see \
                     whether the replay of the standby is paused or delayed or its link to the primary \
                     is down, or name the primary in `store.url`"
                );
            }
            (false, Some(since)) => {
                self.since = None;
                let lasted = rounded(now.saturating_duration_since(since));
                tracing::info!(%lasted, "the data of the store are up to date again");
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
}

#[cfg(test)]
mod tests;
