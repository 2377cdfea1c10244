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
    /// make room. A typical record takes a few hundred bytes, so that a million
    /// take a few hundred megabytes.
    #[schemars(range(max = 100_000_000))]
    pub max_entries: NonZeroUsize,
    /// How many absences are kept: digests of which the store said that there
    /// is no such key. At the bound the ones that are used least make room. They
    /// have a bound of their own, so that a flood of unknown keys cannot push
    /// out known ones.
    #[schemars(range(max = 100_000_000))]
    pub max_absent: NonZeroUsize,
    /// How long a record is served without asking the store again, counted from
    /// when the store was asked and spread by ±10 %. Longer means fewer queries;
    /// a change that the feed did not bring is noticed after this time.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1day"))]
    pub fresh_for: Duration,
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
            absent_for: Duration::from_secs(5),
        }
    }
}
