//! The two bounded maps of the cache: records, and absences.

mod peek;

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache};
use tokio::time::Instant;

pub use peek::{Peek, Peeked};

use super::{
    CacheConfig, Coverage,
    entry::Entry,
    policy::{Life, Validity},
};
use crate::{
    key::{Digest, KeyRecord, Revision},
    outage::Unavailable,
    store::{Absence, Answer, Change, ChangeKind, Known},
    suspect::{Suspicion, Verdict},
    tier::{Freshness, Sighting},
    time::{Clock, jittered, spread},
};

/// How far windows are spread, so that entries that were filled together do not
/// end together.
const WINDOW_JITTER: f64 = 0.1;

/// How many changes are remembered, about 1 MB: a standby that lags behind by
/// seconds does so by fewer.
const MAX_CHANGES: usize = 10_000;

/// What is remembered of what the store said. Absences have a map of their own,
/// so that a flood of unknown keys cannot push out known ones.
#[derive(Debug)]
pub struct Memory {
    records: Cache<Digest, Arc<Entry>, BySize>,
    absences: Cache<Digest, Missing>,
    /// The last change of a key, and when the feed told of it: those of late.
    changes: Cache<Digest, (Revision, Instant)>,
    config: CacheConfig,
    coverage: Arc<Coverage>,
    suspicion: Arc<Suspicion>,
    /// Makes the windows of this process others than those of its siblings.
    salt: u32,
    clock: Clock,
}

/// Something that is remembered, and what to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What is remembered.
    pub sighting: Sighting,
    /// How it may be served.
    pub serve: Serve,
}

/// How something that is remembered may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serve {
    /// At once.
    AtOnce,
    /// At once, and the store is to be asked behind it.
    AndRefresh,
    /// When the store, asked first, gives no answer.
    IfError,
}

#[derive(Debug, Clone)]
struct Missing {
    absence: Absence,
    validated_at: Instant,
    until: Instant,
}

#[derive(Debug, Clone)]
struct BySize;

impl Weighter<Digest, Arc<Entry>> for BySize {
    fn weight(&self, _: &Digest, entry: &Arc<Entry>) -> u64 {
        entry.weight()
    }
}

impl Memory {
    /// An empty memory, whose records are as good as `coverage` says, and which
    /// takes no absence in that `suspicion` doubts.
    #[must_use]
    pub fn new(
        config: CacheConfig,
        coverage: Arc<Coverage>,
        suspicion: Arc<Suspicion>,
        clock: Clock,
    ) -> Self {
        let max_entries = config.max_entries.get();
        let weight = u64::try_from(max_entries).unwrap_or(u64::MAX);
        Self {
            records: Cache::with_weighter(max_entries, weight, BySize),
            absences: Cache::new(config.max_absent.get()),
            changes: Cache::new(MAX_CHANGES),
            config,
            coverage,
            suspicion,
            salt: getrandom::u32().unwrap_or_default(),
            clock,
        }
    }

    /// What is remembered of a key and may be served at `now`. Synchronous, does
    /// no I/O, and waits for nothing.
    #[must_use]
    pub fn look(&self, digest: &Digest, now: Instant) -> Option<Held> {
        match self.records.get(digest) {
            Some(entry) => self.held(&entry, now),
            None => self.absent(digest, now),
        }
    }

    fn held(&self, entry: &Entry, now: Instant) -> Option<Held> {
        let missing = entry.missing_since.get().is_some();
        let (freshness, serve) = self.config.life(&self.validity(entry), now).served(missing)?;
        let serve = match serve {
            Serve::AndRefresh if !entry.is_due(now) => Serve::AtOnce,
            serve => serve,
        };
        Some(Held { sighting: entry.sighting(freshness), serve })
    }

    fn validity(&self, entry: &Entry) -> Validity {
        Validity {
            validated_at: entry.validated_at,
            spread: entry.spread,
            good_until: self.coverage.good_until(entry.validated_at),
            replayed: self.coverage.is_replayed(entry.validated_at),
        }
    }

    /// An absence that is still believed. None is while the store is suspect.
    fn absent(&self, digest: &Digest, now: Instant) -> Option<Held> {
        let missing = self.absences.get(digest)?;
        let Missing { absence, validated_at, .. } = missing;
        let (answer, freshness) = (Answer::Absent(absence), Freshness::Fresh);
        let sighting = Sighting { answer, validated_at, freshness };
        self.believes(&missing, now).then_some(Held { sighting, serve: Serve::AtOnce })
    }

    fn believes(&self, missing: &Missing, now: Instant) -> bool {
        now < missing.until && !self.suspicion.is_suspect()
    }

    /// Takes in what the store said when it was asked at `asked_at`, and ends
    /// what it contradicts.
    ///
    /// Fails with [`Unavailable::Suspect`] when the answer is not believed: an
    /// absence that is doubted, or a record that is older than a change of which
    /// the feed has told, as a standby has it that lags behind. What was remembered
    /// then goes on.
    pub fn take(
        &self,
        digest: Digest,
        answer: &Answer,
        asked_at: Instant,
    ) -> Result<(), Unavailable> {
        match answer {
            Answer::Found(known) => {
                if self.is_older_than_a_change(&digest, known) {
                    return Err(Unavailable::Suspect);
                }
                self.keep(digest, Arc::clone(known), asked_at);
                Ok(())
            }
            Answer::Absent(absence) => {
                if self.doubts(&digest, asked_at) {
                    return Err(Unavailable::Suspect);
                }
                let until = asked_at + jittered(self.config.absent_for, WINDOW_JITTER);
                let missing = Missing { absence: *absence, validated_at: asked_at, until };
                self.absences.insert(digest, missing);
                self.records.remove(&digest);
                Ok(())
            }
        }
    }

