//! Snapshot metrics.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

use super::Metrics;

/// Result of loading the snapshot at startup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotLoad {
    /// Its entries were restored into the cache.
    Restored,
    /// There was no snapshot.
    None,
    /// It was not used.
    Refused,
}

impl SnapshotLoad {
    const ALL: [Self; 3] = [Self::Restored, Self::None, Self::Refused];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::None => "none",
            Self::Refused => "refused",
        }
    }
}

/// The instruments.
#[derive(Debug)]
pub(super) struct SnapshotMetrics {
    writes: Counter<u64>,
    loads: Counter<u64>,
    changes_lost: Counter<u64>,
}

impl SnapshotMetrics {
    pub(super) fn new(meter: &Meter) -> Self {
        let counter =
            |name, description| meter.u64_counter(name).with_description(description).build();
        Self {
            writes: counter("keystead_snapshot_writes", "Attempts to write a snapshot, by result."),
            loads: counter(
                "keystead_snapshot_loads",
                "Result of loading the snapshot when this process started.",
            ),
            changes_lost: counter(
                "keystead_snapshot_changes_lost",
                "Changes that could not be journaled; the snapshot was removed.",
            ),
        }
    }

    pub(super) fn start_at_zero(&self) {
        for written in [true, false] {
            self.writes.add(0, &[written_label(written)]);
        }
        for load in SnapshotLoad::ALL {
            self.loads.add(0, &[KeyValue::new("result", load.as_str())]);
        }
        self.changes_lost.add(0, &[]);
    }
}

impl Metrics {
    /// Counts an attempt to write a snapshot.
    pub fn snapshot_write(&self, written: bool) {
        self.snapshot.writes.add(1, &[written_label(written)]);
    }

    /// Counts the result of loading the snapshot at startup.
    pub fn snapshot_load(&self, load: SnapshotLoad) {
        self.snapshot.loads.add(1, &[KeyValue::new("result", load.as_str())]);
    }

    /// Counts changes that could not be journaled.
    pub fn snapshot_changes_lost(&self, count: usize) {
        self.snapshot.changes_lost.add(u64::try_from(count).unwrap_or(u64::MAX), &[]);
    }

    /// Exports the age of the snapshot in seconds, read at every scrape.
    pub fn observe_snapshot_age(&self, seconds: impl Fn() -> f64 + Send + Sync + 'static) {
        self.observe_gauge(
            "keystead_snapshot_age_seconds",
            "",
            "Age of the snapshot on disk; without one, of this process.",
            move || Some(seconds()),
        );
    }
}

fn written_label(written: bool) -> KeyValue {
    KeyValue::new("result", if written { "written" } else { "failed" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_series_exist_from_the_start_and_count() {
        let (metrics, exposition) = Metrics::new().unwrap();
        metrics.observe_snapshot_age(|| 2.5);
        metrics.snapshot_write(false);
        metrics.snapshot_load(SnapshotLoad::Refused);
        metrics.snapshot_changes_lost(3);
        let text = String::from_utf8(exposition.text().unwrap()).unwrap();
        for line in [
            r#"keystead_snapshot_writes_total{result="written"} 0"#,
            r#"keystead_snapshot_writes_total{result="failed"} 1"#,
            r#"keystead_snapshot_loads_total{result="restored"} 0"#,
            r#"keystead_snapshot_loads_total{result="none"} 0"#,
            r#"keystead_snapshot_loads_total{result="refused"} 1"#,
            "keystead_snapshot_changes_lost_total 3",
            "keystead_snapshot_age_seconds 2.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
