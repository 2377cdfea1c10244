//! Probes the store at an interval: would it answer a check?

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

/// Jitter of the interval, so that instances do not probe in step.
const JITTER: f64 = 0.1;

/// The shortest interval is this fraction of the configured one.
const MIN_INTERVAL_DIVISOR: u32 = 10;

/// Reports the health of the store to the instance. See [`Fill::probe`].
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

/// Logs once when the data of the store become too old, and once when they recover.
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

    /// Probes forever.
    pub(super) async fn run(mut self) {
        loop {
            if let Some(outcome) = self.store_health().await {
                self.observe(&outcome);
                self.watch.observe(outcome.map(drop));
            }
            self.lag.report(&self.instance, &self.coverage, self.clock.monotonic());
            self.instance.doubt(Doubt::Suspect, self.fill.is_suspect());
            self.instance.assess(self.warmth.share(self.clock.monotonic()));
            sleep(self.pause()).await;
        }
    }

    /// Without a feed, only lookups report how old the data are.
    fn observe(&self, outcome: &Result<DataAge, StoreError>) {
        if let (Ok(age), TierState::None) = (outcome, self.instance.standing().feed) {
            self.coverage.lags(age.is_lagging());
        }
    }

    /// The current health of the store. While the breaker rejects the probe, that is the
    /// last failure of the store, so its cause stays the one that opened the breaker.
    ///
    /// Also asks a store that answers for the keys that it should have, and for the secrets
    /// of its keys.
    async fn store_health(&mut self) -> Option<Result<DataAge, StoreError>> {
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
                "no permit was free until the next probe",
            ))),
            Err(Refused::Open) => self.fill.store().last_failure().map(Err),
        }
    }

    /// The time until the next probe. While the breaker is not closed, the probe is timed
    /// to the moment when it admits a call, so recovery needs no check.
    fn pause(&self) -> Duration {
        let usual = jittered(self.every, JITTER);
        let shortest = (self.every / MIN_INTERVAL_DIVISOR).min(usual);
        self.fill.store().tries_in().map_or(usual, |tries_in| tries_in.clamp(shortest, usual))
    }
}

impl Lag {
    fn report(&mut self, instance: &Instance, coverage: &Coverage, now: Instant) {
        let lagging = coverage.is_lagging();
        instance.doubt(Doubt::Lagging, lagging);
        match (lagging, self.since) {
            (true, None) => {
                self.since = Some(now);
                let age = coverage.until().map(|until| now.saturating_duration_since(until));
                let age = age.map_or_else(|| "unknown".to_owned(), |age| rounded(age).to_string());
                tracing::warn!(
                    age,
                    "the data of the store are older than `store.max_lag`, or it is not known which \
                     server answers for `store.url`; until then no record is fresh and no key is \
                     KEY_UNKNOWN; check whether the standby's replay is paused or delayed or its \
                     link to the primary is down, or name the primary in `store.url`"
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
