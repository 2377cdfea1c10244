//! Metrics of the fill, and of failures masked by cached records.

use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter},
};

use super::Metrics;

/// Upper bounds of the batch size histogram, in keys: up to twice the default of `fill.batch_max`.
const BATCH_BOUNDS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

pub(super) fn batch_size(meter: &Meter) -> Histogram<u64> {
    meter
        .u64_histogram("keystead_fill_batch_size")
        .with_description("Keys per lookup query.")
        .with_boundaries(BATCH_BOUNDS.to_vec())
        .build()
}

impl Metrics {
    /// Records the number of keys in a query on behalf of callers.
    pub fn fill_batch(&self, keys: usize) {
        self.fill_batch_size.record(u64::try_from(keys).unwrap_or(u64::MAX), &[]);
    }

    /// Creates the series of masked failures and dropped refreshes of `tier`, one per cause.
    pub fn announce_causes(
        &self,
        tier: &'static str,
        causes: impl IntoIterator<Item = &'static str>,
    ) {
        for cause in causes {
            self.refreshes_dropped.add(0, &[KeyValue::new("cause", cause)]);
            let labels = [KeyValue::new("tier", tier), KeyValue::new("cause", cause)];
            self.masked_failures.add(0, &labels);
        }
    }

    /// Counts a hit whose background refresh could not be queued.
    pub fn refresh_dropped(&self, cause: &'static str) {
        self.refreshes_dropped.add(1, &[KeyValue::new("cause", cause)]);
    }

    /// Counts a failure of a tier that no caller saw.
    pub fn masked_failure(&self, tier: &'static str, cause: &'static str) {
        let labels = [KeyValue::new("tier", tier), KeyValue::new("cause", cause)];
        self.masked_failures.add(1, &labels);
    }
}
