//! The bounds of the memory.

use std::{num::NonZeroUsize, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::DurationText;

/// The memory: what the store said and is still believed.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// How many records are kept. At the bound the ones that are used least
    /// make room. A typical record takes about 200 bytes, so that a million take
    /// about 200 MB. Scopes, networks, audiences and metadata are kept once for
    /// all keys with the same ones. For keys that have much of their own each
    /// further kilobyte counts as one record more, and scopes, networks, audiences
    /// and metadata count three times, as they are also kept as they are answered.
    #[schemars(range(max = 100_000_000))]
    pub max_entries: NonZeroUsize,
    /// How many absences are kept: digests of which the store said that there
    /// is no such key. At the bound the ones that are used least make room. They
    /// have a bound of their own, so that a flood of unknown keys cannot push
    /// out known ones.
    #[schemars(range(max = 100_000_000))]
    pub max_absent: NonZeroUsize,
    /// How long a record is fresh when the feed does not vouch for it, counted
    /// from when the store was asked and spread by ±10 %: it is served, and the
    /// store is not asked. Longer means fewer queries, and that a change is
    /// noticed later while the feed is cut.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1day"))]
    pub fresh_for: Duration,
    /// How long a record is fresh while the feed is healthy, and has been since
    /// the store was asked; spread by ±10 %. The feed brings every change, so that
    /// this only bounds what a feed that is wrong could do.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1day"))]
    pub feed_fresh_for: Duration,
    /// How long a record that is no longer fresh is still served at once, while
    /// the store is asked behind it (stale-while-revalidate). An idle key that was
    /// revoked while the feed was cut is served once more within this time.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "0s", "x-maximum" = "1day"))]
    pub revalidate_for: Duration,
    /// The bound of an outage: until a record is this old it is served although
    /// the store cannot vouch for it again. Nothing that is not fresh is served
    /// beyond it. A key never outlives its own expiry.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "0s", "x-maximum" = "30days"))]
    pub stale_if_error_for: Duration,
    /// How long a check waits for the store when it has a record that is past
    /// `cache.revalidate_for`. Then it is served as stale-if-error, and the answer
    /// is taken when it comes. While the store is in doubt a check does not wait.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "0s", "x-maximum" = "10s"))]
    pub revalidate_wait: Duration,
    /// How long an absence is believed, spread by ±10 %. Short, because it is
    /// how long a key that was just created may be refused when the feed did not
    /// bring it.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1day"))]
    pub absent_for: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        const MAX_ENTRIES: NonZeroUsize = NonZeroUsize::new(1_000_000).unwrap();
        const MAX_ABSENT: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();
        Self {
            max_entries: MAX_ENTRIES,
            max_absent: MAX_ABSENT,
            fresh_for: Duration::from_secs(30),
            feed_fresh_for: Duration::from_mins(10),
            revalidate_for: Duration::from_mins(5),
            stale_if_error_for: Duration::from_hours(1),
            revalidate_wait: Duration::from_millis(20),
            absent_for: Duration::from_secs(5),
        }
    }
}
