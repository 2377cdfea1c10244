//! Change feed metrics.

use std::sync::Arc;

use crate::{
    cache::Coverage,
    instance::{Instance, TierState},
    telemetry::Metrics,
    time::Clock,
};

/// Exports whether the feed is connected, and its lag. Until the feed's first confirmation, the lag
/// counts from this call; without a feed there is no lag.
pub fn observe(metrics: &Metrics, instance: Instance, coverage: Arc<Coverage>, clock: Clock) {
    let feed = instance.clone();
    metrics.observe_gauge(
        "keystead_feed_connected",
        "",
        "1 while changes of keys reach this instance.",
        move || Some(f64::from(feed.standing().feed.is_up())),
    );
    let start = clock.monotonic();
    metrics.observe_gauge(
        "keystead_feed_lag",
        "s",
        "Age of the time up to which this instance has applied all changes.",
        move || {
            if instance.standing().feed == TierState::None {
                return None;
            }
            let until = coverage.until().unwrap_or(start);
            Some(clock.monotonic().saturating_duration_since(until).as_secs_f64())
        },
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        instance::{Dependency, TierWatch},
        telemetry::Exposition,
    };

    fn value_of(exposition: &Exposition, series: &str) -> Option<f64> {
        let text = String::from_utf8(exposition.text().unwrap()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn lag_counts_from_the_start_and_then_from_the_last_confirmation_of_the_feed() {
        let (metrics, exposition) = Metrics::new().unwrap();
        let instance = Instance::new(Clock::System);
        let coverage = Arc::new(Coverage::new(Duration::from_secs(3)));
        observe(&metrics, instance.clone(), Arc::clone(&coverage), Clock::System);
        let lag = || value_of(&exposition, "keystead_feed_lag_seconds");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(lag(), Some(2.0));
        coverage.confirm(Clock::System.monotonic());
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(lag(), Some(0.5));
        assert_eq!(value_of(&exposition, "keystead_feed_connected"), Some(0.0));
        TierWatch::new(Dependency::Feed, instance, Clock::System).absent();
        assert_eq!(lag(), None);
    }
}
