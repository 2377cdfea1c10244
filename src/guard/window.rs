//! Sliding-window count of call outcomes, in constant memory.

use std::time::Duration;

use tokio::time::Instant;

/// Number of slots of the window.
pub(super) const SLOTS: usize = 10;

/// Counts the calls that ended within a window that slides in [`SLOTS`] steps.
#[derive(Debug, Clone)]
pub(super) struct Window {
    began: Instant,
    slot_lasts: Duration,
    slots: [Count; SLOTS],
    /// Number of the newest slot in use, counted from `began`.
    newest: u128,
}

/// Numbers of calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// All counted calls.
    pub(super) calls: u32,
    /// Failed calls.
    pub(super) failed: u32,
    /// Slow calls, failed or not.
    pub(super) slow: u32,
}

impl Window {
    /// Creates an empty window that begins at `now`.
    pub(super) fn new(length: Duration, now: Instant) -> Self {
        let slots = u32::try_from(SLOTS).unwrap_or(u32::MAX);
        let slot_lasts = (length / slots).max(Duration::from_nanos(1));
        Self { began: now, slot_lasts, slots: [Count::default(); SLOTS], newest: 0 }
    }

    /// Adds a call that has just ended.
    pub(super) fn add(&mut self, failed: bool, slow: bool, now: Instant) {
        let number =
            now.saturating_duration_since(self.began).as_nanos() / self.slot_lasts.as_nanos();
        // Clears the slots skipped since the newest one, each at most once.
        let stale = number.saturating_sub(self.newest).min(SLOTS as u128);
        for back in 0..stale {
            self.slots[position(number - back)] = Count::default();
        }
        self.newest = self.newest.max(number);
        let count = &mut self.slots[position(self.newest)];
        count.calls = count.calls.saturating_add(1);
        count.failed = count.failed.saturating_add(u32::from(failed));
        count.slow = count.slow.saturating_add(u32::from(slow));
    }

    /// Sums the window, as of the last added call.
    pub(super) fn count(&self) -> Count {
        self.slots.iter().fold(Count::default(), |sum, slot| Count {
            calls: sum.calls.saturating_add(slot.calls),
            failed: sum.failed.saturating_add(slot.failed),
            slow: sum.slow.saturating_add(slot.slow),
        })
    }
}

impl Count {
    /// Ratio of failed calls. `calls` must not be 0. A quotient, so that 7 of 100
    /// equals a configured 0.07 exactly.
    pub(super) fn failure_ratio(&self) -> f64 {
        f64::from(self.failed) / f64::from(self.calls)
    }

    /// Ratio of slow calls. `calls` must not be 0.
    pub(super) fn slow_ratio(&self) -> f64 {
        f64::from(self.slow) / f64::from(self.calls)
    }
}

fn position(number: u128) -> usize {
    usize::try_from(number % SLOTS as u128).unwrap_or_default()
}
