//! The clocks that keys are judged by: ages use the monotonic clock, expiry uses the wall
//! clock. Time-outs and measurements use tokio's clock directly, which is the same
//! monotonic clock.

mod atomic_instant;
mod short_instant;

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use tokio::time::Instant;

pub use atomic_instant::AtomicInstant;
pub use short_instant::{CoarseInstant, ShortInstant, nanos};

/// The source of time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The clocks of the machine.
    #[default]
    System,
    /// A wall clock that is set by hand, for tests; the monotonic clock is tokio's, which
    /// tests may pause.
    Manual(ManualClock),
}

/// A wall clock that does not advance by itself.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows `start`, to the microsecond.
    #[must_use]
    pub fn at(start: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(start.as_microsecond())))
    }

    /// Advances the clock.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.0.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock {
    /// The wall-clock time.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        match self {
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
            Self::System => Timestamp::now(),
            Self::Manual(ManualClock(micros)) => {
                Timestamp::from_microsecond(micros.load(Ordering::Relaxed))
                    .unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// The monotonic time.
    #[must_use]
    pub fn monotonic(&self) -> Instant {
        Instant::now()
    }

    /// Both times at once.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment { wall: self.wall(), monotonic: self.monotonic() }
    }
}

/// One moment on both clocks, to convert times between them.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// On the wall clock.
    pub wall: Timestamp,
    /// On the monotonic clock.
    pub monotonic: Instant,
}

impl Moment {
    /// The wall-clock time of an instant, provided that the wall clock is not adjusted.
    #[must_use]
    pub fn wall_at(&self, instant: Instant) -> Timestamp {
        let moved = match instant.checked_duration_since(self.monotonic) {
            Some(after) => self.wall.checked_add(after),
            None => self.wall.checked_sub(self.monotonic - instant),
        };
        moved.unwrap_or(self.wall)
    }
}

/// Formats a duration for people: to the second from ten seconds on, to a hundredth of a
/// second from one second on, else to the millisecond, or to the microsecond below one.
#[must_use]
pub fn rounded(duration: Duration) -> humantime::FormattedDuration {
    let unit = match duration {
        long if long >= Duration::from_secs(10) => Duration::from_secs(1),
        seconds if seconds >= Duration::from_secs(1) => Duration::from_millis(10),
        short if short >= Duration::from_millis(1) => Duration::from_millis(1),
        _ => Duration::from_micros(1),
    };
    let units = (duration.as_nanos() + unit.as_nanos() / 2) / unit.as_nanos();
    humantime::format_duration(unit.saturating_mul(u32::try_from(units).unwrap_or(u32::MAX)))
}

/// Jitters a duration uniformly within ±`share`, so that what starts together does not
/// end together.
///
/// `share` is between 0 and 1. If the operating system provides no randomness, returns
/// the duration unchanged.
#[must_use]
pub fn jittered(duration: Duration, share: f64) -> Duration {
    let drawn = getrandom::u32().unwrap_or(u32::MAX / 2);
    duration.mul_f32(spread(drawn, share))
}

/// Maps a uniformly drawn number to a uniform factor in 1 ± `share`; `share` is between
/// 0 and 1.
#[must_use]
pub fn spread(drawn: u32, share: f64) -> f32 {
    debug_assert!((0.0..=1.0).contains(&share));
    let unit = f64::from(drawn) / f64::from(u32::MAX);
    #[expect(clippy::cast_possible_truncation, reason = "exact enough to spread")]
    let factor = (1.0 + share * (2.0 * unit - 1.0)) as f32;
    factor
}

/// The schema of a duration in the configuration: only a stand-in for `Duration`.
pub(crate) enum DurationText {}

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "title": "a length of time",
            "description": "Numbers with units, such as `100ms`, `30s`, `5m` or `1h 30m`.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instant_converts_to_wall_clock_time() {
        let now = Clock::System.moment();
        let minute = Duration::from_mins(1);
        assert_eq!(now.wall_at(now.monotonic), now.wall);
        assert_eq!(now.wall_at(now.monotonic + minute), now.wall + minute);
        assert_eq!(now.wall_at(now.monotonic - minute), now.wall - minute);
    }

    #[test]
    fn jitter_stays_within_its_share_and_varies() {
        let base = Duration::from_secs(10);
        let drawn: Vec<_> = (0..200).map(|_| jittered(base, 0.1)).collect();
        assert!(drawn.iter().all(|d| (9.0..=11.0).contains(&d.as_secs_f64())));
        assert!(drawn.iter().any(|d| *d < base) && drawn.iter().any(|d| *d > base));
    }
}
