//! The share of the store's lookup capacity left over if all checks were misses.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Metrics, local::ShardedCounters};

/// The minimum time over which the check rate is averaged: long enough to smooth a burst, short
/// enough that the next scrape shows a change.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// Rate of a counter, computed when it is read.
#[derive(Debug)]
pub(super) struct Rate {
    counted: Arc<ShardedCounters>,
    last: Mutex<Sample>,
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    count: u64,
    per_second: f64,
}

impl Rate {
    /// The rate of the sum of `counted`.
    pub(super) fn new(counted: Arc<ShardedCounters>, now: Instant) -> Self {
        let last = Mutex::new(Sample { at: now, count: counted.sum(), per_second: 0.0 });
        Self { counted, last }
    }

    /// The rate over the last sampled interval, which is at least ten seconds long.
    fn per_second(&self, now: Instant) -> f64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let span = now.saturating_duration_since(last.at);
        if span >= MIN_INTERVAL {
            let count = self.counted.sum();
            #[expect(clippy::cast_precision_loss, reason = "exact enough for a rate")]
            let per_second = (count - last.count) as f64 / span.as_secs_f64();
            *last = Sample { at: now, count, per_second };
        }
        last.per_second
    }
}

impl Metrics {
    /// Exports the headroom, read at every scrape; `capacity` is how many keys per second the store
    /// can look up.
    pub fn observe_headroom(&self, capacity: impl Fn() -> f64 + Send + Sync + 'static) {
        let demand = Arc::clone(&self.demand);
        self.observe_gauge(
            "keystead_herd_headroom",
            "1",
            "Share of the store's lookup capacity left over if all checks were misses; below 0 the \
             loss of the cache would overload the store.",
            move || Some(headroom(demand.per_second(Instant::now()), capacity())),
        );
    }
}

fn headroom(demand: f64, capacity: f64) -> f64 {
    1.0 - demand / capacity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_averaged_over_at_least_ten_seconds_and_kept_until_the_next_sample() {
        let start = Instant::now();
        let counted = Arc::new(ShardedCounters::new(2));
        let rate = Rate::new(Arc::clone(&counted), start);
        (0..200).for_each(|number| counted.count(number % 2));
        let at = |second| rate.per_second(start + Duration::from_secs(second)).to_string();
        assert_eq!([at(9), at(10), at(19), at(20)], ["0", "20", "20", "0"]);
    }

    #[test]
    fn headroom_is_the_unused_share_of_the_capacity() {
        assert_eq!(headroom(0.0, 1000.0).to_string(), "1");
        assert_eq!(headroom(750.0, 1000.0).to_string(), "0.25");
        assert_eq!(headroom(2000.0, 1000.0).to_string(), "-1");
    }
}
