//! The two bounded maps of the cache: records and absences (negative cache).

mod ends;
mod export;
mod inspect;

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache};
use tokio::time::Instant;

pub use export::Exported;
pub use inspect::{Inspection, Remembered};

use super::{
    CacheConfig, Coverage,
    entry::Entry,
    policy::{EntryState, TtlPolicy, Validity},
    profiles::Profiles,
    tombstones::{Tombstone, Tombstones},
};
use crate::{
    key::{CompactKey, Digest, Revision, State},
    outage::Unavailable,
    store::{Absence, Answer, Change, ChangeKind, DataAge, StoreErrorKind},
    suspect::{Suspicion, Verdict},
    tier::{Freshness, Observation},
    time::{Clock, ShortInstant, jittered},
};

/// Relative jitter of the windows of absences, so that those filled together do not
/// end together.
const WINDOW_JITTER: f64 = 0.1;

/// Number of recent changes kept, about 1 MB: more than a standby misses that lags by
/// seconds.
const MAX_CHANGES: usize = 10_000;

/// Maximum number of records that memory is reserved for at the start: growing copies
/// the map while hits wait. Takes about 10 MB before records arrive, three times that
/// with huge pages. A larger reserve would waste memory where `max_entries` is set far
/// above the need.
const RESERVED: usize = 1_000_000;

/// The cached answers of the store. Absences have a separate map, so that a flood of
/// unknown keys cannot evict known ones.
#[derive(Debug)]
pub struct Memory {
    records: Cache<Digest, Entry, BySize>,
    profiles: Profiles,
    absences: Cache<Digest, Missing>,
    /// The last change of each recently changed key, and when the feed applied it.
    changes: Cache<Digest, (Revision, Instant)>,
    /// Revoked and deleted keys, which outrank older rows.
    tombstones: Tombstones,
    config: CacheConfig,
    ttl: TtlPolicy,
    coverage: Arc<Coverage>,
    suspicion: Arc<Suspicion>,
    /// Varies the jitter of windows between instances.
    salt: u32,
    clock: Clock,
}

/// A cached answer and how it may be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The cached answer.
    pub observation: Observation,
    /// How it may be served.
    pub serve: Serve,
}

/// How a cached answer may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serve {
    /// At once.
    AtOnce,
    /// At once, with a refresh in the background.
    AndRefresh,
    /// Only if a query of the store gives no answer (stale-if-error).
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

impl Weighter<Digest, Entry> for BySize {
    fn weight(&self, _: &Digest, entry: &Entry) -> u64 {
        entry.weight()
    }
}

impl Memory {
    /// Creates an empty cache. `coverage` decides how long records are fresh;
    /// absences that `suspicion` doubts are not cached.
    #[must_use]
    pub fn new(
        config: CacheConfig,
        coverage: Arc<Coverage>,
        suspicion: Arc<Suspicion>,
        clock: Clock,
    ) -> Self {
        let max_entries = config.max_entries.get();
        let weight = u64::try_from(max_entries).unwrap_or(u64::MAX);
        let records = Cache::with_weighter(max_entries, weight, BySize);
        records.reserve(max_entries.min(RESERVED));
        Self {
            records,
            profiles: Profiles::new(),
            absences: Cache::new(config.max_absent.get()),
            changes: Cache::new(MAX_CHANGES),
            tombstones: Tombstones::default(),
            ttl: TtlPolicy::of(&config),
            config,
            coverage,
            suspicion,
            salt: getrandom::u32().unwrap_or_default(),
            clock,
        }
    }

    /// Looks up what may be served for a key at `now`. Synchronous, without I/O, and
    /// never waits.
    #[must_use]
    pub fn look(&self, digest: &Digest, now: Instant) -> Option<Hit> {
        match self.records.get(digest) {
            Some(entry) => self.held(digest, entry, now.into()),
            None => self.absent(digest, now),
        }
    }

    fn held(&self, digest: &Digest, entry: Entry, now: ShortInstant) -> Option<Hit> {
        let life = self.life(digest, &entry, now);
        let (freshness, serve) = life.served(entry.lacks_its_row(), self.coverage.is_lagging())?;
        let serve = match serve {
            Serve::AndRefresh if !entry.is_due(now) => Serve::AtOnce,
            serve => serve,
        };
        Some(Hit { observation: entry.into_observation(freshness), serve })
    }

    fn life(&self, digest: &Digest, entry: &Entry, now: ShortInstant) -> EntryState {
        let good_until = || self.coverage.good_until(entry.validated_at);
        self.ttl.life(&self.validity(digest, entry), good_until, now)
    }

