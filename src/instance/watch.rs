//! Derives the state of a dependency from the outcomes of regular calls.

use tokio::time::Instant;

use super::{Dependency, Instance};
use crate::{
    store::StoreError,
    time::{Clock, rounded},
};

/// Consecutive failures until a dependency counts as down: a single failure may be
/// one broken connection.
const FAILURES_UNTIL_DOWN: u32 = 2;

/// Records the outcomes of regular calls to a dependency, updates the instance, and
/// logs each change once.
#[derive(Debug)]
pub struct TierWatch {
    tier: Dependency,
    instance: Instance,
    failures: u32,
    down_since: Option<Instant>,
    clock: Clock,
}

impl TierWatch {
    /// Creates a watch that updates `instance`.
    #[must_use]
    pub const fn new(tier: Dependency, instance: Instance, clock: Clock) -> Self {
        Self { tier, instance, failures: 0, down_since: None, clock }
    }

    /// Records the outcome of one call.
    pub fn observe(&mut self, outcome: Result<(), StoreError>) {
        match outcome {
            Ok(()) => self.answered(),
            Err(error) => self.failed(&error),
        }
    }

    /// Records that the dependency does not exist (any more).
    pub fn absent(&mut self) {
        (self.failures, self.down_since) = (0, None);
        match self.tier {
            Dependency::Store | Dependency::WritePath => {}
            Dependency::Feed => tracing::info!(
                "the store has no feed of changes: a change of a key is noticed by the first check \
                 after `cache.fresh_for`, which may itself still be answered from memory"
            ),
        }
        self.instance.is_absent(self.tier);
    }

    fn answered(&mut self) {
        self.failures = 0;
        if let Some(since) = self.down_since.take() {
            let down_for = rounded(self.clock.monotonic() - since);
            let tier = self.tier.as_str();
            tracing::info!(tier, %down_for, "it answers again");
        }
        self.instance.is_up(self.tier);
    }

    fn failed(&mut self, error: &StoreError) {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_UNTIL_DOWN {
            return;
        }
        if self.down_since.is_none() {
            self.down_since = Some(self.clock.monotonic());
            let (tier, cause, detail) = (self.tier.as_str(), error.kind(), error.detail());
            let what = match self.tier {
                Dependency::Store => {
                    "the store does not answer; keys in memory are served, others are told UNAVAILABLE"
                }
                Dependency::WritePath => {
                    "no key can be changed: revocations cannot be written until this ends"
                }
                Dependency::Feed => {
                    "changes cannot be read; past `cache.fresh_for` a revoked key is asked for again, and may \
                     pass once more meanwhile"
                }
            };
            tracing::warn!(tier, %cause, detail, "{what}");
        }
        self.instance.is_down(self.tier, error);
    }
}
