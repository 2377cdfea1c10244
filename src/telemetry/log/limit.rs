//! Rate limit per log statement, so that no client can fill the log. Suppressed lines are counted
//! and reported.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

/// The window over which lines of one kind are counted.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// How many lines of one kind are logged per interval: enough for a log statement that several
/// tiers share, each of which fails and recovers.
pub(super) const LINES_PER_INTERVAL: u64 = 10;

/// Limits the lines of each kind. A kind is a log statement (callsite), so their number is bounded
/// by the program.
#[derive(Debug)]
pub(super) struct Limit {
    lines_per_interval: u64,
    kinds: Mutex<HashMap<Identifier, Window>>,
}

/// The lines of one kind in the current interval.
#[derive(Debug)]
struct Window {
    began: Instant,
    logged: u64,
    suppressed: Option<Suppressed>,
}

/// Lines of one kind that were suppressed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Suppressed {
    lines: u64,
    level: Level,
    target: &'static str,
    /// The message of the first one.
    message: String,
}

impl Limit {
    pub(super) fn new(lines_per_interval: u64) -> Self {
        Self { lines_per_interval, kinds: Mutex::default() }
    }

    /// Whether a line may be logged now. `suppressed` describes the first line that may not.
    fn admits(
        &self,
        kind: Identifier,
        now: Instant,
        suppressed: impl FnOnce() -> Suppressed,
    ) -> bool {
        let mut kinds = self.kinds();
        let new_window = || Window { began: now, logged: 0, suppressed: None };
        let window = kinds.entry(kind).or_insert_with(new_window);
        if window.suppressed.is_none() && now.duration_since(window.began) >= INTERVAL {
            *window = new_window();
        }
        if window.logged < self.lines_per_interval {
            window.logged += 1;
            return true;
        }
        window.suppressed.get_or_insert_with(suppressed).lines += 1;
        false
    }

    /// Takes the suppressed lines of intervals that have ended.
    fn ended(&self, now: Instant) -> Vec<Suppressed> {
        let mut ended = Vec::new();
        self.kinds().retain(|_, window| {
            let current = now.duration_since(window.began) < INTERVAL;
            if !current {
                ended.extend(window.suppressed.take());
            }
            current
        });
        ended
    }

    /// Logs the number of suppressed lines of intervals that have ended.
    pub(super) fn report(&self) {
        for Suppressed { lines, level, target, message } in self.ended(Instant::now()) {
            if level <= Level::WARN {
                tracing::warn!(lines, of = target, like = message, "repeated lines left out");
            } else {
                tracing::info!(lines, of = target, like = message, "repeated lines left out");
            }
        }
    }

    fn kinds(&self) -> MutexGuard<'_, HashMap<Identifier, Window>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for &'static Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Never suppress the reports of `report`: there are at most as many as kinds.
        metadata.target() == module_path!()
            || self
                .admits(metadata.callsite(), Instant::now(), || Suppressed::like(event, metadata))
    }
}

impl Suppressed {
    fn like(event: &Event<'_>, metadata: &'static Metadata<'static>) -> Self {
        let mut message = Message(String::new());
        event.record(&mut message);
        let (level, target) = (*metadata.level(), metadata.target());
        Self { lines: 0, level, target, message: message.0 }
    }
}

/// The message of an event.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::{Callsite, callsite::DefaultCallsite, field::FieldSet, metadata::Kind};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry::log::queue::{Queue, QueueWriter};

    /// A log statement.
    fn kind(name: &'static str) -> Identifier {
        static ONE: DefaultCallsite = DefaultCallsite::new(&META);
        static TWO: DefaultCallsite = DefaultCallsite::new(&META);
        static META: Metadata<'static> = Metadata::new(
            "kind",
            "test",
            Level::WARN,
            None,
            None,
            None,
            FieldSet::new(&[], Identifier(&ONE)),
            Kind::EVENT,
        );
        let site: &'static dyn Callsite = if name == "one" { &ONE } else { &TWO };
        Identifier(site)
    }

    fn line() -> Suppressed {
        Suppressed { lines: 0, level: Level::WARN, target: "test", message: "bad".to_owned() }
    }

    #[test]
    fn each_kind_logs_up_to_its_limit_per_interval_and_counts_the_rest() {
        let (limit, start) = (Limit::new(2), Instant::now());
        let admitted = |name, now| limit.admits(kind(name), now, line);
        let of_ten = (0..10).filter(|_| admitted("one", start)).count();
        assert_eq!(of_ten, 2);
        assert!(admitted("two", start), "other kinds are not limited");

        assert_eq!(limit.ended(start + INTERVAL / 2), []);
        assert_eq!(limit.ended(start + INTERVAL), [Suppressed { lines: 8, ..line() }]);
        assert_eq!(limit.ended(start + INTERVAL), [], "it is reported once");
        assert!(admitted("one", start + INTERVAL));
    }

    #[test]
    fn suppressed_lines_stay_counted_until_they_are_reported() {
        let (limit, start) = (Limit::new(1), Instant::now());
        for seconds in 0..100 {
            limit.admits(kind("one"), start + Duration::from_secs(seconds), line);
        }
        // The interval lasts until it is reported: later lines are suppressed too.
        assert_eq!(limit.ended(start + INTERVAL * 10), [Suppressed { lines: 99, ..line() }]);
    }

    #[test]
    fn repeated_event_is_suppressed_and_reported_with_its_message() {
        let limit: &'static Limit = Box::leak(Box::new(Limit::new(1)));
        let queue: &'static Queue = Box::leak(Box::new(Queue::default()));
        let subscriber = tracing_subscriber::fmt()
            .with_writer(|| QueueWriter(queue))
            .with_ansi(false)
            .finish()
            .with(limit);
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..5 {
                tracing::warn!(number, "request failed");
            }
            for window in limit.kinds().values_mut() {
                window.began -= INTERVAL;
            }
            limit.report();
        });
        let mut out = Vec::new();
        queue.take(&mut out, Duration::ZERO);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("request failed number=0"), "{text}");
        assert!(text.contains("repeated lines left out lines=4"), "{text}");
        assert!(text.contains(r#"like="request failed""#), "{text}");
    }
}
