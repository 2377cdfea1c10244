//! When absences are doubted.

use std::{num::NonZeroUsize, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::DurationText;

/// When the store is not believed: known keys that vanish.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SuspectConfig {
    /// Whether a row that is merely missing is doubted. Unset it to make a mass
    /// deletion in a `store.relation` count that was meant: restart with it unset,
    /// and set it again afterwards. In a store of its own the change table can say
    /// so (`docs/operations.md`).
    pub enabled: bool,
    /// How many known keys must be missing within `suspect.window` for the store
    /// to be suspect, if they are two fifths or more of those that are missing or
    /// were found since. Fewer are believed after `suspect.confirm_for`, once the
    /// store has shown that it has others. Also how many keys of which its newest
    /// changes speak must be missing, and be two fifths or more of them. Below the
    /// number of keys that one instance knows, or it can never be reached.
    #[schemars(range(max = 1000))]
    pub keys: NonZeroUsize,
    /// Within which time they are counted.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub window: Duration,
    /// How long a known key must be missing, and the store not suspect, before
    /// the store is believed. Until then the key goes on as stale-if-error.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub confirm_for: Duration,
}

impl Default for SuspectConfig {
    fn default() -> Self {
        const KEYS: NonZeroUsize = NonZeroUsize::new(5).unwrap();
        Self {
            enabled: true,
            keys: KEYS,
            window: Duration::from_secs(10),
            confirm_for: Duration::from_secs(5),
        }
    }
}
