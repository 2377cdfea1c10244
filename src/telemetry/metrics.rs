//! The metrics of the service.
//!
//! They are OpenTelemetry instruments, exported by the Prometheus exporter. The exporter appends
//! `_total` to counters and the unit to histograms, so that `keystead_checks` here is
//! `keystead_checks_total` at `/metrics`.

mod breaker;
mod checks;
mod connections;
mod feed;
mod fill;
mod headroom;
mod local;
mod observed;
mod snapshot;

use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter, MeterProvider, UpDownCounter},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::time::Instant;

use self::{checks::Checks, headroom::Rate, local::ShardedCounters, snapshot::SnapshotMetrics};
pub use self::{checks::SurfaceMetrics, connections::ConnectionEnd, snapshot::SnapshotLoad};
use crate::telemetry::log_lines_dropped;

/// Upper bounds of the duration histograms, in seconds: from 10 µs, below the fastest check that
/// can be timed through a socket, to 1 s, above every default time-out of a check.
const DURATION_BOUNDS_SECONDS: [f64; 16] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.15, 0.25, 1.0,
];

/// The metrics could not be set up or exported.
#[derive(Debug, thiserror::Error)]
#[error("the metrics cannot be exported: {0}")]
pub struct MetricsError(String);

/// Result of a cache lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheResult {
    /// A fresh record.
    Fresh,
    /// A record that is served while a background lookup refreshes it.
    Revalidating,
    /// A record that is served if the store gives no answer.
    StaleIfError,
    /// An absence within its lifetime.
    Absent,
    /// No entry.
    Miss,
}

impl CacheResult {
    const ALL: [Self; 5] =
        [Self::Fresh, Self::Revalidating, Self::StaleIfError, Self::Absent, Self::Miss];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Revalidating => "revalidating",
            Self::StaleIfError => "stale_if_error",
            Self::Absent => "absent",
            Self::Miss => "miss",
        }
    }
}

/// The instruments: one set per process, shared by all components.
#[derive(Debug)]
pub struct Metrics {
    provider: SdkMeterProvider,
    checks: Checks,
    /// In the order of [`CacheResult::ALL`].
    cache_lookups: Arc<ShardedCounters>,
    store_lookups: Counter<u64>,
    store_queries: Counter<u64>,
    store_query_duration: Histogram<f64>,
    store_in_flight: UpDownCounter<i64>,
    fill_batch_size: Histogram<u64>,
    refreshes_dropped: Counter<u64>,
    masked_failures: Counter<u64>,
    denials_without_evidence: Counter<u64>,
    demand: Arc<Rate>,
    breaker_transitions: Counter<u64>,
    connections_ended: Counter<u64>,
    snapshot: SnapshotMetrics,
    revocation_latency: Histogram<f64>,
}

/// Renders the metrics in the Prometheus text format.
#[derive(Debug, Clone)]
pub struct Exposition(Registry);

impl Exposition {
    /// The media type of [`Exposition::text`].
    pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

    /// Renders all metrics for a Prometheus scrape.
    pub fn text(&self) -> Result<Vec<u8>, MetricsError> {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.0.gather(), &mut text)
            .map_err(|error| MetricsError(error.to_string()))?;
        Ok(text)
    }
}

impl Metrics {
    /// Creates all instruments, and their Prometheus exposition.
    pub fn new() -> Result<(Arc<Self>, Exposition), MetricsError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()
            .map_err(|error| MetricsError(error.to_string()))?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let metrics = Self::with_provider(provider);
        metrics.start_counters_at_zero();
        metrics.observe_log();
        Ok((Arc::new(metrics), Exposition(registry)))
    }

    fn with_provider(provider: SdkMeterProvider) -> Self {
        let meter = provider.meter("keystead");
        let counter =
            |name, description| meter.u64_counter(name).with_description(description).build();
        let cache_lookups = cache_lookups(&meter);
        Self {
            checks: Checks::new(&meter),
            demand: Arc::new(Rate::new(Arc::clone(&cache_lookups), Instant::now())),
            cache_lookups,
            store_lookups: counter(
                "keystead_store_lookups",
                "Keys looked up in the store, by result.",
            ),
            store_queries: counter("keystead_store_queries", "Lookup queries sent to the store."),
            store_query_duration: duration(
                &meter,
                "keystead_store_query_duration",
                "Duration of a lookup query, failed ones included.",
            ),
            store_in_flight: meter
                .i64_up_down_counter("keystead_store_in_flight")
                .with_description("Lookup queries in flight to the store.")
                .build(),
            fill_batch_size: fill::batch_size(&meter),
            refreshes_dropped: counter(
                "keystead_refreshes_dropped",
                "Hits that were served, but whose background refresh could not be queued.",
            ),
            masked_failures: counter(
                "keystead_masked_failures",
                "Failures of a tier that no caller saw, because a cached record was served.",
            ),
            denials_without_evidence: counter(
                "keystead_denials_without_evidence",
                "Denials without evidence, answered as INTERNAL instead. Must stay 0.",
            ),
            breaker_transitions: breaker::transitions(&meter),
            connections_ended: connections::ended(&meter),
            snapshot: SnapshotMetrics::new(&meter),
            revocation_latency: feed::revocation_latency(&meter),
            provider,
        }
    }

    /// A counter that first appears at 1 hides its first event from `rate()`.
    fn start_counters_at_zero(&self) {
        for result in ["found", "absent", "error"] {
            self.store_lookups.add(0, &[KeyValue::new("result", result)]);
        }
        self.denials_without_evidence.add(0, &[]);
        self.store_queries.add(0, &[]);
        self.store_in_flight.add(0, &[]);
        self.snapshot.start_at_zero();
    }

    /// Counts a cache lookup.
    pub fn cache_lookup(&self, result: CacheResult) {
        self.cache_lookups.count(result as usize);
    }

    /// Exports the number of outranked rows, read at every scrape.
    pub fn observe_rows_outranked(&self, outranked: impl Fn() -> u64 + Send + Sync + 'static) {
        self.provider
            .meter("keystead")
            .u64_observable_counter("keystead_rows_outranked")
            .with_description(
                "Rows that the store has as usable although the key is known to have ended.",
            )
            .with_callback(move |counter| counter.observe(outranked(), &[]))
            .build();
    }

    /// Exports the number of dropped log lines, read at every scrape.
    fn observe_log(&self) {
        self.provider
            .meter("keystead")
            .u64_observable_counter("keystead_log_lines_dropped")
            .with_description(
                "Log lines that were dropped because nobody read them in time or writing failed.",
            )
            .with_callback(|counter| counter.observe(log_lines_dropped(), &[]))
            .build();
    }

    /// Exports the number of cache entries, read at every scrape.
    pub fn observe_cache_entries(&self, entries: impl Fn() -> usize + Send + Sync + 'static) {
        self.provider
            .meter("keystead")
            .u64_observable_gauge("keystead_cache_entries")
            .with_description("Records in the cache.")
            .with_callback(move |gauge| {
                gauge.observe(u64::try_from(entries()).unwrap_or(u64::MAX), &[]);
            })
            .build();
    }

    /// Counts a denial without evidence, which was not sent.
    pub fn denial_without_evidence(&self) {
        self.denials_without_evidence.add(1, &[]);
    }

    /// Counts a lookup query, which is in flight until the value is dropped.
    #[must_use]
    pub fn store_query_began(&self) -> InFlight<'_> {
        self.store_queries.add(1, &[]);
        self.store_in_flight.add(1, &[]);
        InFlight { metrics: self, began: Instant::now() }
    }

    /// Counts keys of a query by the store's answer: `found`, `absent` or `error`.
    pub fn store_lookups(&self, result: &'static str, keys: usize) {
        let keys = u64::try_from(keys).unwrap_or(u64::MAX);
        self.store_lookups.add(keys, &[KeyValue::new("result", result)]);
    }
}

