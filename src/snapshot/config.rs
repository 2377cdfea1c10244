//! Whether there is a snapshot, and how often.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::DurationText;

/// The snapshot: what is in memory, kept in a file, so that a restart during an
/// outage of the store serves warm keys.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotConfig {
    /// A file on a disk of this instance that outlives a restart, such as
    /// `/var/lib/keystead/snapshot`; six more are kept beside it, with `.changes`,
    /// `.end`, `.lock` and, while they are written, `.new` added to the name. No two
    /// instances may share it. Not set, there is no snapshot. With SQLite there is
    /// no need for one: the store itself is a local file.
    #[schemars(title = "a path")]
    pub path: Option<PathBuf>,
    /// How often it is written, spread by ±10 %, and once more at the end. A key
    /// that was first seen since the last time is not warm after a crash; one that has
    /// ended since then, as far as this instance knew, is not served.
    /// Writes about a hundred bytes for each typical key.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "100ms", "x-maximum" = "1day"))]
    pub every: Duration,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self { path: None, every: Duration::from_secs(30) }
    }
}
