//! How long queries take just now, and how many keys one should ask for.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// By how much a longer query raises what is expected: a quarter of the
/// difference, so that a store that has become slow is noticed within a few
/// queries. As in the simulation of `docs/adr/2026-11-22-queue-discipline.md`.
const RISE: u32 = 4;

/// By how much a shorter query lowers it: a 64th of the difference, so that it
/// stays on the high side.
const FALL: u32 = 64;

/// How many keys more a query may ask for after one that was quick.
const GROWTH: usize = 16;

/// Follows how long queries take.
#[derive(Debug)]
pub(super) struct Pace {
    state: Mutex<State>,
    batch_max: usize,
    query_timeout: Duration,
}

#[derive(Debug)]
struct State {
    expected: Duration,
    /// When the last query ended.
    as_of: Option<Instant>,
    batch: usize,
}

impl Pace {
    /// Nothing is known yet. No query asks for more than `batch_max` keys or
    /// takes longer than `query_timeout`.
    pub(super) const fn new(batch_max: NonZeroUsize, query_timeout: Duration) -> Self {
        let batch_max = batch_max.get();
        let state = Mutex::new(State { expected: Duration::ZERO, as_of: None, batch: batch_max });
        Self { state, batch_max, query_timeout }
    }

    /// Takes in how long a query about `keys` took, however it ended.
    ///
    /// A batch that is too large for the store is halved when its query took over
    /// half of the time that it may take, and grows again when queries take less
    /// than a quarter.
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

    /// How long the next query should take: what queries took of late, on the
    /// high side. Nothing before the first; without queries it halves every
    /// second, so that callers who have less time than that are not refused for
    /// ever: only a query can tell that the store is quick again.
    pub(super) fn expected(&self, now: Instant) -> Duration {
        self.state().expected_at(now)
    }

    /// How many keys the next query should ask for at most.
    pub(super) fn batch(&self) -> usize {
        self.state().batch
    }

    /// Nothing panics while it holds this lock.
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

    /// A pace, at an instant at which all its queries end.
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
    fn what_is_expected_rises_fast_and_falls_slowly() {
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
    fn without_queries_what_is_expected_halves_every_second() {
        let Fixture(pace, now) = pace();
        for _ in 0..40 {
            pace.took(100 * MS, 1, now);
        }
        let after = |seconds: u32| pace.expected(now + seconds * 1000 * MS).as_millis();
        assert_eq!([after(0), after(1), after(2), after(10), after(1_000)], [99, 49, 24, 0, 0]);
    }

    #[test]
    fn a_full_batch_that_took_over_half_of_its_time_is_halved_down_to_one_key() {
        let pace = pace();
        pace.took(50 * MS, 256);
        assert_eq!(pace.batch(), 256, "half of its time is not over half of it");
        pace.took(51 * MS, 256);
        assert_eq!(pace.batch(), 128);
        pace.took(51 * MS, 100);
        assert_eq!(pace.batch(), 128, "it was not the size of the batch");
        for _ in 0..10 {
            pace.took(100 * MS, pace.batch());
        }
        assert_eq!(pace.batch(), 1);
    }

    #[test]
    fn batches_grow_again_with_queries_that_take_less_than_a_quarter() {
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