/// A query that is in flight until this is dropped, however it ends.
#[derive(Debug)]
pub struct InFlight<'a> {
    metrics: &'a Metrics,
    began: Instant,
}

impl InFlight<'_> {
    /// Records the duration of a query that was answered or failed.
    pub fn ended(self) {
        self.metrics.store_query_duration.record(self.began.elapsed().as_secs_f64(), &[]);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.metrics.store_in_flight.add(-1, &[]);
    }
}

/// Creates a histogram of durations.
fn duration(meter: &Meter, name: &'static str, description: &'static str) -> Histogram<f64> {
    meter
        .f64_histogram(name)
        .with_description(description)
        .with_unit("s")
        .with_boundaries(DURATION_BOUNDS_SECONDS.to_vec())
        .build()
}

fn cache_lookups(meter: &Meter) -> Arc<ShardedCounters> {
    let lookups = Arc::new(ShardedCounters::new(CacheResult::ALL.len()));
    let counted = Arc::clone(&lookups);
    meter
        .u64_observable_counter("keystead_cache_lookups")
        .with_description("Cache lookups, by result.")
        .with_callback(move |counter| {
            for result in CacheResult::ALL {
                let labels = [KeyValue::new("result", result.as_str())];
                counter.observe(counted.total(result as usize), &labels);
            }
        })
        .build();
    lookups
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_series_exists_from_the_start_under_its_documented_name() {
        let (metrics, exposition) = Metrics::new().unwrap();
        metrics.surface("authz", [("OK", ""), ("UNAVAILABLE", "STORE_TIMEOUT")]);
        metrics.observe_cache_entries(|| 3);
        metrics.observe_state(
            "keystead_instance_state",
            "",
            &[],
            ["starting", "normal"],
            || "starting",
        );
        let text = String::from_utf8(exposition.text().unwrap()).unwrap();
        for line in [
            r#"keystead_checks_total{code="OK",reason="",surface="authz"} 0"#,
            r#"keystead_checks_total{code="UNAVAILABLE",reason="STORE_TIMEOUT",surface="authz"} 0"#,
            r#"keystead_cache_lookups_total{result="miss"} 0"#,
            "keystead_cache_entries 3",
            r#"keystead_store_lookups_total{result="error"} 0"#,
            "keystead_store_queries_total 0",
            "keystead_store_in_flight 0",
            "keystead_log_lines_dropped_total 0",
            r#"keystead_instance_state{state="starting"} 1"#,
            r#"keystead_instance_state{state="normal"} 0"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn durations_are_in_histograms_under_their_documented_names() {
        let (metrics, exposition) = Metrics::new().unwrap();
        metrics.surface("authz", []).took(Duration::from_micros(20));
        metrics.store_query_began().ended();
        let text = String::from_utf8(exposition.text().unwrap()).unwrap();
        for line in [
            r#"keystead_check_duration_seconds_count{surface="authz"} 1"#,
            "keystead_store_query_duration_seconds_count 1",
            "keystead_store_in_flight 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_cancelled_query_is_no_longer_in_flight() {
        let (metrics, exposition) = Metrics::new().unwrap();
        let query = metrics.store_query_began();
        let shown = || String::from_utf8(exposition.text().unwrap()).unwrap();
        assert!(shown().contains("keystead_store_in_flight 1\n"));
        drop(query);
        assert!(shown().contains("keystead_store_in_flight 0\n"));
    }
}
