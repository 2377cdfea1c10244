//! The counting behind a suspicion: pure, from answers and times.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::key::Digest;

/// How many witnesses are kept. Probes ask for a quarter of them at a time, so that
/// the loss of up to 40 keys is told from that of a store within seconds, without
/// any check.
pub(super) const MAX_WITNESSES: usize = 64;

/// How many missing keys are told apart, about 50 KB. Found ones are counted up to
/// twice as many, which is more than it takes to outweigh them.
const MAX_MISSING: usize = 1000;

/// The share of missing keys, among those and the ones that were found since,
/// from which on the store is suspect: two fifths.
const SUSPECT_SHARE: (usize, usize) = (2, 5);

/// Whether so many of `all` are too many to be gone by themselves.
pub(super) const fn is_suspect_share(missing: usize, all: usize) -> bool {
    missing * SUSPECT_SHARE.1 >= all * SUSPECT_SHARE.0
}

/// For how long a key that was missing once the store was suspect counts when
/// nobody asks for it any more. A probe asks for all of them within seconds, as
/// long as they are in memory.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(10);

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// From now on the store is suspect.
    Arisen,
    /// It no longer is.
    Dispelled,
}

#[derive(Debug)]
pub(super) struct State {
    /// How many keys it takes, for the suspicion and against it.
    keys: usize,
    window: Duration,
    /// Known keys that are missing, and when that was last noticed: within the
    /// window; once suspect, within [`FORGOTTEN_AFTER`].
    missing: HashMap<Digest, Instant>,
    /// When the last of them was noticed for the first time.
    newest: Option<Instant>,
    /// Known keys that were found by queries that are no older than that: an
    /// emptied store finds none.
    found: HashSet<Digest>,
    suspect: bool,
    witnesses: VecDeque<Digest>,
}

impl State {
    pub(super) fn new(keys: usize, window: Duration) -> Self {
        Self {
            keys,
            window,
            missing: HashMap::new(),
            newest: None,
            found: HashSet::new(),
            suspect: false,
            witnesses: VecDeque::new(),
        }
    }

    pub(super) fn missing_keys(&self) -> usize {
        self.missing.len()
    }

    /// When a further key was missing last.
    pub(super) const fn newest(&self) -> Option<Instant> {
        self.newest
    }

    /// Whether the store has shown a known key since the last one was missing.
    pub(super) fn has_found(&self) -> bool {
        !self.found.is_empty()
    }

    fn is_suspect_share(&self) -> bool {
        let missing = self.missing.len();
        missing >= self.keys && is_suspect_share(missing, missing + self.found.len())
    }

    /// A known key was missing when the store was asked at `now`. The suspicion
    /// arises with `keys` distinct ones within the window, unless far more were
    /// found since the last of them.
    pub(super) fn missing(&mut self, digest: Digest, now: Instant) -> Option<Change> {
        self.witnesses.retain(|witness| *witness != digest);
        let counts_for = if self.suspect { FORGOTTEN_AFTER } else { self.window };
        self.missing.retain(|other, last| {
            *other == digest || now.saturating_duration_since(*last) < counts_for
        });
        if let Some(last) = self.missing.get_mut(&digest) {
            *last = (*last).max(now);
        } else if self.missing.len() < MAX_MISSING {
            self.missing.insert(digest, now);
            if self.newest.is_none_or(|newest| newest < now) {
                self.newest = Some(now);
                self.found.clear();
            }
        }
        self.found.remove(&digest);
        if self.suspect || !self.is_suspect_share() {
            return None;
        }
        self.suspect = true;
        Some(Change::Arisen)
    }

    /// A known key was there when the store was asked at `now`. The suspicion ends
    /// when `keys` distinct ones are found after the last one was missing, and
    /// those that are missing are few among them.
    pub(super) fn found(&mut self, digest: Digest, now: Instant) -> Option<Change> {
        self.missing.remove(&digest);
        if self.newest.is_some_and(|newest| newest <= now) && self.found.len() < 2 * MAX_MISSING {
            self.found.insert(digest);
        }
        let dispelled = self.suspect && self.found.len() >= self.keys && !self.is_suspect_share();
        dispelled.then(|| self.dispel())
    }

    /// Those that are still missing go on to be counted.
    const fn dispel(&mut self) -> Change {
        self.suspect = false;
        Change::Dispelled
    }

    pub(super) fn add_witness(&mut self, digest: Digest) {
        if self.witnesses.contains(&digest) {
            return;
        }
        if self.witnesses.len() == MAX_WITNESSES {
            self.witnesses.pop_front();
        }
        self.witnesses.push_back(digest);
    }

    /// A change of a key was recorded. The suspicion ends when that explains why
    /// so many were missing.
    pub(super) fn excuse(&mut self, digest: &Digest) -> Option<Change> {
        self.witnesses.retain(|witness| witness != digest);
        let explained = self.missing.remove(digest).is_some() && self.suspect;
        (explained && self.missing.len() < self.keys).then(|| self.dispel())
    }

    /// A key is not in memory any more, or could not be used: it says nothing for
    /// or against the store.
    pub(super) fn dismiss(&mut self, digest: &Digest) {
        self.witnesses.retain(|witness| witness != digest);
        self.missing.remove(digest);
    }

    /// The first of those that are asked for next.
    pub(super) fn next_witness(&self) -> Option<Digest> {
        self.witnesses.front().copied()
    }

    /// Another choice each time, so that no key is asked for all the time.
    pub(super) fn witnesses(&mut self, max: usize) -> Vec<Digest> {
        let count = max.min(self.witnesses.len());
        self.witnesses.rotate_left(count);
        self.witnesses.iter().rev().take(count).copied().collect()
    }

    /// Those that are missing, the ones first that have not been asked for for the
    /// longest time.
    pub(super) fn still_missing(&self, max: usize) -> Vec<Digest> {
        let mut missing: Vec<_> = self.missing.iter().collect();
        missing.sort_unstable_by_key(|(_, last)| **last);
        missing.into_iter().take(max).map(|(digest, _)| *digest).collect()
    }
}
