//! The instruments of the feed.

use std::{sync::Arc, time::Duration};

use opentelemetry::metrics::{Histogram, Meter, MeterProvider};

use super::Metrics;
use crate::{
    cache::Coverage,
    instance::{Instance, TierState},
    time::Clock,
};

/// Upper bounds of the revocation latency, in seconds: from 1 ms, a round trip
/// to a store nearby, to a minute, as which a change counts that did not arrive.
/// Fine around 50 ms, which 99 of 100 must keep.
const BOUNDS_SECONDS: [f64; 18] = [
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5,
    1.0, 5.0, 60.0,
];

pub(super) fn revocation_latency(meter: &Meter) -> Histogram<f64> {
    meter
        .f64_histogram("keystead_revocation_latency")
        .with_description(
            "Time from writing a change until it has been applied here, measured with canaries.",
        )
        .with_unit("s")
        .with_boundaries(BOUNDS_SECONDS.to_vec())
        .build()
}

impl Metrics {
    /// Notes how long a change took from its writing until it was applied here.
    pub fn revocation_took(&self, took: Duration) {
        self.revocation_latency.record(took.as_secs_f64(), &[]);
    }

    /// Shows how the feed fares, read whenever the metrics are. The lag counts
    /// from now until the feed's first word; without a feed there is none.
    pub fn observe_feed(&self, instance: Instance, coverage: Arc<Coverage>, clock: Clock) {
        let meter = self.provider.meter("keystead");
        let feed = instance.clone();
        meter
            .u64_observable_gauge("keystead_feed_connected")
            .with_description("1 while changes of keys reach this instance.")
            .with_callback(move |gauge| {
                gauge.observe(u64::from(feed.standing().feed.is_up()), &[]);
            })
            .build();
        let start = clock.monotonic();
        meter
            .f64_observable_gauge("keystead_feed_lag")
            .with_description("Age of the moment up to which all changes have been applied here.")
            .with_unit("s")
            .with_callback(move |gauge| {
                if instance.standing().feed != TierState::None {
                    let until = coverage.until().unwrap_or(start);
                    let lag = clock.monotonic().saturating_duration_since(until);
                    gauge.observe(lag.as_secs_f64(), &[]);
                }
            })
            .build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::{Dependency, TierWatch};

    fn shown(exposition: &crate::telemetry::Exposition, series: &str) -> Option<f64> {
        let text = String::from_utf8(exposition.text().unwrap()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn lag_counts_from_the_start_and_then_from_the_last_word_of_the_feed() {
        let (metrics, exposition) = Metrics::new().unwrap();
        let instance = Instance::new(Clock::System);
        let coverage = Arc::new(Coverage::new(Duration::from_secs(3)));
        metrics.observe_feed(instance.clone(), Arc::clone(&coverage), Clock::System);
        let lag = || shown(&exposition, "keystead_feed_lag_seconds");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(lag(), Some(2.0));
        coverage.confirm(Clock::System.monotonic());
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(lag(), Some(0.5));
        assert_eq!(shown(&exposition, "keystead_feed_connected"), Some(0.0));
        TierWatch::new(Dependency::Feed, instance, Clock::System).absent();
        assert_eq!(lag(), None);
    }

    #[test]
    fn a_change_that_did_not_arrive_is_in_the_last_bucket_alone() {
        let (metrics, exposition) = Metrics::new().unwrap();
        metrics.revocation_took(Duration::from_millis(4));
        metrics.revocation_took(Duration::from_mins(1));
        let bucket = |le| format!(r#"keystead_revocation_latency_seconds_bucket{{le="{le}"}}"#);
        assert_eq!(shown(&exposition, &bucket("0.003")), Some(0.0));
        assert_eq!(shown(&exposition, &bucket("0.005")), Some(1.0));
        assert_eq!(shown(&exposition, &bucket("5")), Some(1.0));
        assert_eq!(shown(&exposition, &bucket("60")), Some(2.0));
    }
}
