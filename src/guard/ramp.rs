//! How many places are given out after the breaker has closed.

use std::time::Duration;

use tokio::time::Instant;

/// Grows evenly from a few places to all of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ramp {
    pub(super) began: Instant,
    pub(super) lasts: Duration,
    /// How many places there are at once.
    pub(super) from: usize,
    /// How many there are at the end; not fewer.
    pub(super) to: usize,
}

impl Ramp {
    /// Whether all places are given out again.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= self.lasts
    }

    /// How many places are given out now.
    pub(super) fn places(&self, now: Instant) -> usize {
        if self.is_over(now) {
            return self.to;
        }
        let passed = now.saturating_duration_since(self.began).as_nanos();
        let grown = (self.to - self.from) as u128 * passed / self.lasts.as_nanos();
        self.from + usize::try_from(grown).unwrap_or_default()
    }

    /// When more than `taken` places are given out, which are fewer than all.
    pub(super) fn more_than(&self, taken: usize) -> Instant {
        let missing = (taken + 1).saturating_sub(self.from) as u128;
        let all = (self.to - self.from).max(1) as u128;
        let wait = (self.lasts.as_nanos() * missing).div_ceil(all).min(self.lasts.as_nanos());
        self.began + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}
