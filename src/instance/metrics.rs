//! Metrics of the state of the instance, and its causes.

use super::{Doubt, Instance, InstanceState, TierState};
use crate::telemetry::Metrics;

impl Instance {
    /// Exports the state of the instance and of the write path, and the doubts about the store's
    /// answers.
    pub fn observe(&self, metrics: &Metrics) {
        for (name, doubt, description) in [
            (
                "keystead_store_suspect",
                Doubt::Suspect,
                "1 while the store's answers that a key does not exist are not trusted.",
            ),
            (
                "keystead_store_lagging",
                Doubt::Lagging,
                "1 while the store's data is older than store.max_lag.",
            ),
            (
                "keystead_secret_unknown",
                Doubt::SecretUnknown,
                "1 while the store has active keys of a secret that is not in the secret file.",
            ),
        ] {
            let instance = self.clone();
            metrics.observe_gauge(name, "", description, move || {
                Some(f64::from(instance.standing().doubts(doubt)))
            });
        }
        let instance = self.clone();
        metrics.observe_state(
            "keystead_write_path",
            "1 for the current state of the write path, 0 for the others.",
            &[],
            TierState::WRITE_PATHS,
            move || instance.standing().write_path.as_write_path(),
        );
        let instance = self.clone();
        metrics.observe_state(
            "keystead_instance_state",
            "1 for the current state of this instance, 0 for the others.",
            &[],
            InstanceState::ALL.map(InstanceState::as_str),
            move || instance.standing().state.as_str(),
        );
    }
}
