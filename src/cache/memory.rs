//! The two bounded maps of the cache: records, and absences.

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

/// How far the windows of absences are spread, so that those that were filled
/// together do not end together.
const WINDOW_JITTER: f64 = 0.1;

/// How many changes are remembered, about 1 MB: a standby that lags behind by
/// seconds does so by fewer.
const MAX_CHANGES: usize = 10_000;

/// For how many records place is set aside at the start: growing copies what is
/// there while hits wait. It takes about 10 MB, and three times that where the
/// system hands out memory in huge pages, until records come; and more would be in
/// the way of who sets a bound to be far from it.
const SET_ASIDE: usize = 1_000_000;

/// What is remembered of what the store said. Absences have a map of their own,
/// so that a flood of unknown keys cannot push out known ones.
#[derive(Debug)]
pub struct Memory {
    records: Cache<Digest, Entry, BySize>,
    profiles: Profiles,
    absences: Cache<Digest, Missing>,
    /// The last change of a key, and when the feed told of it: those of late.
    changes: Cache<Digest, (Revision, Instant)>,
    /// What outranks older rows.
    tombstones: Tombstones,
    config: CacheConfig,
    ttl: TtlPolicy,
    coverage: Arc<Coverage>,
    suspicion: Arc<Suspicion>,
    /// Makes the windows of this process others than those of its siblings.
    salt: u32,
    clock: Clock,
}

/// Something that is remembered, and what to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// What is remembered.
    pub observation: Observation,
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

impl Weighter<Digest, Entry> for BySize {
    fn weight(&self, _: &Digest, entry: &Entry) -> u64 {
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
        let records = Cache::with_weighter(max_entries, weight, BySize);
        records.reserve(max_entries.min(SET_ASIDE));
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

    /// What is remembered of a key and may be served at `now`. Synchronous, does
    /// no I/O, and waits for nothing.
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

    /// Another number for each key and in each process, without asking for
    /// randomness each time.
    fn drawn(&self, digest: &Digest) -> u32 {
        let [a, b, c, d, ..] = *digest.as_bytes();
        u32::from_le_bytes([a, b, c, d]) ^ self.salt
    }

    /// An absence that is still believed. None is while the store is suspect or lags.
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

    /// An answer as it counts beside what is known: the row of a key that is known to
    /// be revoked is revoked. Fails with [`Unavailable::Suspect`] for a row that is
    /// older than the deletion of its key.
    pub fn judge(&self, digest: &Digest, answer: &Answer) -> Result<Answer, Unavailable> {
        match answer {
            Answer::Found(known) => {
                self.tombstones.judge(digest, known, self.clock.monotonic()).map(Answer::Found)
            }
            Answer::Absent(absence) => Ok(Answer::Absent(*absence)),
        }
    }

    /// Takes in what the store said when it was asked at `asked_at`, and ends
    /// what it contradicts. Returns the answer as it counts, see
    /// [`judge`](Self::judge).
    ///
    /// Fails with [`StoreErrorKind::Lagging`] for an absence while the data of the store
    /// are too old, and with [`Unavailable::Suspect`] when the answer is not believed: an
    /// absence that is doubted, or a record that is older than a change of which
    /// the feed has told, as a standby has it that lags behind. What was remembered
    /// then goes on.
    pub fn take(
        &self,
        digest: Digest,
        answer: &Answer,
        asked_at: Instant,
    ) -> Result<Answer, Unavailable> {
        let answer = self.judge(&digest, answer)?;
        match &answer {
            Answer::Found(known) => {
                // A row that says revoked or disabled is believed, whatever its number.
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

    /// How an answer is served that the store gives now, from data of that age. A
    /// record that is too old to be served at all is none, unless it ends the key.
    #[must_use]
    pub fn served(&self, known: &CompactKey, age: DataAge, asked_at: Instant) -> Option<Freshness> {
        let old = asked_at.saturating_duration_since(age.as_of(asked_at));
        if known.state() == State::Active && old >= self.config.stale_if_error_for {
            return None;
        }
        let lagging = age.is_lagging() || self.coverage.is_lagging();
        Some(if lagging { Freshness::StaleIfError } else { Freshness::Fresh })
    }

    /// Whether a record is older than the one that is held, which was read later: a
    /// standby that is behind has it.
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
        self.changes.get(digest).is_some_and(|(revision, told_at)| {
            // After a gap, the same numbers may be given out again.
            let history = self.coverage.history().is_none_or(|since| since <= told_at);
            known.revision() < revision && history && since.is_some_and(|since| since <= told_at)
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

    /// Whether the store, asked at `asked_at`, is not believed that there is no
    /// such key. A key that was known valid is marked as missing.
    fn doubts(&self, digest: &Digest, asked_at: Instant) -> bool {
        let at = ShortInstant::from(asked_at);
        let held = self.records.peek(digest);
        let Some(entry) = held.filter(|it| self.would_be_missed(digest, it, at)) else {
            self.suspicion.dismiss(digest);
            return !self.suspicion.believes_absence(digest, false);
        };
        if entry.validated_at > at {
            // The store has said otherwise since.
            return true;
        }
        let since = entry.is_missing(at);
        match self.suspicion.missing(*digest, since.into(), asked_at) {
            Verdict::Doubted => true,
            Verdict::Believed => false,
        }
    }

    /// Whether a record stands for a key that the store should have: one that may
    /// be used, and is remembered.
    fn would_be_missed(&self, digest: &Digest, entry: &Entry, now: ShortInstant) -> bool {
        let remembered = self.life(digest, entry, now) != EntryState::Expired;
        remembered && entry.is_usable(self.clock.wall())
    }

    /// Takes in whether the store, asked at `asked_at`, has a key that was asked
    /// for as a witness. Nothing but that is taken from the answer, as it was not
    /// fenced against changes, and that the key is revoked, which is final.
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

    /// Takes in a numbered change. True when a record was dropped because of it.
    ///
    /// A record that is as new as the change stays: it was read after it. But
    /// not across a gap of the feed, as a store that was restored may give out
    /// the same numbers again.
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

    /// Whether an answer to what was asked at `asked_at` is as new as a change. An
    /// absence does not tell.
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

    /// Whether a record of this key is held, in whatever part of its life.
    #[must_use]
    pub fn knows(&self, digest: &Digest) -> bool {
        self.records.contains_key(digest)
    }

    /// The digests of all records, in no order.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.records.iter().map(|(digest, _)| digest)
    }

    /// How many rows of the store were outranked by what was known already.
    #[must_use]
    pub fn rows_outranked(&self) -> u64 {
        self.tombstones.outranked()
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
