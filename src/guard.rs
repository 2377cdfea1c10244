//! The only way to a store: a bounded number of calls at once, each with a
//! time-out.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    key::Digest,
    store::{Lookup, Store, StoreError, StoreErrorKind},
    telemetry::Metrics,
    time::DurationText,
};

/// The bounds of the guard: how much work may reach the store.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GuardConfig {
    /// How many calls of this instance may be at the store at once, whatever
    /// the rate of misses. Further calls wait in turn, as long as there would
    /// still be time to ask the store, and end as `STORE_SATURATED`. An instance
    /// opens as many connections, and one more for the feed. 8 keep a store with
    /// a network round trip of 1 ms busy; multiply 9 by the number of instances
    /// when you set `max_connections` of the server.
    #[schemars(range(max = 1024))]
    pub max_in_flight: NonZeroUsize,
    /// How long one call to the store may take. Then it is given up and ends as
    /// `STORE_TIMEOUT`. Must be shorter than `check.timeout`, so that a check can
    /// still say why there is no answer.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1m"))]
    pub query_timeout: Duration,
}

impl Default for GuardConfig {
    fn default() -> Self {
        const MAX_IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(8).unwrap();
        Self { max_in_flight: MAX_IN_FLIGHT, query_timeout: Duration::from_millis(100) }
    }
}

/// A store behind its guard.
#[derive(Debug)]
pub struct Guarded<S> {
    store: S,
    bulkhead: Semaphore,
    query_timeout: Duration,
    metrics: Arc<Metrics>,
}

/// A place at the store, given back when dropped.
#[derive(Debug)]
pub struct Place<'a, S> {
    guarded: &'a Guarded<S>,
    _permit: SemaphorePermit<'a>,
}

impl<S: Store> Guarded<S> {
    /// Puts a guard before `store`.
    pub fn new(store: S, config: GuardConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            bulkhead: Semaphore::new(config.max_in_flight.get()),
            query_timeout: config.query_timeout,
            metrics,
        }
    }

    /// How long one call may take once it has a place.
    pub const fn query_timeout(&self) -> Duration {
        self.query_timeout
    }

    /// Waits for a place, first come, first served. `None` when there was none
    /// until `deadline`. May be cancelled; the place in the queue is lost then.
    pub async fn enter(&self, deadline: Instant) -> Option<Place<'_, S>> {
        let permit = timeout_at(deadline, self.bulkhead.acquire()).await.ok()?;
        // The semaphore is never closed.
        permit.ok().map(|permit| Place { guarded: self, _permit: permit })
    }

    /// A place if one is free and nobody waits for it: for work that comes last.
    pub fn try_enter(&self) -> Option<Place<'_, S>> {
        self.bulkhead.try_acquire().ok().map(|permit| Place { guarded: self, _permit: permit })
    }

    /// Runs a call of the feed, which takes no place: misses must never keep it
    /// from learning of a revocation. It makes one call at a time, for which the
    /// engines have one connection more than there are places.
    pub async fn run_for_feed<T>(
        &self,
        call: impl AsyncFnOnce(&S) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.within_timeout(call(&self.store)).await
    }

    async fn within_timeout<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.query_timeout;
        timeout(limit, call).await.unwrap_or_else(|_| {
            let detail = format!("no answer within {}", humantime::format_duration(limit));
            Err(StoreError::new(StoreErrorKind::Timeout, detail))
        })
    }
}

impl<S: Store> Place<'_, S> {
    /// Asks the store about all digests in one query.
    pub async fn find(self, digests: &[Digest]) -> Result<Lookup, StoreError> {
        let Guarded { store, metrics, .. } = self.guarded;
        let in_flight = metrics.store_query_began();
        let answer = self.guarded.within_timeout(store.find(digests)).await;
        in_flight.ended();
        metrics.store_lookups(digests, &answer);
        answer
    }

    /// Runs any other call to the store, which is not a lookup and is not
    /// counted as one.
    pub async fn run<T>(
        self,
        call: impl AsyncFnOnce(&S) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.guarded.within_timeout(call(&self.guarded.store)).await
    }
}

#[cfg(test)]
mod tests;
