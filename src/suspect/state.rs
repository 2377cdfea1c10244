//! The counting behind a suspicion: pure, from answers and times.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::key::Digest;

/// How many witnesses are kept: a few more than are asked at once by default,
/// so that one that is deleted is replaced.
pub(super) const MAX_WITNESSES: usize = 16;

/// How many missing keys are told apart once the store is suspect, about 50 KB.
const MAX_MISSING: usize = 1000;

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

/// When a key was missing.
#[derive(Debug, Clone, Copy)]
struct Noticed {
    first: Instant,
    last: Instant,
}

#[derive(Debug)]
pub(super) struct State {
    /// How many keys it takes, for the suspicion and against it.
    keys: usize,
    window: Duration,
    /// Known keys that are missing, and when that was first noticed: those of
    /// the last window; once suspect, all since. At most [`MAX_MISSING`].
    missing: HashMap<Digest, Noticed>,
    /// Once suspect: distinct known keys that were found since another one was
    /// missing.
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
            found: HashSet::new(),
            suspect: false,
            witnesses: VecDeque::new(),
        }
    }

    pub(super) const fn is_suspect(&self) -> bool {
        self.suspect
    }

    pub(super) fn missing_keys(&self) -> usize {
        self.missing.len()
    }

    /// A known key is missing. The suspicion arises with the last of `keys`
    /// distinct ones within the window.
    pub(super) fn missing(&mut self, digest: Digest, now: Instant) -> Option<Change> {
        self.witnesses.retain(|witness| *witness != digest);
        self.found.remove(&digest);
        let since = |at: Instant| now.saturating_duration_since(at);
        let (suspect, window) = (self.suspect, self.window);
        self.missing.retain(|_, noticed| {
            if suspect {
                since(noticed.last) < FORGOTTEN_AFTER
            } else {
                since(noticed.first) < window
            }
        });
        if let Some(noticed) = self.missing.get_mut(&digest) {
            noticed.last = now;
        } else if self.missing.len() < MAX_MISSING {
            self.missing.insert(digest, Noticed { first: now, last: now });
            self.found.clear();
        }
        if self.suspect || self.missing.len() < self.keys {
            return None;
        }
        self.suspect = true;
        Some(Change::Arisen)
    }

    /// A known key is there. The suspicion ends when `keys` distinct ones are
    /// found, no further one is missing in between, and of those that were
    /// missing fewer than `keys` still are.
    pub(super) fn found(&mut self, digest: Digest) -> Option<Change> {
        self.missing.remove(&digest);
        if !self.suspect {
            return None;
        }
        // More say nothing more.
        if self.found.len() < self.keys {
            self.found.insert(digest);
        }
        (self.found.len() >= self.keys).then(|| self.dispel_if_few_are_missing()).flatten()
    }

    fn dispel_if_few_are_missing(&mut self) -> Option<Change> {
        if self.missing.len() >= self.keys {
            return None;
        }
        self.suspect = false;
        self.missing.clear();
        self.found.clear();
        Some(Change::Dispelled)
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
        explained.then(|| self.dispel_if_few_are_missing()).flatten()
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

    /// Once suspect: those that are missing, the ones first that have not been
    /// asked for for the longest time.
    pub(super) fn still_missing(&self, max: usize) -> Vec<Digest> {
        if !self.suspect {
            return Vec::new();
        }
        let mut missing: Vec<_> = self.missing.iter().collect();
        missing.sort_unstable_by_key(|(_, noticed)| noticed.last);
        missing.into_iter().take(max).map(|(digest, _)| *digest).collect()
    }
}
