//! How often the same line may be logged, so that nobody who is served can fill
//! the log: what is left out is counted, and said.

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

/// For how long lines of one kind are counted together.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// How many lines of one kind are logged in an interval: enough for a kind that
/// tells several tiers apart, each of which goes and comes back.
pub(super) const LINES_PER_INTERVAL: u64 = 10;

/// Bounds the lines of each kind. A kind is a place in the code that logs, so that
/// there are as many as the program has.
#[derive(Debug)]
pub(super) struct Limit {
    lines_per_interval: u64,
    kinds: Mutex<HashMap<Identifier, Window>>,
}

/// The lines of one kind in the interval that goes on.
#[derive(Debug)]
struct Window {
    began: Instant,
    logged: u64,
    left_out: Option<LeftOut>,
}

/// Lines of one kind that were not logged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LeftOut {
    lines: u64,
    level: Level,
    target: &'static str,
    /// The message of the first.
    message: String,
}

impl Limit {
    pub(super) fn new(lines_per_interval: u64) -> Self {
        Self { lines_per_interval, kinds: Mutex::default() }
    }

    /// Whether a line may be logged now. `left_out` describes the first that may
    /// not.
    fn admits(&self, kind: Identifier, now: Instant, left_out: impl FnOnce() -> LeftOut) -> bool {
        let mut kinds = self.kinds();
        let fresh = || Window { began: now, logged: 0, left_out: None };
        let window = kinds.entry(kind).or_insert_with(fresh);
        if window.left_out.is_none() && now.duration_since(window.began) >= INTERVAL {
            *window = fresh();
        }
        if window.logged < self.lines_per_interval {
            window.logged += 1;
            return true;
        }
        window.left_out.get_or_insert_with(left_out).lines += 1;
        false
    }

    /// Takes what was left out in intervals that have ended.
    fn ended(&self, now: Instant) -> Vec<LeftOut> {
        let mut ended = Vec::new();
        self.kinds().retain(|_, window| {
            let goes_on = now.duration_since(window.began) < INTERVAL;
            if !goes_on {
                ended.extend(window.left_out.take());
            }
            goes_on
        });
        ended
    }

    /// Logs how many lines were left out in intervals that have ended.
    pub(super) fn report(&self) {
        for LeftOut { lines, level, target, message } in self.ended(Instant::now()) {
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
        // What was left out is said for as many kinds as there are.
        metadata.target() == module_path!()
            || self.admits(metadata.callsite(), Instant::now(), || LeftOut::like(event, metadata))
    }
}

impl LeftOut {
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
    use crate::telemetry::log::queue::{Entrance, Queue};

    /// A place in the code that logs.
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

    fn line() -> LeftOut {
        LeftOut { lines: 0, level: Level::WARN, target: "test", message: "bad".to_owned() }
    }

    #[test]
    fn each_kind_has_so_many_lines_an_interval_and_the_rest_is_counted() {
        let (limit, start) = (Limit::new(2), Instant::now());
        let admitted = |name, now| limit.admits(kind(name), now, line);
        let of_ten = (0..10).filter(|_| admitted("one", start)).count();
        assert_eq!(of_ten, 2);
        assert!(admitted("two", start), "another kind is not held up");

        assert_eq!(limit.ended(start + INTERVAL / 2), []);
        assert_eq!(limit.ended(start + INTERVAL), [LeftOut { lines: 8, ..line() }]);
        assert_eq!(limit.ended(start + INTERVAL), [], "it is said once");
        assert!(admitted("one", start + INTERVAL));
    }

    #[test]
    fn what_was_left_out_is_never_forgotten() {
        let (limit, start) = (Limit::new(1), Instant::now());
        for seconds in 0..100 {
            limit.admits(kind("one"), start + Duration::from_secs(seconds), line);
        }
        // The one that says it was held up: what comes meanwhile is left out too.
        assert_eq!(limit.ended(start + INTERVAL * 10), [LeftOut { lines: 99, ..line() }]);
    }

    #[test]
    fn repeated_event_is_left_out_and_told_with_its_message() {
        let limit: &'static Limit = Box::leak(Box::new(Limit::new(1)));
        let queue: &'static Queue = Box::leak(Box::new(Queue::default()));
        let subscriber = tracing_subscriber::fmt()
            .with_writer(|| Entrance(queue))
            .with_ansi(false)
            .finish()
            .with(limit);
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..5 {
                tracing::warn!(number, "a stranger did it");
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
        assert!(text.contains("a stranger did it number=0"), "{text}");
        assert!(text.contains("repeated lines left out lines=4"), "{text}");
        assert!(text.contains(r#"like="a stranger did it""#), "{text}");
    }
}
