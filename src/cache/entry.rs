//! A record in memory: what the store said and when, and what has come up since.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    key::State,
    store::{Answer, Known},
    tier::{Freshness, Sighting},
    time::AtomicInstant,
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

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) known: Arc<Known>,
    pub(super) validated_at: Instant,
    pub(super) spread: f32,
    /// Since when the store says that there is no such row, which is not
    /// believed yet.
    pub(super) missing_since: AtomicInstant,
    /// When the store last said so.
    missed_at: AtomicInstant,
    /// When a hit last asked for a refresh.
    asked_at: AtomicInstant,
}

impl Entry {
    pub(super) fn new(known: Arc<Known>, validated_at: Instant, spread: f32) -> Self {
        let (missing_since, missed_at, asked_at) = Default::default();
        Self { known, validated_at, spread, missing_since, missed_at, asked_at }
    }

    pub(super) fn sighting(&self, freshness: Freshness) -> Sighting {
        let answer = Answer::Found(Arc::clone(&self.known));
        Sighting { answer, validated_at: self.validated_at, freshness }
    }

    /// The store, asked at `asked_at`, says that there is no such row. Returns
    /// since when it says so. What it said long ago, and nobody has asked about
    /// since, does not count any more.
    pub(super) fn is_missing(&self, asked_at: Instant) -> Instant {
        let last = self.missed_at.get();
        let old = |last: Instant| asked_at.saturating_duration_since(last) >= MISSING_COUNTS_FOR;
        if last.is_some_and(old) {
            self.missing_since.set(None);
        }
        self.missed_at.set(Some(asked_at));
        self.missing_since.get_or_set(asked_at)
    }

    /// The store has it.
    pub(super) fn is_there(&self) {
        self.missing_since.set(None);
        self.missed_at.set(None);
    }

    /// Whether a hit at `now` should ask for a refresh. True once in
    /// [`REFRESH_EVERY`].
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.asked_at.claim(now, REFRESH_EVERY)
    }

    /// Whether it stands for a key that may be used, so that its row would be
    /// missed.
    pub(super) fn is_usable(&self, now: Timestamp) -> bool {
        let expired = self.known.rights.expires_at.is_some_and(|end| end <= now);
        self.known.state == State::Active && !expired
    }

    /// How many places it takes in the cache.
    pub(super) fn weight(&self) -> u64 {
        let rights = &self.known.rights;
        // A text is held by a pointer and two lengths, wherever it is.
        let size = |text: &String| size_of::<String>() + text.len();
        let texts = [&rights.principal, &rights.name].into_iter();
        let texts = texts.chain(&rights.scopes).chain(&rights.audiences).map(size);
        let pairs = rights.metadata.iter().map(|(name, value)| size(name) + size(value));
        let networks = rights.allowed_networks.len() * size_of::<ipnet::IpNet>();
        let bytes = texts.chain(pairs).sum::<usize>() + networks;
        1 + u64::try_from(bytes / BYTES_PER_ENTRY).unwrap_or(u64::MAX)
    }
}