    fn is_older_than_a_change(&self, digest: &Digest, known: &Known) -> bool {
        let since = self.coverage.since();
        self.changes.get(digest).is_some_and(|(revision, told_at)| {
            // After a gap, the same numbers may be given out again.
            known.revision < revision && since.is_some_and(|since| since <= told_at)
        })
    }

    fn keep(&self, digest: Digest, known: Arc<Known>, validated_at: Instant) {
        let entry = Entry::new(known, validated_at, self.spread_of(&digest));
        let usable = entry.is_usable(self.clock.wall());
        self.suspicion.found(digest, self.records.contains_key(&digest), usable);
        self.records.insert(digest, Arc::new(entry));
        self.absences.remove(&digest);
    }

    /// Another factor for each key and in each process, without asking for
    /// randomness each time.
    fn spread_of(&self, digest: &Digest) -> f32 {
        let [a, b, c, d, ..] = *digest.as_bytes();
        spread(u32::from_le_bytes([a, b, c, d]) ^ self.salt, WINDOW_JITTER)
    }

    /// Whether the store, asked at `asked_at`, is not believed that there is no
    /// such key. A key that was known valid is marked as missing.
    fn doubts(&self, digest: &Digest, asked_at: Instant) -> bool {
        let Some(entry) = self.records.peek(digest).filter(|it| self.would_be_missed(it, asked_at))
        else {
            self.suspicion.dismiss(digest);
            return self.suspicion.is_suspect();
        };
        if entry.validated_at > asked_at {
            // The store has said otherwise since.
            return true;
        }
        let since = entry.is_missing(asked_at);
        match self.suspicion.missing(*digest, since, asked_at) {
            Verdict::Doubted => true,
            Verdict::Believed => false,
        }
    }

    /// Whether a record stands for a key that the store should have: one that may
    /// be used, and is remembered.
    fn would_be_missed(&self, entry: &Entry, now: Instant) -> bool {
        let remembered = self.config.life(&self.validity(entry), now) != Life::Expired;
        remembered && entry.is_usable(self.clock.wall())
    }

    /// Takes in whether the store, asked at `asked_at`, has a key that was asked
    /// for as a witness. Nothing but that is taken from the answer: it was not
    /// fenced against changes.
    pub fn take_witness(&self, digest: &Digest, answer: &Answer, asked_at: Instant) {
        match answer {
            Answer::Found(_) => {
                let held = self.records.peek(digest);
                self.suspicion.found(*digest, held.is_some(), true);
                if let Some(entry) = held {
                    entry.is_there();
                }
            }
            Answer::Absent(_) => {
                self.doubts(digest, asked_at);
            }
        }
    }

    /// Takes in a numbered change. True when a record was dropped because of it.
    ///
    /// A record that is as new as the change stays: it was read after it. But
    /// not across a gap of the feed, as a store that was restored may give out
    /// the same numbers again.
    #[must_use]
    pub fn change(&self, change: &Change) -> bool {
        let digest = &change.digest;
        self.suspicion.excuse(digest);
        self.changes.insert(*digest, (change.revision, self.clock.monotonic()));
        if change.kind != ChangeKind::Deleted {
            self.absences.remove(digest);
        }
        let outdated = |entry: &Arc<Entry>| {
            !self.record_includes(&entry.known, entry.validated_at, change.revision)
        };
        self.records.remove_if(digest, outdated).is_some()
    }

    /// Whether an answer to what was asked at `asked_at` is as new as a change. An
    /// absence does not tell.
    #[must_use]
    pub fn includes(&self, answer: &Answer, asked_at: Instant, change: Revision) -> bool {
        match answer {
            Answer::Found(known) => self.record_includes(known, asked_at, change),
            Answer::Absent(_) => false,
        }
    }

    fn record_includes(&self, known: &Known, read_at: Instant, change: Revision) -> bool {
        let same_history = self.coverage.since().is_some_and(|since| since <= read_at);
        same_history && known.revision >= change
    }

    /// Whether a record of this key is held, in whatever part of its life.
    #[must_use]
    pub fn knows(&self, digest: &Digest) -> bool {
        self.records.contains_key(digest)
    }

    /// The digests of all records, in no order.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.records.iter().map(|(digest, _)| digest)
    }

    /// All records with the times when the store vouched for them, in no order.
    pub fn export(&self) -> impl Iterator<Item = (Digest, Arc<Known>, Instant)> {
        let parts = |(digest, entry): (Digest, Arc<Entry>)| {
            (digest, Arc::clone(&entry.known), entry.validated_at)
        };
        self.records.iter().map(parts)
    }

    /// Puts in a record that the store vouched for at `validated_at`, which may
    /// lie before the start of this process.
    pub fn restore(&self, digest: Digest, record: KeyRecord, validated_at: Instant) {
        self.keep(digest, Arc::new(Known::new(record)), validated_at);
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
