//! An instant that can be read and set without a lock.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The instant from which all others are counted: some instant of this process.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

const NEVER: i64 = i64::MIN;

/// An instant, or never. Exact to the nanosecond within 292 years of the start
/// of the process, before it too.
#[derive(Debug)]
pub struct AtomicInstant(AtomicI64);

impl Default for AtomicInstant {
    fn default() -> Self {
        Self(AtomicI64::new(NEVER))
    }
}

impl AtomicInstant {
    /// The instant; `None` for never. What was written before it was set is
    /// seen by whoever reads it.
    #[must_use]
    pub fn get(&self) -> Option<Instant> {
        instant(self.0.load(Ordering::Acquire))
    }

    /// Sets it.
    pub fn set(&self, at: Option<Instant>) {
        self.0.store(at.map_or(NEVER, mark), Ordering::Release);
    }

    /// Sets it if it is never. Returns the instant that it is then.
    pub fn get_or_set(&self, at: Instant) -> Instant {
        match self.0.compare_exchange(NEVER, mark(at), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => at,
            Err(earlier) => instant(earlier).unwrap_or(at),
        }
    }

    /// Moves it to `now` if it is never or at least `every` ago. Of several
    /// callers at once one succeeds.
    pub fn claim(&self, now: Instant, every: Duration) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let due = instant(last).is_none_or(|last| now.saturating_duration_since(last) >= every);
        due && self.0.compare_exchange(last, mark(now), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

fn mark(at: Instant) -> i64 {
    let nanos = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    match at.checked_duration_since(*ORIGIN) {
        Some(after) => nanos(after),
        None => -nanos(ORIGIN.duration_since(at)),
    }
}

fn instant(mark: i64) -> Option<Instant> {
    let nanos = Duration::from_nanos(mark.unsigned_abs());
    match mark {
        NEVER => None,
        0.. => ORIGIN.checked_add(nanos),
        _ => ORIGIN.checked_sub(nanos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_instant_comes_back_as_it_was_even_from_before_the_start() {
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
    fn the_first_to_set_it_wins() {
        let (at, now) = (AtomicInstant::default(), Instant::now());
        assert_eq!(at.get_or_set(now), now);
        assert_eq!(at.get_or_set(now + SECOND), now);
    }

    #[test]
    fn it_is_claimed_once_in_each_span() {
        let (at, now) = (AtomicInstant::default(), Instant::now());
        assert!(at.claim(now, SECOND));
        assert!(!at.claim(now + SECOND / 2, SECOND));
        assert!(at.claim(now + SECOND, SECOND));
        assert!(!at.claim(now + SECOND, SECOND));
    }
}
