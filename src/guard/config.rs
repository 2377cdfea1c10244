//! The bounds of the guard.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::DurationText;

/// The bounds of the guard: how much work may reach the store.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GuardConfig {
    /// How many calls of this instance may be at the store at once, whatever
    /// the rate of misses. Further calls wait in turn, as long as there would
    /// still be time to ask the store, and end as `STORE_SATURATED`. An instance
    /// opens as many connections, one more for the feed, and two more where
    /// `listen.control` is set. 8 keep a store with a network round trip of 1 ms
    /// busy; multiply 9, or 11 with `listen.control`, by the number of instances
    /// when you set `max_connections` of the server.
    #[schemars(range(max = 1024))]
    pub max_in_flight: NonZeroUsize,
    /// How long one call to the store may take. Then it is given up and ends as
    /// `STORE_TIMEOUT`. Must be shorter than `check.timeout`, so that a check can
    /// still say why there is no answer.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1m"))]
    pub query_timeout: Duration,
    /// When a store that fails is left alone, and how it is tried again.
    pub breaker: BreakerConfig,
}

impl Default for GuardConfig {
    fn default() -> Self {
        const MAX_IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(8).unwrap();
        Self {
            max_in_flight: MAX_IN_FLIGHT,
            query_timeout: Duration::from_millis(100),
            breaker: BreakerConfig::default(),
        }
    }
}

impl GuardConfig {
    /// From which time on a call counts as slow.
    #[must_use]
    pub fn slow_call(&self) -> Duration {
        self.breaker.slow_call.unwrap_or(self.query_timeout * 3 / 4)
    }
}

/// The breaker before the store. While it is open, nothing is sent to the store,
/// keys that are in memory go on, and others are told `BREAKER_OPEN` at once
/// instead of waiting for a failure. Calls that found the store saturated do not
/// count, nor do those that were given up by whoever made them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// How far back calls count, in tenths of it: a call is forgotten when
    /// between nine tenths and the whole of it have passed. 5 s notice an outage
    /// in its first second under load, and forget a hiccup soon.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "100ms", "x-maximum" = "10m"))]
    pub window: Duration,
    /// How many calls must have ended within the window before they are judged.
    /// 10 are more than the probe alone makes in 5 s, so that where there is no
    /// load the true cause is told, and are soon reached where there is.
    #[schemars(range(max = 1_000_000))]
    pub min_calls: NonZeroU32,
    /// Which share of the calls must fail for the breaker to open. At one half,
    /// every second caller waits in vain already.
    #[schemars(range(min = 0.01, max = 1.0))]
    pub failure_ratio: f64,
    /// From which time on a call is slow, also one that fails. Must be shorter
    /// than `store.guard.query_timeout`. Not set, it is three quarters of that. To
    /// judge by failures alone, set it just below that.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1m"))]
    pub slow_call: Option<Duration>,
    /// Which share of the calls must be slow for the breaker to open. 0.8, as a
    /// store that is slow still answers: it is left alone when hardly a call is
    /// as fast as it should be, so that those who wait get no place in time.
    #[schemars(range(min = 0.01, max = 1.0))]
    pub slow_ratio: f64,
    /// How long it is open the first time, spread by ±20 %. Each time that the
    /// store fails again before the breaker has let everything through again, it
    /// is open for twice as long. 500 ms are long enough for a failover of a
    /// proxy, and too short for a person to notice.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "10m"))]
    pub open_for: Duration,
    /// How long it is open at most, spread by ±20 %: about how long the end of an
    /// outage may go unnoticed. With 2 s, two attempts fall into the 10 s in which
    /// all should be well again, should the first meet a connection that is only
    /// being made. Not shorter than `store.guard.breaker.open_for`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "10m"))]
    pub max_open_for: Duration,
    /// How many calls are let through to try the store after that. All of them
    /// must be answered, and none slowly, for the breaker to close. 3 tell a store
    /// that is back from one that happened to answer, and burden none.
    #[schemars(range(max = 1024))]
    pub half_open_calls: NonZeroUsize,
    /// How long it takes after closing until all places at the store are given
    /// out again, beginning with `half_open_calls` of them. 2 s, as a store that
    /// has just started has its own caches to fill.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "0s", "x-maximum" = "10m"))]
    pub ramp_up_for: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        const MIN_CALLS: NonZeroU32 = NonZeroU32::new(10).unwrap();
        const HALF_OPEN_CALLS: NonZeroUsize = NonZeroUsize::new(3).unwrap();
        Self {
            window: Duration::from_secs(5),
            min_calls: MIN_CALLS,
            failure_ratio: 0.5,
            slow_call: None,
            slow_ratio: 0.8,
            open_for: Duration::from_millis(500),
            max_open_for: Duration::from_secs(2),
            half_open_calls: HALF_OPEN_CALLS,
            ramp_up_for: Duration::from_secs(2),
        }
    }
}
