//! The in-memory cache of the store's answers.
//!
//! A fresh or revalidating record is served at once, whatever the state of the
//! store. After that, a lookup queries the store first and serves the record if no
//! answer arrives in time (stale-if-error), up to a bound.

mod config;
mod coverage;
mod entry;
mod memory;
mod policy;
mod profiles;
mod tombstones;

use std::sync::Arc;

use tokio::time::Instant;

pub use config::CacheConfig;
pub use coverage::Coverage;
pub use memory::{Exported, Hit, Inspection, Memory, Remembered, Serve};
pub use policy::{EntryState, Windows};
pub use tombstones::Tombstone;

use crate::{
    instance::Warmth,
    key::{Credential, Digest},
    outage::Unavailable,
    store::Answer,
    telemetry::{CacheResult, Metrics},
    tier::{Freshness, Observation, Refresh, Tier},
    time::Clock,
};

/// Answers from the cache, or queries the next tier, which fills the cache.
#[derive(Debug)]
pub struct Cached<T> {
    memory: Arc<Memory>,
    config: CacheConfig,
    metrics: Arc<Metrics>,
    /// Records hits and misses of known keys while the store is in doubt.
    warmth: Arc<Warmth>,
    clock: Clock,
    next: T,
}

impl<T: Refresh> Cached<T> {
    /// Puts `memory` before `next`.
    pub const fn new(
        memory: Arc<Memory>,
        config: CacheConfig,
        metrics: Arc<Metrics>,
        warmth: Arc<Warmth>,
        clock: Clock,
        next: T,
    ) -> Self {
        Self { memory, config, metrics, warmth, clock, next }
    }

    /// Refreshes a record in the background.
    fn refresh_in_background(&self, digest: Digest) {
        if let Err(cause) = self.next.refresh(digest) {
            self.metrics.refresh_dropped(cause.as_str());
        }
    }

    /// Queries the store and waits for at most `revalidate_wait`. The lookup continues
    /// without callers, so that a late answer is cached.
    async fn revalidate(
        &self,
        credential: Credential,
        deadline: Instant,
    ) -> Result<Observation, Unavailable> {
        let doubt = self.next.doubt();
        self.next
            .refresh(credential.digest())
            .inspect_err(|cause| self.metrics.refresh_dropped(cause.as_str()))?;
        if let Some(cause) = doubt {
            return Err(cause);
        }
        let until = self.clock.monotonic() + self.config.revalidate_wait;
        self.next.find(credential, until.min(deadline)).await
    }
}

impl<T: Refresh> Tier for Cached<T> {
    fn peek(&self, credential: Credential, now: Instant) -> Option<Observation> {
        let held = self.memory.look(&credential.digest(), now)?;
        (held.serve != Serve::IfError).then(|| self.serve(credential, held, now))
    }

    async fn find(
        &self,
        credential: Credential,
        deadline: Instant,
    ) -> Result<Observation, Unavailable> {
        let now = self.clock.monotonic();
        let found = match self.memory.look(&credential.digest(), now) {
            Some(Hit { observation, serve: Serve::IfError }) => {
                self.metrics.cache_lookup(result_of(&observation));
                let revalidated = self.revalidate(credential, deadline).await;
                Ok(revalidated.unwrap_or_else(|cause| {
                    self.metrics.masked_failure("store", cause.as_str());
                    observation
                }))
            }
            Some(held @ Hit { serve: Serve::AtOnce | Serve::AndRefresh, .. }) => {
                return Ok(self.serve(credential, held, now));
            }
            None => {
                self.metrics.cache_lookup(CacheResult::Miss);
                self.next.find(credential, deadline).await
            }
        };
        self.note(credential, found.is_ok(), self.clock.monotonic());
        found
    }
}

impl<T: Refresh> Cached<T> {
    /// Serves a hit without waiting for the store.
    fn serve(&self, credential: Credential, held: Hit, now: Instant) -> Observation {
        let Hit { observation, serve } = held;
        if serve == Serve::AndRefresh {
            self.refresh_in_background(credential.digest());
        }
        self.metrics.cache_lookup(result_of(&observation));
        self.note(credential, true, now);
        observation
    }

    /// Records whether a known key was served while the store is in doubt.
    fn note(&self, credential: Credential, is_served: bool, now: Instant) {
        if self.next.in_doubt() && self.is_known(credential) {
            self.warmth.note(&credential.digest(), is_served, now);
        }
    }

    /// Whether a key carries our tag or is cached. Other keys are no evidence of how
    /// warm the cache is: anybody can make them up.
    fn is_known(&self, credential: Credential) -> bool {
        match credential {
            Credential::Ours(_) => true,
            Credential::Foreign(digest) => self.memory.knows(&digest),
        }
    }
}

/// The metric label of a hit.
const fn result_of(observation: &Observation) -> CacheResult {
    match (&observation.answer, observation.freshness) {
        (Answer::Absent(_), _) => CacheResult::Absent,
        (Answer::Found(_), Freshness::Fresh) => CacheResult::Fresh,
        (Answer::Found(_), Freshness::Revalidating) => CacheResult::Revalidating,
        (Answer::Found(_), Freshness::StaleIfError) => CacheResult::StaleIfError,
    }
}

#[cfg(test)]
mod tests;
