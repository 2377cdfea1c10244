//! Memory: the answers of the store that are still fresh.

mod config;
mod memory;

use std::sync::Arc;

use tokio::time::Instant;

pub use config::CacheConfig;
pub use memory::Memory;

use crate::{
    key::Digest,
    outage::Unavailable,
    store::Answer,
    telemetry::{CacheResult, Metrics},
    tier::{Sighting, Tier},
};

/// Answers from memory, or asks the next tier, which fills the memory.
#[derive(Debug)]
pub struct Cached<T> {
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
    next: T,
}

impl<T: Tier> Cached<T> {
    /// Puts `memory` before `next`.
    pub const fn new(memory: Arc<Memory>, metrics: Arc<Metrics>, next: T) -> Self {
        Self { memory, metrics, next }
    }
}

impl<T: Tier> Tier for Cached<T> {
    async fn find(&self, digest: Digest, deadline: Instant) -> Result<Sighting, Unavailable> {
        if let Some(sighting) = self.memory.get(&digest) {
            self.metrics.cache_lookup(match sighting.answer {
                Answer::Found(_) => CacheResult::Fresh,
                Answer::Absent(_) => CacheResult::Absent,
            });
            return Ok(sighting);
        }
        self.metrics.cache_lookup(CacheResult::Miss);
        self.next.find(digest, deadline).await
    }
}
