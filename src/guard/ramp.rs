//! Ramp-up of the number of permits after the breaker has closed.

use std::time::Duration;

use tokio::time::Instant;

/// Grows linearly from a few permits to all of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ramp {
    pub(super) began: Instant,
    pub(super) lasts: Duration,
    /// Number of permits at the beginning.
    pub(super) from: usize,
    /// Number of permits at the end, at least `from`.
    pub(super) to: usize,
}

impl Ramp {
    /// Whether all permits are available again.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= self.lasts
    }

    /// Number of permits at `now`.
    pub(super) fn permits(&self, now: Instant) -> usize {
        if self.is_over(now) {
            return self.to;
        }
        let passed = now.saturating_duration_since(self.began).as_nanos();
        let grown = (self.to - self.from) as u128 * passed / self.lasts.as_nanos();
        self.from + usize::try_from(grown).unwrap_or_default()
    }

    /// When there are more than `in_flight` permits. `in_flight` must be less than `to`.
    pub(super) fn more_than(&self, in_flight: usize) -> Instant {
        let missing = (in_flight + 1).saturating_sub(self.from) as u128;
        let all = (self.to - self.from).max(1) as u128;
        let wait = (self.lasts.as_nanos() * missing).div_ceil(all).min(self.lasts.as_nanos());
        self.began + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}
