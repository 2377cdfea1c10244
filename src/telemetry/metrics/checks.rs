//! Check metrics: outcomes and durations.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter},
};

use super::{
    Metrics, duration,
    local::{BufferedHistogram, ShardedCounters},
};

/// The check metrics of all surfaces.
#[derive(Debug)]
pub(super) struct Checks {
    surfaces: Arc<Mutex<Vec<Arc<SurfaceMetrics>>>>,
    duration: Histogram<f64>,
}

/// The check metrics of one surface. Costs a check two writes to memory that only its thread
/// writes.
#[derive(Debug)]
pub struct SurfaceMetrics {
    name: &'static str,
    declared: Vec<Outcome>,
    /// One counter per declared outcome.
    counts: ShardedCounters,
    /// Outcomes that were not declared; normally none.
    others: Mutex<HashMap<Outcome, u64>>,
    durations: BufferedHistogram,
}

/// A status code and a reason, by name.
type Outcome = (&'static str, &'static str);

impl Checks {
    pub(super) fn new(meter: &Meter) -> Self {
        let surfaces = Arc::new(Mutex::new(Vec::<Arc<SurfaceMetrics>>::new()));
        let all = Arc::clone(&surfaces);
        meter
            .u64_observable_counter("keystead_checks")
            .with_description("Checks answered, by status code and reason.")
            .with_callback(move |counter| {
                for surface in lock(&all).iter() {
                    // Callbacks run before any instrument is read.
                    surface.durations.flush();
                    surface.each(|count, labels| counter.observe(count, labels));
                }
            })
            .build();
        let duration = duration(
            meter,
            "keystead_check_duration",
            "Time from a decoded request to its response.",
        );
        Self { surfaces, duration }
    }
}

impl SurfaceMetrics {
    /// Counts a check that was answered, or rejected before it became one.
    pub fn answered(&self, code: &'static str, reason: &'static str) {
        let outcome = (code, reason);
        match self.declared.iter().position(|declared| *declared == outcome) {
            Some(counter) => self.counts.count(counter),
            None => *lock(&self.others).entry(outcome).or_default() += 1,
        }
    }

    /// Records the time from the decoded request to the response.
    pub fn took(&self, took: Duration) {
        self.durations.record(took);
    }

    fn each(&self, mut observe: impl FnMut(u64, &[KeyValue])) {
        let declared = self.declared.iter().enumerate();
        let declared = declared.map(|(counter, outcome)| (*outcome, self.counts.total(counter)));
        let others = lock(&self.others).clone();
        for ((code, reason), count) in declared.chain(others) {
            let labels = [("surface", self.name), ("code", code), ("reason", reason)];
            observe(count, &labels.map(|(name, value)| KeyValue::new(name, value)));
        }
    }
}

impl Metrics {
    /// Creates the check metrics of a surface. `name` must be unique. The series of the declared
    /// `outcomes`, pairs of a status code and a reason, exist from now on.
    pub fn surface(
        &self,
        name: &'static str,
        outcomes: impl IntoIterator<Item = (&'static str, &'static str)>,
    ) -> Arc<SurfaceMetrics> {
        let declared: Vec<_> = outcomes.into_iter().collect();
        let labels = [KeyValue::new("surface", name)];
        let surface = Arc::new(SurfaceMetrics {
            name,
            counts: ShardedCounters::new(declared.len()),
            declared,
            others: Mutex::default(),
            durations: BufferedHistogram::new(self.checks.duration.bind(&labels)),
        });
        lock(&self.checks.surfaces).push(Arc::clone(&surface));
        surface
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scrape_sees_all_outcomes_and_durations_so_far() {
        let (metrics, exposition) = Metrics::new().unwrap();
        let surface = metrics.surface("authz", [("OK", ""), ("UNAVAILABLE", "DRAINING")]);
        let shows = |line: &str| {
            let text = String::from_utf8(exposition.text().unwrap()).unwrap();
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        };
        shows(r#"keystead_checks_total{code="UNAVAILABLE",reason="DRAINING",surface="authz"} 0"#);
        for count in 1..200 {
            surface.answered("OK", "");
            surface.took(Duration::from_micros(20));
            if count % 50 == 1 {
                shows(&format!(
                    r#"keystead_checks_total{{code="OK",reason="",surface="authz"}} {count}"#
                ));
                shows(&format!(
                    r#"keystead_check_duration_seconds_count{{surface="authz"}} {count}"#
                ));
            }
        }
        surface.answered("NOT_FOUND", "");
        shows(r#"keystead_checks_total{code="NOT_FOUND",reason="",surface="authz"} 1"#);
    }
}
