//! A record in memory: what the store said and when, and what has come up since.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    key::{CompactKey, State},
    store::Answer,
    tier::{Freshness, Observation},
    time::{ShortInstant, nanos},
};

/// How often the hits of one entry ask for it to be refreshed at most: as long
/// as a query to the store may take by default.
const REFRESH_EVERY: Duration = Duration::from_millis(100);

/// For how long it counts that a row was missing when the store has not been
/// asked about it since: the store may have been another one then.
const MISSING_COUNTS_FOR: Duration = Duration::from_mins(5);

/// How many bytes of a record count as one entry against the bound of the
/// cache, so that a few huge records cannot take the memory of many.
const BYTES_PER_ENTRY: usize = 1024;

/// The value of the cache, in as few bytes as can be: every slot has room for one.
/// What has come up since it was validated is marked in the record itself, which
/// clones share.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) known: CompactKey,
    pub(super) validated_at: ShortInstant,
}

impl Entry {
    /// Nothing has come up yet of what the store said.
    pub(super) fn new(known: CompactKey, validated_at: ShortInstant) -> Self {
        let marks = known.marks();
        for mark in [&marks.missing_since, &marks.missed_at, &marks.asked_at] {
            mark.set(None);
        }
        Self { known, validated_at }
    }

    pub(super) fn into_observation(self, freshness: Freshness) -> Observation {
        let Self { known, validated_at } = self;
        Observation { answer: Answer::Found(known), validated_at: validated_at.into(), freshness }
    }

    /// Whether the store says that there is no such row, which is not believed yet.
    pub(super) fn lacks_its_row(&self) -> bool {
        self.known.marks().missing_since.is_set()
    }

    /// Since when it says so, to a hundredth of a second.
    pub(super) fn missing_since(&self, now: ShortInstant) -> Option<ShortInstant> {
        self.known.marks().missing_since.get(now)
    }

    /// The store, asked at `asked_at`, says that there is no such row. Returns
    /// since when it says so. What it said long ago, and nobody has asked about
    /// since, does not count any more.
    pub(super) fn is_missing(&self, asked_at: ShortInstant) -> ShortInstant {
        let marks = self.known.marks();
        let last = marks.missed_at.get(asked_at);
        if last.is_some_and(|last| last.later_by(nanos(MISSING_COUNTS_FOR)) <= asked_at) {
            marks.missing_since.set(None);
        }
        marks.missed_at.set(Some(asked_at));
        marks.missing_since.get_or_set(asked_at)
    }

    /// The store has it.
    pub(super) fn is_there(&self) {
        self.known.marks().missing_since.set(None);
        self.known.marks().missed_at.set(None);
    }

    /// Whether a hit at `now` should ask for a refresh. True once in
    /// [`REFRESH_EVERY`].
    pub(super) fn is_due(&self, now: ShortInstant) -> bool {
        self.known.marks().asked_at.claim(now, REFRESH_EVERY)
    }

    /// Whether it stands for a key that may be used, so that its row would be
    /// missed.
    pub(super) fn is_usable(&self, now: Timestamp) -> bool {
        let expired = self.known.expires_at().is_some_and(|end| end <= now);
        self.known.state() == State::Active && !expired
    }

    /// How many places it takes in the cache. Does not change as long as it is
    /// there, whoever else shares what it holds.
    pub(super) fn weight(&self) -> u64 {
        1 + u64::try_from(self.known.bytes() / BYTES_PER_ENTRY).unwrap_or(u64::MAX)
    }
}
