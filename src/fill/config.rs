//! Configuration of the fill.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The bounds of the fill: what happens on a miss.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FillConfig {
    /// Maximum number of queued lookups in each of the two lanes: keys known to be
    /// ours, and others. Checks of the same key share one lookup. A further lookup
    /// fails with `OVERLOADED` at once. A lookup waits for `check.timeout` at most:
    /// 10000 is far more than a store can answer in that time, and bounds the memory
    /// that a flood can take.
    #[schemars(range(max = 1_000_000))]
    pub max_queued: NonZeroUsize,
    /// Maximum number of keys in one query. A query takes the lookups that are queued
    /// when it gets a permit, and does not wait for more.
    #[schemars(range(max = 10_000))]
    pub batch_max: NonZeroUsize,
}

impl Default for FillConfig {
    fn default() -> Self {
        const MAX_QUEUED: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
        const BATCH_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();
        Self { max_queued: MAX_QUEUED, batch_max: BATCH_MAX }
    }
}
