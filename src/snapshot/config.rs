//! Configuration of the snapshot.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::DurationText;

/// The snapshot: the cache on disk, so that a restart during a store outage serves warm keys.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotConfig {
    /// Path of the snapshot file, on a local disk that outlives a restart, such as
    /// `/var/lib/keystead/snapshot`. Six more files are kept beside it, with the suffixes
    /// `.changes`, `.end`, `.lock` and, during writes, `.new`. Instances must not share it.
    /// Unset: no snapshot. SQLite needs none, as its store is a local file.
    #[schemars(title = "a path")]
    pub path: Option<PathBuf>,
    /// Interval between snapshots, with ±10 % jitter; a last one is written at shutdown. After
    /// a crash, a key first seen since the last snapshot is not warm; a key that this instance
    /// knew to have ended is not served. Writes about a hundred bytes per typical key.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "100ms", "x-maximum" = "1day"))]
    pub every: Duration,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self { path: None, every: Duration::from_secs(30) }
    }
}
