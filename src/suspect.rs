//! Whether the store is to be believed when it says that a key does not exist.
//!
//! A key that was known valid and is merely missing is no evidence: a database
//! that was emptied, restored from an old backup or mistaken for another answers
//! like one in which the key never was. One missing key is asked for again until
//! `suspect.confirm_for` has passed. When several are missing at the same time,
//! the store is suspect: no absence counts, until known keys are found again.

mod state;

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{key::Digest, time::DurationText};
use state::{Change, MAX_WITNESSES, State};

/// When the store is not believed: known keys that vanish.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SuspectConfig {
    /// Whether a row that is merely missing is doubted. Unset it to make a mass
    /// deletion count that was meant and that the store did not record, such as
    /// TRUNCATE or a `store.relation` that was emptied: restart with it unset,
    /// and set it again afterwards.
    pub enabled: bool,
    /// How many known keys must be missing within `suspect.window` for the store
    /// to be suspect. Fewer are believed after `suspect.confirm_for`. Below the
    /// number of keys that one instance knows, or it can never be reached.
    #[schemars(range(max = 1000))]
    pub keys: NonZeroUsize,
    /// Within which time they are counted.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub window: Duration,
    /// How long a known key must be missing, and the store not suspect, before
    /// the store is believed. Until then the key goes on as stale-if-error.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub confirm_for: Duration,
}

impl Default for SuspectConfig {
    fn default() -> Self {
        const KEYS: NonZeroUsize = NonZeroUsize::new(5).unwrap();
        Self {
            enabled: true,
            keys: KEYS,
            window: Duration::from_secs(10),
            confirm_for: Duration::from_secs(5),
        }
    }
}

/// What is made of a known key that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The store is not believed: the key goes on.
    Doubted,
    /// The key has been missing for long enough: it does not exist.
    Believed,
}

/// The suspicion against a store. Shared by all who take answers in.
#[derive(Debug)]
pub struct Suspicion {
    config: SuspectConfig,
    state: Mutex<State>,
    suspect: AtomicBool,
    /// How many keys were introduced, until there are enough.
    introduced: AtomicUsize,
}

impl Suspicion {
    /// No suspicion yet.
    #[must_use]
    pub fn new(config: SuspectConfig) -> Self {
        let state = Mutex::new(State::new(config.keys.get(), config.window));
        let (suspect, introduced) = Default::default();
        Self { config, state, suspect, introduced }
    }

    /// Whether no absence is evidence now. One atomic read.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// The store was asked at `now` and said that a known key does not exist,
    /// for the first time at `since`.
    pub fn missing(&self, digest: Digest, since: Instant, now: Instant) -> Verdict {
        if !self.config.enabled {
            return Verdict::Believed;
        }
        let mut state = self.state();
        let change = state.missing(digest, now);
        self.follow(change, &state);
        self.verdict(since, now, state.is_suspect())
    }

    /// What would be made of a known key that is missing since `since`, if the
    /// store said at `now` that it does not exist. Changes nothing.
    #[must_use]
    pub fn foresee(&self, since: Instant, now: Instant) -> Verdict {
        if self.config.enabled {
            self.verdict(since, now, self.is_suspect())
        } else {
            Verdict::Believed
        }
    }

    fn verdict(&self, since: Instant, now: Instant, suspect: bool) -> Verdict {
        let confirmed = now.saturating_duration_since(since) >= self.config.confirm_for;
        if confirmed && !suspect { Verdict::Believed } else { Verdict::Doubted }
    }

    /// The store was asked about a key and has it. `known` says whether it was
    /// known before: only such a key speaks for the store. `usable` keys are
    /// remembered as witnesses.
    pub fn found(&self, digest: Digest, known: bool, usable: bool) {
        if !self.config.enabled {
            return;
        }
        let mut state = self.state();
        let change = if known { state.found(digest) } else { None };
        if usable {
            state.add_witness(digest);
        }
        self.follow(change, &state);
    }

    /// A usable key is known from before the start. The first few are remembered as
    /// witnesses; of the others, which may be a million, nothing is kept.
    pub fn introduce(&self, digest: Digest) {
        let enough = self.introduced.load(Ordering::Relaxed) >= MAX_WITNESSES;
        if self.config.enabled && !enough {
            self.introduced.fetch_add(1, Ordering::Relaxed);
            self.state().add_witness(digest);
        }
    }

    /// A change of this key was recorded, so that it may be missing for a good
    /// reason.
    pub fn excuse(&self, digest: &Digest) {
        let mut state = self.state();
        let change = state.excuse(digest);
        self.follow(change, &state);
    }

    /// A key is not in memory any more, or could not be used, so that it need not
    /// be in the store.
    pub fn dismiss(&self, digest: &Digest) {
        self.state().dismiss(digest);
    }

    /// Once the store is suspect: at most `max` of the keys that made it so, to be
    /// asked for again.
    #[must_use]
    pub fn still_missing(&self, max: usize) -> Vec<Digest> {
        self.state().still_missing(max)
    }

    /// At most `max` keys that the store should have: asked along with others,
    /// they tell an empty store from a key that is not there.
    #[must_use]
    pub fn witnesses(&self, max: usize) -> Vec<Digest> {
        if self.config.enabled { self.state().witnesses(max) } else { Vec::new() }
    }

    /// A key that the store should have, by which an empty store can be told from
    /// a key that is not there. Changes nothing, not even whose turn it is.
    #[must_use]
    pub fn next_witness(&self) -> Option<Digest> {
        if self.config.enabled { self.state().next_witness() } else { None }
    }

    fn follow(&self, change: Option<Change>, state: &State) {
        match change {
            None => {}
            Some(Change::Arisen) => {
                self.suspect.store(true, Ordering::Release);
                let keys = state.missing_keys();
                tracing::warn!(
                    keys,
                    "known keys are missing in the store without a record of their deletion: it is \
                     suspect, and no key is refused as unknown until known keys are found again; if \
                     they were deleted on purpose, restart with `suspect.enabled = false`"
                );
            }
            Some(Change::Dispelled) => {
                self.suspect.store(false, Ordering::Release);
                tracing::info!("known keys are found again: the store is believed");
            }
        }
    }

    /// Nothing panics while it holds this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
