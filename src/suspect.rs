//! Decides whether an absence in the store is evidence that a key does not exist.
//!
//! An absence is no evidence by itself: a database that was emptied, restored from
//! an old backup or mistaken for another, or one that hides rows from its role,
//! answers like one in which the key never was. Three tests guard against that:
//!
//! - Known keys. A missing one is looked up again until `suspect.confirm_for` has passed and the
//!   store has returned other keys. When several are missing, and not far more are found, the store
//!   is suspect.
//! - The history of the store: the keys that its own change table says it should have.
//! - A key that was minted with our secret existed in a store once. An empty store is no evidence
//!   against it.
//!
//! A numbered change that records the deletion of a key is evidence regardless.

mod config;
mod state;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use quick_cache::sync::Cache;
use tokio::time::Instant;

pub use config::SuspectConfig;

use crate::{
    key::Digest,
    store::{ChangeKind, History},
};
use state::{Change, MAX_WITNESSES, State};

/// How many deletions are remembered, about 1 MB. Those in the changes that are read at start-up
/// are at most a tenth of it.
const MAX_DELETED: usize = 10_000;

/// Interval between queries for the history of the store.
const HISTORY_EVERY: Duration = Duration::from_secs(5);

/// Verdict on a known key that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The absence is not trusted: the cached key stays valid.
    Doubted,
    /// The key has been missing for long enough: it does not exist.
    Believed,
}

/// Suspicion against a store. Shared by every component that handles its answers.
#[derive(Debug)]
pub struct Suspicion {
    config: SuspectConfig,
    state: Mutex<State>,
    record: Mutex<Record>,
    /// Known keys are missing.
    lacks_known: AtomicBool,
    /// The history contradicts the store.
    lacks_history: AtomicBool,
    /// A key with our tag was looked up, and the store holds no key at all.
    lacks_ours: AtomicBool,
    /// The history has not been read yet; until then no absence is trusted.
    awaits_history: AtomicBool,
    /// As far as known, the store holds no key at all.
    is_empty: AtomicBool,
    /// Keys whose last numbered change is a deletion.
    deleted: Cache<Digest, ()>,
    /// How many keys were introduced, until there are enough.
    introduced: AtomicUsize,
}

/// Latest state of the history.
#[derive(Debug, Default)]
struct Record {
    /// When the store was last queried for it.
    asked_at: Option<Instant>,
    /// Whether the store had keys that the history lists.
    vouches: bool,
    /// Whether the store held no key at all.
    empty: bool,
}

impl Suspicion {
    /// Starts without suspicion, against a store with no known past.
    #[must_use]
    pub fn new(config: SuspectConfig) -> Self {
        Self {
            config,
            state: Mutex::new(State::new(config.keys.get(), config.window)),
            record: Mutex::default(),
            lacks_known: AtomicBool::default(),
            lacks_history: AtomicBool::default(),
            lacks_ours: AtomicBool::default(),
            awaits_history: AtomicBool::default(),
            is_empty: AtomicBool::default(),
            deleted: Cache::new(MAX_DELETED),
            introduced: AtomicUsize::default(),
        }
    }

    /// Trusts no absence until [`Suspicion::hear`] was called, and no absence of a key
    /// with our tag until the store has shown that it has any key.
    #[must_use]
    pub fn awaiting_history(self) -> Self {
        self.awaits_history.store(self.config.enabled, Ordering::Release);
        self.is_empty.store(self.config.enabled, Ordering::Release);
        self
    }

