//! How the calls of the last while ended, in a constant amount of memory.

use std::time::Duration;

use tokio::time::Instant;

/// In how many parts the window moves on.
pub(super) const SLOTS: usize = 10;

/// The calls that ended within a span of time that moves on in [`SLOTS`] steps.
#[derive(Debug, Clone)]
pub(super) struct Window {
    began: Instant,
    slot_lasts: Duration,
    slots: [Count; SLOTS],
    /// The number of the newest slot that was used, counted from `began`.
    newest: u128,
}

/// How many calls there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// All that count.
    pub(super) calls: u32,
    /// Those of them that failed.
    pub(super) failed: u32,
    /// Those of them that were slow, failed or not.
    pub(super) slow: u32,
}

impl Window {
    /// An empty window, which begins now.
    pub(super) fn new(length: Duration, now: Instant) -> Self {
        let slots = u32::try_from(SLOTS).unwrap_or(u32::MAX);
        let slot_lasts = (length / slots).max(Duration::from_nanos(1));
        Self { began: now, slot_lasts, slots: [Count::default(); SLOTS], newest: 0 }
    }

    /// Adds a call that has just ended.
    pub(super) fn add(&mut self, failed: bool, slow: bool, now: Instant) {
        let number =
            now.saturating_duration_since(self.began).as_nanos() / self.slot_lasts.as_nanos();
        // Those that were passed over since, each once at most.
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

    /// All calls in the window, as of the last that was added.
    pub(super) fn count(&self) -> Count {
        self.slots.iter().fold(Count::default(), |sum, slot| Count {
            calls: sum.calls.saturating_add(slot.calls),
            failed: sum.failed.saturating_add(slot.failed),
            slow: sum.slow.saturating_add(slot.slow),
        })
    }
}

impl Count {
    /// Which share of the calls failed. There must be calls. A quotient, so that 7
    /// of 100 are what somebody means who writes 0.07.
    pub(super) fn failure_ratio(&self) -> f64 {
        f64::from(self.failed) / f64::from(self.calls)
    }

    /// Which share of the calls was slow. There must be calls.
    pub(super) fn slow_ratio(&self) -> f64 {
        f64::from(self.slow) / f64::from(self.calls)
    }
}

fn position(number: u128) -> usize {
    usize::try_from(number % SLOTS as u128).unwrap_or_default()
}
