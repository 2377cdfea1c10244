//! Observable gauges, read at every scrape: their owners pass in closures and labels.

use opentelemetry::{KeyValue, metrics::MeterProvider};

use super::Metrics;

impl Metrics {
    /// Exports a gauge. While `value` is `None`, there is no series.
    pub fn observe_gauge(
        &self,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
        value: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        self.provider
            .meter("keystead")
            .f64_observable_gauge(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |gauge| {
                if let Some(value) = value() {
                    gauge.observe(value, &[]);
                }
            })
            .build();
    }

    /// Exports a gauge with one series for each of `values` of `label`; `count` gets the index of
    /// the value.
    pub fn observe_by_label<const N: usize>(
        &self,
        name: &'static str,
        description: &'static str,
        label: &'static str,
        values: [&'static str; N],
        count: impl Fn(usize) -> usize + Send + Sync + 'static,
    ) {
        self.provider
            .meter("keystead")
            .u64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |gauge| {
                for (index, value) in values.into_iter().enumerate() {
                    let count = u64::try_from(count(index)).unwrap_or(u64::MAX);
                    gauge.observe(count, &[KeyValue::new(label, value)]);
                }
            })
            .build();
    }

    /// Exports a state: the series of the state that `now` returns is 1, the others are 0.
    /// `other_labels` are added to each series.
    pub fn observe_state<const N: usize>(
        &self,
        name: &'static str,
        description: &'static str,
        other_labels: &[(&'static str, &'static str)],
        states: [&'static str; N],
        now: impl Fn() -> &'static str + Send + Sync + 'static,
    ) {
        let labels = states.map(|state| {
            let others = other_labels.iter().map(|(name, value)| KeyValue::new(*name, *value));
            (state, others.chain([KeyValue::new("state", state)]).collect::<Vec<_>>())
        });
        self.provider
            .meter("keystead")
            .u64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |gauge| {
                let now = now();
                for (state, labels) in &labels {
                    gauge.observe(u64::from(*state == now), labels);
                }
            })
            .build();
    }
}
