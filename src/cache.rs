//! Memory: what the store said, for as long as it may be served.
//!
//! A record is served as it is while it is fresh or revalidating, whatever the
//! store behind it does. Past that the store is asked first, and the record is
//! served if there is no answer in time (stale-if-error), up to a bound.

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

/// Answers from memory, or asks the next tier, which fills the memory.
#[derive(Debug)]
pub struct Cached<T> {
    memory: Arc<Memory>,
    config: CacheConfig,
    metrics: Arc<Metrics>,
    /// Told what becomes of known keys while the store is in doubt.
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

    /// Asks the store about a record that is served meanwhile.
    fn refresh_behind(&self, digest: Digest) {
        if let Err(cause) = self.next.refresh(digest) {
            self.metrics.refresh_dropped(cause.as_str());
        }
    }

    /// Asks the store first, for as long as that is worth it. The lookup goes on
    /// when nobody waits any more, so that an answer that comes late is taken.
    async fn ask_first(
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
                let asked = self.ask_first(credential, deadline).await;
                Ok(asked.unwrap_or_else(|cause| {
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
    /// Serves what may be served at once.
    fn serve(&self, credential: Credential, held: Hit, now: Instant) -> Observation {
        let Hit { observation, serve } = held;
        if serve == Serve::AndRefresh {
            self.refresh_behind(credential.digest());
        }
        self.metrics.cache_lookup(result_of(&observation));
        self.note(credential, true, now);
        observation
    }

    /// Notes what becomes of a known key while the store is in doubt.
    fn note(&self, credential: Credential, is_served: bool, now: Instant) {
        if self.next.in_doubt() && self.is_known(credential) {
            self.warmth.note(&credential.digest(), is_served, now);
        }
    }

    /// Whether a key is ours, or was. What becomes of others says nothing of how
    /// warm the memory is: anybody can make them up.
    fn is_known(&self, credential: Credential) -> bool {
        match credential {
            Credential::Ours(_) => true,
            Credential::Foreign(digest) => self.memory.knows(&digest),
        }
    }
}

/// Under what a lookup that found something is counted.
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
