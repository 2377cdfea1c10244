//! The state of the instance in the metrics.

use super::{Doubt, Instance, InstanceState, TierState};
use crate::telemetry::Metrics;

impl Instance {
    /// Shows the state of the instance, of the write path and of what makes the store's
    /// answers doubtful.
    pub fn observe(&self, metrics: &Metrics) {
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
            let instance = self.clone();
            metrics.observe_gauge(name, "", description, move || {
                Some(f64::from(instance.standing().doubts(doubt)))
            });
        }
        let instance = self.clone();
        metrics.observe_state(
            "keystead_write_path",
            "1 for how changes of keys can be written now, 0 for the others.",
            &[],
            TierState::WRITE_PATHS,
            move || instance.standing().write_path.as_write_path(),
        );
        let instance = self.clone();
        metrics.observe_state(
            "keystead_instance_state",
            "1 for the state of this instance, 0 for the others.",
            &[],
            InstanceState::ALL.map(InstanceState::as_str),
            move || instance.standing().state.as_str(),
        );
    }
}
