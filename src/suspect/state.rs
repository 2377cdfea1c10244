//! The counters behind a suspicion: pure, from answers and times.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::key::Digest;

/// How many witnesses are kept. Each probe looks up a quarter of them, so that the loss of up to 40
/// keys is distinguished from that of the store within seconds, without any check.
pub(super) const MAX_WITNESSES: usize = 64;

/// How many missing keys are distinguished, about 50 KB. Up to twice as many found keys are
/// counted, more than it takes to outweigh them.
const MAX_MISSING: usize = 1000;

/// Threshold of suspicion: the share of missing keys among the missing and those found since, two
/// fifths.
const SUSPECT_SHARE: (usize, usize) = (2, 5);

/// Whether so many of `all` are too many to have been deleted one by one.
pub(super) const fn is_suspect_share(missing: usize, all: usize) -> bool {
    missing * SUSPECT_SHARE.1 >= all * SUSPECT_SHARE.0
}

/// How long a key that was missing while the store was suspect counts without another lookup.
/// Probes look all of them up within seconds, as long as they are cached.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(10);

/// The effect of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The store becomes suspect.
    Arisen,
    /// The store is no longer suspect.
    Dispelled,
}

#[derive(Debug)]
pub(super) struct State {
    /// Threshold in keys, to raise the suspicion and to end it.
    keys: usize,
    window: Duration,
    /// Missing known keys, and when each was last missed: within the window; once suspect, within
    /// [`FORGOTTEN_AFTER`].
    missing: HashMap<Digest, Instant>,
    /// When the last of them was first missed.
    newest: Option<Instant>,
    /// Known keys that were found by queries no older than that: an emptied store finds none.
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

    /// When a further key was last missed.
    pub(super) const fn newest(&self) -> Option<Instant> {
        self.newest
    }

    /// Whether the store has returned a known key since the last one was missed.
    pub(super) fn has_found(&self) -> bool {
        !self.found.is_empty()
    }

    fn is_suspect_share(&self) -> bool {
        let missing = self.missing.len();
        missing >= self.keys && is_suspect_share(missing, missing + self.found.len())
    }

    /// Records a known key as missing at `now`. The store becomes suspect when `keys` distinct ones
    /// are missing within the window, unless far more were found since the last of them.
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

    /// Records a known key as found at `now`. The suspicion ends when `keys` distinct ones are
    /// found after the last one was missed, and outweigh those that are missing.
    pub(super) fn found(&mut self, digest: Digest, now: Instant) -> Option<Change> {
        self.missing.remove(&digest);
        if self.newest.is_some_and(|newest| newest <= now) && self.found.len() < 2 * MAX_MISSING {
            self.found.insert(digest);
        }
        let dispelled = self.suspect && self.found.len() >= self.keys && !self.is_suspect_share();
        dispelled.then(|| self.dispel())
    }

    /// Keys that are still missing continue to count.
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

    /// Records a change of a key. The suspicion ends if that explains enough of the missing keys.
    pub(super) fn excuse(&mut self, digest: &Digest) -> Option<Change> {
        self.witnesses.retain(|witness| witness != digest);
        let explained = self.missing.remove(digest).is_some() && self.suspect;
        (explained && self.missing.len() < self.keys).then(|| self.dispel())
    }

    /// The key left the cache or could not be used: it counts neither for nor against the store.
    pub(super) fn dismiss(&mut self, digest: &Digest) {
        self.witnesses.retain(|witness| witness != digest);
        self.missing.remove(digest);
    }

    /// The witnesses to look up next.
    pub(super) fn next_witness(&self) -> Option<Digest> {
        self.witnesses.front().copied()
    }

    /// Rotates, so that no key is looked up all the time.
    pub(super) fn witnesses(&mut self, max: usize) -> Vec<Digest> {
        let count = max.min(self.witnesses.len());
        self.witnesses.rotate_left(count);
        self.witnesses.iter().rev().take(count).copied().collect()
    }

    /// The missing keys, least recently looked up first.
    pub(super) fn still_missing(&self, max: usize) -> Vec<Digest> {
        let mut missing: Vec<_> = self.missing.iter().collect();
        missing.sort_unstable_by_key(|(_, last)| **last);
        missing.into_iter().take(max).map(|(digest, _)| *digest).collect()
    }
}
