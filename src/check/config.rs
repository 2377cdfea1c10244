//! The bounds of a check.

use std::{num::NonZeroUsize, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::DurationText;

/// The bounds of a check.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckConfig {
    /// How long a check may take before it ends as `UNAVAILABLE`; a shorter
    /// deadline of the caller is kept. Envoy waits for 200 ms by default, so
    /// that 150 ms leave time for the answer to say why.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1m"))]
    pub timeout: Duration,
    /// How many checks may wait for the store at once. One more is refused at
    /// once as `OVERLOADED`. It bounds the memory that waiting checks take; one
    /// that is answered from memory never waits and is never refused.
    #[schemars(range(max = 1_000_000))]
    pub max_waiting: NonZeroUsize,
}

impl Default for CheckConfig {
    fn default() -> Self {
        const MAX_WAITING: NonZeroUsize = NonZeroUsize::new(20_000).unwrap();
        Self { timeout: Duration::from_millis(150), max_waiting: MAX_WAITING }
    }
}
