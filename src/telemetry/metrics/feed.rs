//! Change feed metrics.

use std::time::Duration;

use opentelemetry::metrics::{Histogram, Meter};

use super::Metrics;

/// Upper bounds of the revocation latency, in seconds: from 1 ms, a round trip to a nearby store,
/// to a minute, which stands for a change that did not arrive. Fine around 50 ms, the objective for
/// the 99th percentile.
const BOUNDS_SECONDS: [f64; 18] = [
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5,
    1.0, 5.0, 60.0,
];

pub(super) fn revocation_latency(meter: &Meter) -> Histogram<f64> {
    meter
        .f64_histogram("keystead_revocation_latency")
        .with_description(
            "Time from writing a change until this instance applied it, measured with canaries.",
        )
        .with_unit("s")
        .with_boundaries(BOUNDS_SECONDS.to_vec())
        .build()
}

impl Metrics {
    /// Records the time from writing a change until this instance applied it.
    pub fn revocation_took(&self, took: Duration) {
        self.revocation_latency.record(took.as_secs_f64(), &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(exposition: &crate::telemetry::Exposition, series: &str) -> Option<f64> {
        let text = String::from_utf8(exposition.text().unwrap()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    #[test]
    fn change_that_did_not_arrive_is_only_in_the_last_bucket() {
        let (metrics, exposition) = Metrics::new().unwrap();
        metrics.revocation_took(Duration::from_millis(4));
        metrics.revocation_took(Duration::from_mins(1));
        let bucket = |le| format!(r#"keystead_revocation_latency_seconds_bucket{{le="{le}"}}"#);
        assert_eq!(value_of(&exposition, &bucket("0.003")), Some(0.0));
        assert_eq!(value_of(&exposition, &bucket("0.005")), Some(1.0));
        assert_eq!(value_of(&exposition, &bucket("5")), Some(1.0));
        assert_eq!(value_of(&exposition, &bucket("60")), Some(2.0));
    }
}
