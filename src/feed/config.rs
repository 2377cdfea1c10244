//! Configuration of the feed.

use std::{num::NonZeroU32, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::DurationText;

/// Number of silent intervals after which coverage ends: one is normal, one may be late, and
/// one is for a reconnect.
const GRACE_INTERVALS: u32 = 3;

/// The feed, which applies changes of the store to the cache.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FeedConfig {
    /// Poll interval where the store cannot announce changes: SQLite, PostgreSQL behind a
    /// transaction-mode pooler, or announcements that do not arrive. Each poll is one cheap
    /// statement per instance. A revoked key keeps working for about this long at most; 25 ms
    /// keep 99 of 100 revocations under 50 ms.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1m"))]
    pub poll_every: Duration,
    /// Interval between heartbeats. With each, an instance sends itself an announcement and
    /// reads new changes: about the longest time that a revoked key keeps working if its
    /// announcement was lost. While heartbeats do not return, the store is polled every
    /// `feed.poll_every`. PostgreSQL only.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "1m"))]
    pub heartbeat_every: Duration,
    /// Interval between canaries: changes of no key that measure how long a revocation takes to
    /// reach the instance, and detect when none can be written. Each is one small transaction
    /// per instance. After a failed one, the next follows within a second.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub canary_every: Duration,
    /// Maximum number of changes to replay after a lost connection or an import. Beyond it, the
    /// feed skips to the newest change and revalidates every cached key.
    #[schemars(range(max = 100_000_000))]
    pub max_replay: NonZeroU32,
    /// Maximum number of keys revalidated per second after missed changes, which leaves the
    /// store capacity for other work. A key still waiting is fresh for `cache.fresh_for` at
    /// most; the next check then revalidates it, and is answered from the cache within
    /// `cache.revalidate_for`.
    #[schemars(range(max = 1_000_000))]
    pub revalidate_rate: NonZeroU32,
}

impl FeedConfig {
    /// How long the feed may be silent before coverage ends.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.heartbeat_every.max(self.poll_every) * GRACE_INTERVALS
    }
}

impl Default for FeedConfig {
    fn default() -> Self {
        const MAX_REPLAY: NonZeroU32 = NonZeroU32::new(100_000).unwrap();
        const REVALIDATE_RATE: NonZeroU32 = NonZeroU32::new(2_000).unwrap();
        Self {
            poll_every: Duration::from_millis(25),
            heartbeat_every: Duration::from_secs(1),
            canary_every: Duration::from_secs(5),
            max_replay: MAX_REPLAY,
            revalidate_rate: REVALIDATE_RATE,
        }
    }
}
