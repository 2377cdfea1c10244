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
    /// Maximum number of concurrent calls of this instance to the store, whatever
    /// the rate of misses. Further calls wait in FIFO order while there is still
    /// time to query the store, then fail with `STORE_SATURATED`. An instance
    /// opens as many connections, one more for the feed, and two more where
    /// `listen.control` is set. 8 keep a store with a network round trip of 1 ms
    /// busy; multiply 9, or 11 with `listen.control`, by the number of instances
    /// when you set `max_connections` of the server.
    #[schemars(range(max = 1024))]
    pub max_in_flight: NonZeroUsize,
    /// Time-out of one call to the store, after which it fails with `STORE_TIMEOUT`.
    /// Must be shorter than `check.timeout`, so that a check can still report the
    /// cause.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1m"))]
    pub query_timeout: Duration,
    /// When the circuit breaker opens, and how it probes the store.
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
    /// Duration from which a call counts as slow.
    #[must_use]
    pub fn slow_call(&self) -> Duration {
        self.breaker.slow_call.unwrap_or(self.query_timeout * 3 / 4)
    }
}

/// The circuit breaker of the store. While it is open, no call reaches the store:
/// cached keys are served, and checks of others fail with `BREAKER_OPEN` at once
/// instead of waiting for a failure. Calls that found the store saturated and calls
/// that their callers cancelled do not count.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Length of the sliding window in which calls count. It slides in tenths: a call
    /// leaves it after nine tenths to the whole of its length. 5 s detect an outage in
    /// its first second under load, and forget a hiccup soon.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "100ms", "x-maximum" = "10m"))]
    pub window: Duration,
    /// Minimum number of calls in the window for the breaker to open. 10 are more
    /// than the probe alone makes in 5 s, so that checks report the true cause where
    /// there is no load, and are soon reached where there is.
    #[schemars(range(max = 1_000_000))]
    pub min_calls: NonZeroU32,
    /// Ratio of failed calls at which the breaker opens. At one half, every second
    /// caller already waits in vain.
    #[schemars(range(min = 0.01, max = 1.0))]
    pub failure_ratio: f64,
    /// Duration from which a call is slow, failed or not. Must be shorter than
    /// `store.guard.query_timeout`; the default is three quarters of that. To open
    /// on failures alone, set it just below that.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1m"))]
    pub slow_call: Option<Duration>,
    /// Ratio of slow calls at which the breaker opens. 0.8, as a slow store still
    /// answers: the breaker opens only when hardly any call is fast enough, so that
    /// waiting calls get no permit in time.
    #[schemars(range(min = 0.01, max = 1.0))]
    pub slow_ratio: f64,
    /// How long the breaker stays open the first time, with a jitter of ±20 %. The
    /// time doubles each time that the store fails again before the ramp-up is over.
    /// 500 ms are long enough for a failover of a
    /// proxy, and too short for a person to notice.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "10m"))]
    pub open_for: Duration,
    /// Maximum open time, with a jitter of ±20 %: about how long the end of an outage
    /// may go unnoticed. 2 s allow two attempts within the 10 s in which service
    /// should recover, in case the first meets a connection that is still being
    /// opened. Not shorter than `store.guard.breaker.open_for`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "10m"))]
    pub max_open_for: Duration,
    /// Number of probes in the half-open state. The breaker closes if all of them are
    /// answered and none is slow. 3 tell a store that is back from one that happened
    /// to answer, and burden none.
    #[schemars(range(max = 1024))]
    pub half_open_calls: NonZeroUsize,
    /// How long the number of permits takes after closing to grow from
    /// `half_open_calls` to `max_in_flight`. 2 s, as a store that has just started
    /// has to fill its own caches.
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
