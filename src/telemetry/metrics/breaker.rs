//! Breaker metrics, by protected tier.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

use super::Metrics;

pub(super) fn transitions(meter: &Meter) -> Counter<u64> {
    meter
        .u64_counter("keystead_breaker_transitions")
        .with_description("Transitions of a breaker into a state.")
        .build()
}

impl Metrics {
    /// Exports the state of the breaker of `tier`, read at every scrape, and starts counting its
    /// transitions. A breaker that ramps up after an outage counts as closed.
    pub fn observe_breaker<const N: usize>(
        &self,
        tier: &'static str,
        states: [&'static str; N],
        state: impl Fn() -> &'static str + Send + Sync + 'static,
    ) {
        self.observe_state(
            "keystead_breaker_state",
            "1 for the current state of a tier's breaker, 0 for the others.",
            &[("tier", tier)],
            states,
            state,
        );
        for to in states {
            self.breaker_transitions.add(0, &labels(tier, to));
        }
    }

    /// Counts a transition of the breaker of `tier`.
    pub fn breaker_changed(&self, tier: &'static str, to: &'static str) {
        self.breaker_transitions.add(1, &labels(tier, to));
    }
}

fn labels(tier: &'static str, to: &'static str) -> [KeyValue; 2] {
    [KeyValue::new("tier", tier), KeyValue::new("to", to)]
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    const STATES: [&str; 3] = ["closed", "open", "half_open"];

    #[test]
    fn state_and_transitions_of_each_breaker_are_exported_from_the_start() {
        let (metrics, exposition) = Metrics::new().unwrap();
        let open = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&open);
        metrics.observe_breaker("store", STATES, move || {
            if seen.load(Ordering::SeqCst) { "open" } else { "closed" }
        });
        metrics.observe_breaker("shared_cache", STATES, || "half_open");
        let holds = |lines: [&str; 4]| {
            let text = String::from_utf8(exposition.text().unwrap()).unwrap();
            for line in lines {
                assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
            }
        };
        holds([
            r#"keystead_breaker_state{state="closed",tier="store"} 1"#,
            r#"keystead_breaker_state{state="half_open",tier="store"} 0"#,
            r#"keystead_breaker_state{state="half_open",tier="shared_cache"} 1"#,
            r#"keystead_breaker_transitions_total{tier="store",to="open"} 0"#,
        ]);
        open.store(true, Ordering::SeqCst);
        metrics.breaker_changed("store", "open");
        holds([
            r#"keystead_breaker_state{state="closed",tier="store"} 0"#,
            r#"keystead_breaker_state{state="open",tier="store"} 1"#,
            r#"keystead_breaker_transitions_total{tier="store",to="open"} 1"#,
            r#"keystead_breaker_transitions_total{tier="store",to="closed"} 0"#,
        ]);
    }
}
