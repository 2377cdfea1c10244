//! How changes are followed.

use std::{num::NonZeroU32, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::DurationText;

/// How many intervals the feed may be silent before its word is no longer good:
/// one is the rule, one may be late, and one is for a reconnect.
const GRACE_INTERVALS: u32 = 3;

/// The feed: how changes reach the cache.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FeedConfig {
    /// How often the store is asked for new changes where it cannot announce
    /// them: SQLite, PostgreSQL behind a pooler that hands out another connection
    /// for every transaction, or when announcements do not arrive. One cheap
    /// statement each time, on every instance; a revoked key goes on working for
    /// about as long at most, so that 25 ms keep 99 of 100 revocations under
    /// 50 ms.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1m"))]
    pub poll_every: Duration,
    /// How often an instance sends a word to itself the way that changes are
    /// announced, and looks for changes whether any were announced or not: about
    /// the longest time that a revoked key goes on working when its announcement
    /// was lost. When the words do not come back, the store is asked every
    /// `feed.poll_every`. PostgreSQL only.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "1m"))]
    pub heartbeat_every: Duration,
    /// How often an instance writes a change that changes no key, a canary, to
    /// measure how long a revocation takes to reach it, and to notice when none
    /// can be written. One small transaction each time, on every instance. After
    /// one that failed the next is written within a second.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub canary_every: Duration,
    /// How many changes are read one after the other after the connection was
    /// lost, or after an import. Where there are more, the newest are followed
    /// on, and every key in memory is asked for again.
    #[schemars(range(max = 100_000_000))]
    pub max_replay: NonZeroU32,
    /// How many keys a second are asked for again when changes were missed, so
    /// that the store has time for everything else. A key whose turn has not come
    /// is fresh for `cache.fresh_for` at most; the next check then asks for it
    /// again, and is itself answered from memory within `cache.revalidate_for`.
    #[schemars(range(max = 1_000_000))]
    pub revalidate_rate: NonZeroU32,
}

impl FeedConfig {
    /// How long the feed may be silent before its word is no longer good.
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