    fn validity(&self, digest: &Digest, entry: &Entry) -> Validity {
        Validity {
            validated_at: entry.validated_at,
            drawn: self.drawn(digest),
            replayed: self.coverage.is_replayed(entry.validated_at),
        }
    }

    /// Jitter that differs for each key and each process, without a random number per
    /// call.
    fn drawn(&self, digest: &Digest) -> u32 {
        let [a, b, c, d, ..] = *digest.as_bytes();
        u32::from_le_bytes([a, b, c, d]) ^ self.salt
    }

    /// A cached absence that is believed; none is while the store is suspect or lags.
    fn absent(&self, digest: &Digest, now: Instant) -> Option<Hit> {
        let missing = self.absences.get(digest)?;
        let Missing { absence, validated_at, .. } = missing;
        let (answer, freshness) = (Answer::Absent(absence), Freshness::Fresh);
        let observation = Observation { answer, validated_at, freshness };
        self.believes(digest, &missing, now).then_some(Hit { observation, serve: Serve::AtOnce })
    }

    fn believes(&self, digest: &Digest, missing: &Missing, now: Instant) -> bool {
        let is_evidence = self.suspicion.believes_absence(digest, false);
        now < missing.until && is_evidence && !self.coverage.is_lagging()
    }

    /// Applies tombstones to an answer: the row of a revoked key becomes revoked. Fails
    /// with [`Unavailable::Suspect`] for an active row no newer than the deletion of its
    /// key.
    pub fn judge(&self, digest: &Digest, answer: &Answer) -> Result<Answer, Unavailable> {
        match answer {
            Answer::Found(known) => {
                self.tombstones.judge(digest, known, self.clock.monotonic()).map(Answer::Found)
            }
            Answer::Absent(absence) => Ok(Answer::Absent(*absence)),
        }
    }

    /// Caches the answer to a query made at `asked_at` and removes what it
    /// contradicts. Returns the answer with tombstones applied, see
    /// [`judge`](Self::judge).
    ///
    /// Fails with [`StoreErrorKind::Lagging`] for an absence while the data of the store
    /// are too old, and with [`Unavailable::Suspect`] if the answer is not believed: a
    /// doubted absence, or an active record older than the cached one or an applied
    /// change, as from a lagging standby. The cache is then left unchanged.
    pub fn take(
        &self,
        digest: Digest,
        answer: &Answer,
        asked_at: Instant,
    ) -> Result<Answer, Unavailable> {
        let answer = self.judge(&digest, answer)?;
        match &answer {
            Answer::Found(known) => {
                // Revoked and disabled rows are believed, whatever their revision.
                if known.state() == State::Active
                    && (self.is_older_than_a_change(&digest, known)
                        || self.is_older_than_held(&digest, known, asked_at))
                {
                    return Err(Unavailable::Suspect);
                }
                self.keep(digest, known.clone(), asked_at.into());
            }
            Answer::Absent(_) if self.coverage.is_lagging() => {
                return Err(Unavailable::Store(StoreErrorKind::Lagging));
            }
            Answer::Absent(absence) => {
                if self.doubts(&digest, asked_at) {
                    return Err(Unavailable::Suspect);
                }
                let until = asked_at + jittered(self.config.absent_for, WINDOW_JITTER);
                let missing = Missing { absence: *absence, validated_at: asked_at, until };
                self.absences.insert(digest, missing);
                self.records.remove(&digest);
            }
        }
        Ok(answer)
    }

    /// The freshness of a record that the store returned from data of that age. `None`
    /// for an active record that is too old to be served.
    #[must_use]
    pub fn served(&self, known: &CompactKey, age: DataAge, asked_at: Instant) -> Option<Freshness> {
        let old = asked_at.saturating_duration_since(age.as_of(asked_at));
        if known.state() == State::Active && old >= self.config.stale_if_error_for {
            return None;
        }
        let lagging = age.is_lagging() || self.coverage.is_lagging();
        Some(if lagging { Freshness::StaleIfError } else { Freshness::Fresh })
    }

    /// Whether the cached record has a greater revision and was validated later, as
    /// when a lagging standby answers.
    fn is_older_than_held(
        &self,
        digest: &Digest,
        known: &CompactKey,
        validated_at: Instant,
    ) -> bool {
        self.records.peek(digest).is_some_and(|held| {
            held.known.revision() > known.revision()
                && Instant::from(held.validated_at) > validated_at
        })
    }

    fn is_older_than_a_change(&self, digest: &Digest, known: &CompactKey) -> bool {
        let since = self.coverage.since();
        self.changes.get(digest).is_some_and(|(revision, applied_at)| {
            // After a gap, the store may reuse revisions.
            let history = self.coverage.history().is_none_or(|since| since <= applied_at);
            known.revision() < revision && history && since.is_some_and(|since| since <= applied_at)
        })
    }

