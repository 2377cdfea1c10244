//! How the instance stands, and why.

use opentelemetry::{KeyValue, metrics::MeterProvider};

use super::Metrics;
use crate::instance::{Doubt, Instance, InstanceState, TierState};

impl Metrics {
    /// Shows how the instance stands, read whenever the metrics are.
    pub fn observe_instance_state(&self, instance: Instance) {
        let meter = self.provider.meter("keystead");
        for (name, doubt, description) in [
            (
                "keystead_store_suspect",
                Doubt::Suspect,
                "1 while the store is not believed about what it lacks.",
            ),
            (
                "keystead_store_lagging",
                Doubt::Lagging,
                "1 while the data of the store are older than store.max_lag.",
            ),
            (
                "keystead_secret_unknown",
                Doubt::SecretUnknown,
                "1 while the store has active keys of a secret that is not in the secret file.",
            ),
        ] {
            let doubted = instance.clone();
            meter
                .u64_observable_gauge(name)
                .with_description(description)
                .with_callback(move |gauge| {
                    gauge.observe(u64::from(doubted.standing().doubts(doubt)), &[]);
                })
                .build();
        }
        let written = instance.clone();
        meter
            .u64_observable_gauge("keystead_write_path")
            .with_description("1 for how changes of keys can be written now, 0 for the others.")
            .with_callback(move |gauge| {
                let now = written.standing().write_path.as_write_path();
                for state in TierState::WRITE_PATHS {
                    gauge.observe(u64::from(state == now), &[KeyValue::new("state", state)]);
                }
            })
            .build();
        meter
            .u64_observable_gauge("keystead_instance_state")
            .with_description("1 for the state on which this instance stands, 0 for the others.")
            .with_callback(move |gauge| {
                let now = instance.standing().state;
                for state in InstanceState::ALL {
                    gauge.observe(
                        u64::from(state == now),
                        &[KeyValue::new("state", state.as_str())],
                    );
                }
            })
            .build();
    }
}
