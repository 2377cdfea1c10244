//! A cached record: the row, when it was validated, and marks set since.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    key::{CompactKey, State},
    store::Answer,
    tier::{Freshness, Observation},
    time::{ShortInstant, nanos},
};

/// Minimum interval between refreshes that hits of one entry trigger: the default
/// time-out of a query.
const REFRESH_EVERY: Duration = Duration::from_millis(100);

/// How long the report of a missing row counts without another query for it: the
/// store may have been replaced since.
const MISSING_COUNTS_FOR: Duration = Duration::from_mins(5);

/// Number of bytes of a record that count as one more entry against the bound of the
/// cache, so that a few huge records cannot take the memory of many.
const BYTES_PER_ENTRY: usize = 1024;

/// A cache value, as small as possible, as every slot has room for one. The record
/// itself holds the marks set since its validation; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) known: CompactKey,
    pub(super) validated_at: ShortInstant,
}

impl Entry {
    /// Creates an entry and clears the marks of its record.
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

    /// Whether the store reports the row missing, which is not believed yet.
    pub(super) fn lacks_its_row(&self) -> bool {
        self.known.marks().missing_since.is_set()
    }

    /// Since when the store reports the row missing, to a hundredth of a second.
    pub(super) fn missing_since(&self, now: ShortInstant) -> Option<ShortInstant> {
        self.known.marks().missing_since.get(now)
    }

    /// Marks the row as missing in a query made at `asked_at`. Returns since when it
    /// is missing. A previous report older than [`MISSING_COUNTS_FOR`] does not count.
    pub(super) fn is_missing(&self, asked_at: ShortInstant) -> ShortInstant {
        let marks = self.known.marks();
        let last = marks.missed_at.get(asked_at);
        if last.is_some_and(|last| last.later_by(nanos(MISSING_COUNTS_FOR)) <= asked_at) {
            marks.missing_since.set(None);
        }
        marks.missed_at.set(Some(asked_at));
        marks.missing_since.get_or_set(asked_at)
    }

    /// Marks the row as present in the store.
    pub(super) fn is_there(&self) {
        self.known.marks().missing_since.set(None);
        self.known.marks().missed_at.set(None);
    }

    /// Whether a hit at `now` should trigger a refresh. True once per
    /// [`REFRESH_EVERY`].
    pub(super) fn is_due(&self, now: ShortInstant) -> bool {
        self.known.marks().asked_at.claim(now, REFRESH_EVERY)
    }

    /// Whether the key is active and not expired, so that the store should have its
    /// row.
    pub(super) fn is_usable(&self, now: Timestamp) -> bool {
        let expired = self.known.expires_at().is_some_and(|end| end <= now);
        self.known.state() == State::Active && !expired
    }

    /// Weight against the bound of the cache. Constant while the entry is cached,
    /// whether or not other entries share its profile.
    pub(super) fn weight(&self) -> u64 {
        1 + u64::try_from(self.known.bytes() / BYTES_PER_ENTRY).unwrap_or(u64::MAX)
    }
}
