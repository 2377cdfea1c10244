//! The instruments of the fill and of what is served instead of its answers.

use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter, MeterProvider},
};

use super::Metrics;
use crate::{fill::Lane, outage::Unavailable, store::StoreErrorKind};

/// Upper bounds of the histogram of batches, in keys: up to twice the default of
/// `fill.batch_max`.
const BATCH_BOUNDS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

pub(super) fn batch_size(meter: &Meter) -> Histogram<u64> {
    meter
        .u64_histogram("keystead_fill_batch_size")
        .with_description("Keys that one lookup query asked for.")
        .with_boundaries(BATCH_BOUNDS.to_vec())
        .build()
}

/// Every cause of a failure that may be masked.
pub(super) fn causes() -> impl Iterator<Item = &'static str> {
    let others = [
        Unavailable::BreakerOpen,
        Unavailable::Suspect,
        Unavailable::SecretUnknown,
        Unavailable::Overloaded,
        Unavailable::Internal,
    ];
    StoreErrorKind::ALL.map(Unavailable::Store).into_iter().chain(others).map(Unavailable::as_str)
}

impl Metrics {
    /// Counts how many keys a query asks for on behalf of callers.
    pub fn fill_batch(&self, keys: usize) {
        self.fill_batch_size.record(u64::try_from(keys).unwrap_or(u64::MAX), &[]);
    }

    /// Counts a hit whose record could not be queued to be asked for again.
    pub fn refresh_dropped(&self, cause: Unavailable) {
        self.refreshes_dropped.add(1, &[KeyValue::new("cause", cause.as_str())]);
    }

    /// Counts a failure of a tier that no caller saw.
    pub fn masked_failure(&self, tier: &'static str, cause: Unavailable) {
        let labels = [KeyValue::new("tier", tier), KeyValue::new("cause", cause.as_str())];
        self.masked_failures.add(1, &labels);
    }

    /// Shows how many lookups wait, read whenever the metrics are.
    pub fn observe_fill(&self, waiting: impl Fn(Lane) -> usize + Send + Sync + 'static) {
        self.provider
            .meter("keystead")
            .u64_observable_gauge("keystead_fill_queued")
            .with_description("Keys that wait to be looked up.")
            .with_callback(move |gauge| {
                for lane in Lane::ALL {
                    let keys = u64::try_from(waiting(lane)).unwrap_or(u64::MAX);
                    gauge.observe(keys, &[KeyValue::new("lane", lane.as_str())]);
                }
            })
            .build();
    }
}