    /// Whether keys are missing that the store should have. Three atomic reads.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        [&self.lacks_known, &self.lacks_history, &self.lacks_ours]
            .into_iter()
            .any(|lacks| lacks.load(Ordering::Acquire))
    }

    /// Whether the history is not known yet, so that no absence is trusted.
    #[must_use]
    pub fn awaits_history(&self) -> bool {
        self.awaits_history.load(Ordering::Acquire)
    }

    /// Whether the absence of a key that is not cached is evidence. `ours` says
    /// whether its tag was made with one of our secrets.
    #[must_use]
    pub fn believes_absence(&self, digest: &Digest, ours: bool) -> bool {
        let doubted = self.is_suspect()
            || self.awaits_history()
            || (ours && self.is_empty.load(Ordering::Acquire));
        !doubted || self.was_deleted(digest)
    }

    /// Records that the store lacks an unknown key whose tag one of our secrets made. Returns
    /// whether that is evidence, see [`believes_absence`](Self::believes_absence). A store that
    /// holds no key at all is suspect from now on.
    pub fn misses_ours(&self, digest: &Digest) -> bool {
        let believed = self.believes_absence(digest, true);
        let empty = !believed && !self.is_suspect() && self.record().empty;
        if empty && !self.lacks_ours.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                "a key was presented that was minted with our secret, and the key table is empty: \
                 rows were lost, are hidden from this role (row-level security?), or are in another \
                 database; no key is refused as unknown until there is one"
            );
        }
        believed
    }

    fn holds_keys(&self) {
        self.is_empty.store(false, Ordering::Release);
        if self.lacks_ours.swap(false, Ordering::AcqRel) {
            tracing::info!("the key table has keys: the store is believed");
        }
    }

    /// Whether the last numbered change of the key is a deletion.
    #[must_use]
    pub fn was_deleted(&self, digest: &Digest) -> bool {
        self.deleted.get(digest).is_some()
    }

    /// Whether the history should be queried at `now`: the last query is
    /// `HISTORY_EVERY` old, a known key went missing since, or the store is suspect
    /// because of its history or an empty key table.
    #[must_use]
    pub fn wants_history(&self, now: Instant) -> bool {
        let newest = self.state().newest();
        self.config.enabled
            && (self.lacks_history.load(Ordering::Acquire)
                || self.lacks_ours.load(Ordering::Acquire)
                || self.record().asked_at.is_none_or(|asked_at| {
                    now.saturating_duration_since(asked_at) >= HISTORY_EVERY
                        || newest.is_some_and(|newest| asked_at < newest)
                }))
    }

    /// Applies the history that the store returned for a query at `asked_at`; `None` if
    /// the store has none.
    pub fn hear(&self, history: Option<History>, asked_at: Instant) {
        if !self.config.enabled {
            return;
        }
        let Some(History { expected, found, any, deleted }) = history else {
            self.record().asked_at = Some(asked_at);
            self.awaits_history.store(false, Ordering::Release);
            return;
        };
        for digest in deleted {
            self.deleted.insert(digest, ());
        }
        let missing = expected - found;
        let lacks = missing > 0
            && (found == 0
                || missing >= self.config.keys.get() && state::is_suspect_share(missing, expected));
        let vouches = found > 0 && !lacks;
        *self.record() = Record { asked_at: Some(asked_at), vouches, empty: !any };
        if any {
            self.holds_keys();
        } else {
            self.is_empty.store(true, Ordering::Release);
        }
        if self.lacks_history.swap(lacks, Ordering::AcqRel) != lacks {
            if lacks {
                tracing::warn!(
                    "the change table speaks of {expected} keys of which the key table has only \
                     {found}: rows were lost or are hidden from this role (row-level security?); \
                     no key is refused as unknown until they are back, or their deletion is \
                     recorded in the change table"
                );
            } else {
                tracing::info!("the key table has the keys again of which the change table speaks");
            }
        }
        self.awaits_history.store(false, Ordering::Release);
    }

    /// Records that the store lacked a known key when called at `now`, for the first
    /// time at `since`.
    pub fn missing(&self, digest: Digest, since: Instant, now: Instant) -> Verdict {
        if !self.config.enabled {
            return Verdict::Believed;
        }
        let mut state = self.state();
        let change = state.missing(digest, now);
        self.follow(change, &state);
        self.verdict(since, now, &state)
    }

    /// The verdict on a known key that is missing since `since`, if the store said at `now` that it
    /// does not exist. Has no side effect.
    #[must_use]
    pub fn foresee(&self, since: Instant, now: Instant) -> Verdict {
        if self.config.enabled {
            self.verdict(since, now, &self.state())
        } else {
            Verdict::Believed
        }
    }

    /// A key that has been missing for long enough is believed to be gone if the store has returned
    /// others since: an emptied store has none.
    fn verdict(&self, since: Instant, now: Instant, state: &State) -> Verdict {
        let confirmed = now.saturating_duration_since(since) >= self.config.confirm_for;
        let doubted = self.is_suspect() || self.awaits_history();
        if confirmed && !doubted && (state.has_found() || self.history_vouches(state)) {
            Verdict::Believed
        } else {
            Verdict::Doubted
        }
    }

    fn history_vouches(&self, state: &State) -> bool {
        let record = self.record();
        record.vouches && record.asked_at >= state.newest()
    }

    /// Records that the store, queried at `asked_at`, has a key. `known` says whether it was known
    /// before: only a known key counts for the store. `usable` keys become witnesses.
    pub fn found(&self, digest: Digest, known: bool, usable: bool, asked_at: Instant) {
        if !self.config.enabled {
            return;
        }
        if self.is_empty.load(Ordering::Relaxed) {
            self.record().empty = false;
            self.holds_keys();
        }
        let mut state = self.state();
        let change = if known { state.found(digest, asked_at) } else { None };
        if usable {
            state.add_witness(digest);
        }
        self.follow(change, &state);
    }

    /// Introduces a usable key that was known before the start. The first few become witnesses; of
    /// the others, possibly a million, nothing is kept.
    pub fn introduce(&self, digest: Digest) {
        let enough = self.introduced.load(Ordering::Relaxed) >= MAX_WITNESSES;
        if self.config.enabled && !enough {
            self.introduced.fetch_add(1, Ordering::Relaxed);
            self.state().add_witness(digest);
        }
    }

    /// Records a change of this key, which may explain why it is missing.
    pub fn excuse(&self, digest: &Digest, kind: ChangeKind) {
        if kind == ChangeKind::Deleted {
            self.deleted.insert(*digest, ());
        } else {
            self.deleted.remove(digest);
            self.record().empty = false;
            self.holds_keys();
        }
        let mut state = self.state();
        let change = state.excuse(digest);
        self.follow(change, &state);
    }

    /// The key left the cache or could not be used, so it need not be in the store.
    pub fn dismiss(&self, digest: &Digest) {
        self.state().dismiss(digest);
    }

    /// At most `max` of the missing known keys, to be looked up again.
    #[must_use]
    pub fn still_missing(&self, max: usize) -> Vec<Digest> {
        self.state().still_missing(max)
    }

    /// At most `max` keys that the store should have. Looked up along with others, they distinguish
    /// an empty store from a missing key.
    #[must_use]
    pub fn witnesses(&self, max: usize) -> Vec<Digest> {
        if self.config.enabled { self.state().witnesses(max) } else { Vec::new() }
    }

    /// A key that the store should have, which distinguishes an empty store from a missing key. Has
    /// no side effect, not even on the rotation.
    #[must_use]
    pub fn next_witness(&self) -> Option<Digest> {
        if self.config.enabled { self.state().next_witness() } else { None }
    }

    fn follow(&self, change: Option<Change>, state: &State) {
        match change {
            None => {}
            Some(Change::Arisen) => {
                self.lacks_known.store(true, Ordering::Release);
                let keys = state.missing_keys();
                tracing::warn!(
                    keys,
                    "known keys are missing in the store without a record of their deletion: it is \
                     suspect, and no key is refused as unknown until known keys are found again; if \
                     they were deleted on purpose, record that in the change table or, with \
                     `store.relation`, restart with `suspect.enabled = false`"
                );
            }
            Some(Change::Dispelled) => {
                self.lacks_known.store(false, Ordering::Release);
                tracing::info!("known keys are found again: the store is believed");
            }
        }
    }

    /// No code panics while it holds this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nor while it holds this one, which may be taken under the other.
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
