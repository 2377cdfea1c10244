//! An instant that is read and written without a lock.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;

use super::ShortInstant;

const NEVER: i64 = i64::MIN;

/// An instant, or never. Exact to the nanosecond within 292 years before or after the
/// start of the process.
#[derive(Debug)]
pub struct AtomicInstant(AtomicI64);

impl Default for AtomicInstant {
    fn default() -> Self {
        Self(AtomicI64::new(NEVER))
    }
}

impl AtomicInstant {
    /// The instant; `None` means never. Acquires: the caller sees what was written before
    /// it was set.
    #[must_use]
    pub fn get(&self) -> Option<Instant> {
        instant(self.0.load(Ordering::Acquire))
    }

    /// Like [`get`](Self::get), for comparison with other [`ShortInstant`]s.
    #[must_use]
    pub fn short(&self) -> Option<ShortInstant> {
        short(self.0.load(Ordering::Acquire))
    }

    /// Sets the instant.
    pub fn set(&self, at: Option<Instant>) {
        self.0.store(at.map_or(NEVER, mark), Ordering::Release);
    }

    /// Sets the instant if it is never. Returns the resulting instant.
    pub fn get_or_set(&self, at: Instant) -> Instant {
        match self.0.compare_exchange(NEVER, mark(at), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => at,
            Err(earlier) => instant(earlier).unwrap_or(at),
        }
    }
}

fn mark(at: Instant) -> i64 {
    ShortInstant::from(at).as_nanos()
}

fn instant(mark: i64) -> Option<Instant> {
    short(mark).map(Instant::from)
}

fn short(mark: i64) -> Option<ShortInstant> {
    (mark != NEVER).then(|| ShortInstant::from_nanos(mark))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn instants_before_and_after_the_origin_round_trip() {
        let at = AtomicInstant::default();
        assert_eq!(at.get(), None);
        let now = Instant::now();
        for instant in [now, now + SECOND, now.checked_sub(1000 * SECOND).unwrap()] {
            at.set(Some(instant));
            assert_eq!(at.get(), Some(instant));
        }
        at.set(None);
        assert_eq!(at.get(), None);
    }

    #[test]
    fn first_setter_wins() {
        let (at, now) = (AtomicInstant::default(), Instant::now());
        assert_eq!(at.get_or_set(now), now);
        assert_eq!(at.get_or_set(now + SECOND), now);
    }
}