    fn keep(&self, digest: Digest, known: CompactKey, validated_at: ShortInstant) {
        match known.state() {
            State::Revoked => self.tombstones.put(digest, Tombstone::Revoked),
            State::Active | State::Disabled => {
                self.tombstones.clear_before(&digest, known.revision());
            }
        }
        let entry = Entry::new(self.profiles.sharing(known), validated_at);
        let usable = entry.is_usable(self.clock.wall());
        let known = self.records.contains_key(&digest);
        self.suspicion.found(digest, known, usable, validated_at.into());
        self.records.insert(digest, entry);
        self.absences.remove(&digest);
    }

    /// Whether an absence from a query made at `asked_at` is doubted. Marks a usable
    /// cached key as missing.
    fn doubts(&self, digest: &Digest, asked_at: Instant) -> bool {
        let at = ShortInstant::from(asked_at);
        let held = self.records.peek(digest);
        let Some(entry) = held.filter(|it| self.would_be_missed(digest, it, at)) else {
            self.suspicion.dismiss(digest);
            return !self.suspicion.believes_absence(digest, false);
        };
        if entry.validated_at > at {
            // A later query found the key.
            return true;
        }
        let since = entry.is_missing(at);
        match self.suspicion.missing(*digest, since.into(), asked_at) {
            Verdict::Doubted => true,
            Verdict::Believed => false,
        }
    }

    /// Whether the store should have the key of a record: it is usable, and the record
    /// has not expired.
    fn would_be_missed(&self, digest: &Digest, entry: &Entry, now: ShortInstant) -> bool {
        let is_live = self.life(digest, entry, now) != EntryState::Expired;
        is_live && entry.is_usable(self.clock.wall())
    }

    /// Records whether the store has a witness key in a query made at `asked_at`. Also
    /// applies a revocation, which is final, but caches nothing else: the answer was
    /// not fenced against changes.
    pub fn take_witness(&self, digest: &Digest, answer: &Answer, asked_at: Instant) {
        match answer {
            Answer::Found(known) => {
                self.take_revocation(digest, answer);
                let held = self.records.peek(digest);
                let usable = known.state() != State::Revoked;
                self.suspicion.found(*digest, held.is_some(), usable, asked_at);
                if let Some(entry) = held {
                    entry.is_there();
                }
            }
            Answer::Absent(_) => {
                self.doubts(digest, asked_at);
            }
        }
    }

    /// Applies a numbered change. Returns whether it dropped a record.
    ///
    /// A record as new as the change stays, as it was read after the change. This does
    /// not hold across a gap of the feed: a restored store may reuse revisions.
    #[must_use]
    pub fn change(&self, change: &Change) -> bool {
        let digest = &change.digest;
        self.suspicion.excuse(digest, change.kind);
        self.changes.insert(*digest, (change.revision, self.clock.monotonic()));
        self.tombstones.change(change);
        if change.kind != ChangeKind::Deleted {
            self.absences.remove(digest);
        }
        let outdated = |entry: &Entry| {
            let is_usable = entry.known.state() != State::Revoked;
            change.kind == ChangeKind::Revoked && is_usable
                || !self.record_includes(&entry.known, entry.validated_at.into(), change.revision)
        };
        self.records.remove_if(digest, outdated).is_some()
    }

    /// Whether the answer to a query made at `asked_at` is as new as a change. False for
    /// an absence, which has no revision.
    #[must_use]
    pub fn includes(&self, answer: &Answer, asked_at: Instant, change: Revision) -> bool {
        match answer {
            Answer::Found(known) => self.record_includes(known, asked_at, change),
            Answer::Absent(_) => false,
        }
    }

    fn record_includes(&self, known: &CompactKey, read_at: Instant, change: Revision) -> bool {
        let same_history = self.coverage.since().is_some_and(|since| since <= read_at);
        let same_server = self.coverage.history().is_none_or(|since| since <= read_at);
        same_history && same_server && known.revision() >= change
    }

    /// Whether a record of this key is cached, in whatever state.
    #[must_use]
    pub fn knows(&self, digest: &Digest) -> bool {
        self.records.contains_key(digest)
    }

    /// The digests of all records, in no order.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.records.iter().map(|(digest, _)| digest)
    }

    /// Number of rows of the store that tombstones outranked.
    #[must_use]
    pub fn rows_outranked(&self) -> u64 {
        self.tombstones.outranked()
    }

    /// Number of cached records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no record is cached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

#[cfg(test)]
mod tests;
