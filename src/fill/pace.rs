//! Estimates the query time and adapts the batch size.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Divisor of the difference by which a longer query raises the estimate: a quarter,
/// so that a slow store is noticed within a few queries. As in
/// the simulation of `docs/adr/2026-11-22-queue-discipline.md`.
const RISE: u32 = 4;

/// Divisor of the difference by which a shorter query lowers the estimate: a 64th, so
/// that it stays on the high side.
const FALL: u32 = 64;

/// Number of keys by which the batch size grows after a fast query.
const GROWTH: usize = 16;

/// Tracks the duration of queries.
#[derive(Debug)]
pub(super) struct Pace {
    state: Mutex<State>,
    batch_max: usize,
    query_timeout: Duration,
}

#[derive(Debug)]
struct State {
    expected: Duration,
    /// End of the last query.
    as_of: Option<Instant>,
    batch: usize,
}

impl Pace {
    /// Starts with an estimate of zero and batches of `batch_max` keys, the maximum.
    /// No query takes longer than `query_timeout`.
    pub(super) const fn new(batch_max: NonZeroUsize, query_timeout: Duration) -> Self {
        let batch_max = batch_max.get();
        let state = Mutex::new(State { expected: Duration::ZERO, as_of: None, batch: batch_max });
        Self { state, batch_max, query_timeout }
    }

    /// Records the duration of a query for `keys` keys, whatever its outcome.
    ///
    /// The batch size is halved when a full batch took over half of the query
    /// time-out, and grows again when queries take less than a quarter of it.
    pub(super) fn took(&self, time: Duration, keys: usize, now: Instant) {
        let mut state = self.state();
        let expected = state.expected_at(now);
        state.as_of = Some(now);
        let (longer, shorter) = (time.saturating_sub(expected), expected.saturating_sub(time));
        state.expected = (expected + longer / RISE).saturating_sub(shorter / FALL);
        if time > self.query_timeout / 2 && keys >= state.batch {
            state.batch = (state.batch / 2).max(1);
        } else if time < self.query_timeout / 4 {
            state.batch = (state.batch + GROWTH).min(self.batch_max);
        }
    }

    /// Estimated duration of the next query, on the high side. Zero before the first
    /// query. Without queries it halves every second, so that callers with shorter
    /// deadlines are not rejected for ever: only a query can show that the store is
    /// fast again.
    pub(super) fn expected(&self, now: Instant) -> Duration {
        self.state().expected_at(now)
    }

    /// Maximum number of keys of the next query.
    pub(super) fn batch(&self) -> usize {
        self.state().batch
    }

    /// No code panics while it holds this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn expected_at(&self, now: Instant) -> Duration {
        let idle = self.as_of.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let halvings = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX).min(u32::BITS - 1);
        self.expected / (1 << halvings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A pace, and the instant at which all its queries end.
    struct Fixture(Pace, Instant);

    fn pace() -> Fixture {
        Fixture(Pace::new(NonZeroUsize::new(256).unwrap(), 100 * MS), Instant::now())
    }

    impl Fixture {
        fn took(&self, time: Duration, keys: usize) {
            self.0.took(time, keys, self.1);
        }

        fn expected(&self) -> Duration {
            self.0.expected(self.1)
        }

        fn batch(&self) -> usize {
            self.0.batch()
        }
    }

    #[test]
    fn estimate_rises_fast_and_falls_slowly() {
        let pace = pace();
        assert_eq!(pace.expected(), Duration::ZERO);
        pace.took(8 * MS, 1);
        assert_eq!(pace.expected(), 2 * MS);
        for _ in 0..20 {
            pace.took(64 * MS, 1);
        }
        assert!((63 * MS..64 * MS).contains(&pace.expected()), "{:?}", pace.expected());
        pace.took(Duration::ZERO, 1);
        assert!((62 * MS..63 * MS).contains(&pace.expected()), "{:?}", pace.expected());
    }

    #[test]
    fn estimate_halves_every_second_without_queries() {
        let Fixture(pace, now) = pace();
        for _ in 0..40 {
            pace.took(100 * MS, 1, now);
        }
        let after = |seconds: u32| pace.expected(now + seconds * 1000 * MS).as_millis();
        assert_eq!([after(0), after(1), after(2), after(10), after(1_000)], [99, 49, 24, 0, 0]);
    }

    #[test]
    fn full_batch_over_half_of_its_time_out_is_halved_down_to_one_key() {
        let pace = pace();
        pace.took(50 * MS, 256);
        assert_eq!(pace.batch(), 256, "half of its time is not over half of it");
        pace.took(51 * MS, 256);
        assert_eq!(pace.batch(), 128);
        pace.took(51 * MS, 100);
        assert_eq!(pace.batch(), 128, "the batch was not full");
        for _ in 0..10 {
            pace.took(100 * MS, pace.batch());
        }
        assert_eq!(pace.batch(), 1);
    }

    #[test]
    fn batches_grow_after_queries_under_a_quarter_of_the_time_out() {
        let pace = pace();
        pace.took(51 * MS, 256);
        pace.took(25 * MS, 128);
        assert_eq!(pace.batch(), 128);
        pace.took(24 * MS, 128);
        assert_eq!(pace.batch(), 144);
        for _ in 0..20 {
            pace.took(MS, 1);
        }
        assert_eq!(pace.batch(), 256);
    }
}
