//! The two bounded maps of the cache: records, and absences.

use std::sync::Arc;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::CacheConfig;
use crate::{
    key::Digest,
    store::{Absence, Answer, Known},
    tier::{Freshness, Sighting},
    time::{Clock, jittered},
};

/// How far windows are spread, so that entries that were filled together do not
/// end together.
const WINDOW_JITTER: f64 = 0.1;

/// The store's recent answers. Absences have a map of their own, so that a
/// flood of unknown keys cannot push out known ones.
#[derive(Debug)]
pub struct Memory {
    records: Cache<Digest, Entry<Arc<Known>>>,
    absences: Cache<Digest, Entry<Absence>>,
    config: CacheConfig,
    clock: Clock,
}

#[derive(Debug, Clone)]
struct Entry<V> {
    value: V,
    validated_at: Instant,
    fresh_until: Instant,
}

impl<V> Entry<V> {
    fn sighting(self, now: Instant, answer: impl FnOnce(V) -> Answer) -> Option<Sighting> {
        (now < self.fresh_until).then(|| Sighting {
            answer: answer(self.value),
            validated_at: self.validated_at,
            freshness: Freshness::Fresh,
        })
    }
}

impl Memory {
    /// An empty memory.
    #[must_use]
    pub fn new(config: CacheConfig, clock: Clock) -> Self {
        Self {
            records: Cache::new(config.max_entries.get()),
            absences: Cache::new(config.max_absent.get()),
            config,
            clock,
        }
    }

    /// What is known and fresh. Synchronous, and waits for nothing.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<Sighting> {
        let now = self.clock.monotonic();
        let record = self.records.get(digest);
        record.and_then(|entry| entry.sighting(now, Answer::Found)).or_else(|| {
            let absence = self.absences.get(digest)?;
            absence.sighting(now, Answer::Absent)
        })
    }

    /// Keeps an answer of the store and ends what it contradicts.
    pub fn put(&self, digest: Digest, answer: &Answer, validated_at: Instant) {
        match answer {
            Answer::Found(record) => {
                let fresh_until = validated_at + jittered(self.config.fresh_for, WINDOW_JITTER);
                let value = Arc::clone(record);
                self.records.insert(digest, Entry { value, validated_at, fresh_until });
                self.absences.remove(&digest);
            }
            Answer::Absent(absence) => {
                let fresh_until = validated_at + jittered(self.config.absent_for, WINDOW_JITTER);
                self.absences.insert(digest, Entry { value: *absence, validated_at, fresh_until });
                self.records.remove(&digest);
            }
        }
    }

    /// Forgets whatever is known about a digest.
    pub fn forget(&self, digest: &Digest) {
        self.records.remove(digest);
        self.absences.remove(digest);
    }

    /// How many records are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no record is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

#[cfg(test)]
mod tests;
