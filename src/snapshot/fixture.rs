//! Helpers for the snapshot tests.

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::time::Instant;

use super::{Refusal, Restored, Seals, keeper::Keeper};
use crate::{
    cache::{CacheConfig, Coverage, Memory},
    key::{Digest, KeyRecord, KeyRing, Prefix, Revision},
    store::{Answer, Change, ChangeKind, Position, Row, StoreIdentity, fake::record},
    suspect::{SuspectConfig, Suspicion},
    tier::Observation,
    time::{Clock, Moment},
};

pub(super) const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
pub(super) const OTHER_SECRET: &str =
    "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

pub(super) const HOUR: Duration = Duration::from_hours(1);

pub(super) fn seals(secrets: &[&str]) -> Seals {
    Seals::of(&KeyRing::parse(&secrets.join("\n"), Prefix::default(), true).unwrap())
}

pub(super) fn store(number: u8) -> StoreIdentity {
    StoreIdentity::from_bytes([number; StoreIdentity::LEN])
}

pub(super) fn digest(number: u64) -> Digest {
    Digest::sha256_of(&number.to_le_bytes())
}

pub(super) fn empty() -> Memory {
    let most = NonZeroUsize::new(10_000).unwrap();
    let (fresh_for, absent_for) = (2 * HOUR, HOUR);
    let config = CacheConfig {
        max_entries: most,
        max_absent: most,
        fresh_for,
        absent_for,
        ..CacheConfig::default()
    };
    let coverage = Arc::new(Coverage::new(HOUR));
    let suspicion = Arc::new(Suspicion::new(SuspectConfig::default()));
    Memory::new(config, coverage, suspicion, Clock::System)
}

/// A cache of `count` keys, validated now.
pub(super) fn memory(count: u64) -> Memory {
    let memory = empty();
    for number in 0..count {
        put(&memory, number, &record(&format!("p{number}"), 1), Instant::now());
    }
    memory
}

/// Caches a key that the store validated at `validated_at`.
pub(super) fn put(memory: &Memory, number: u64, record: &KeyRecord, validated_at: Instant) {
    memory.take(digest(number), &Answer::Found(record.into()), validated_at).unwrap();
}

/// A temporary folder for the snapshot files.
pub(super) struct Folder {
    pub(super) folder: TempDir,
    pub(super) path: PathBuf,
}

impl Folder {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join("snapshot"), folder }
    }

    pub(super) fn beside(&self, more: &str) -> PathBuf {
        self.folder.path().join(format!("snapshot{more}"))
    }

    pub(super) fn keeper(&self) -> Keeper {
        Keeper::new(self.path.clone(), store(1), seals(&[SECRET]))
    }

    /// Restores as the next process would, then releases the files.
    pub(super) fn restored(&self) -> Result<Option<(Memory, Restored)>, Refusal> {
        restored(&mut self.keeper(), Clock::System.moment())
    }

    pub(super) fn refused(&self) -> Refusal {
        self.restored().expect_err("the snapshot should be refused")
    }

    /// Sorted names of all files.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

pub(super) fn restored(
    keeper: &mut Keeper,
    now: Moment,
) -> Result<Option<(Memory, Restored)>, Refusal> {
    let memory = empty();
    Ok(keeper.restore(&memory, HOUR, now)?.map(|restored| (memory, restored)))
}

/// Returns a position with a landmark.
pub(super) fn at(position: i64) -> Position {
    let revision = Revision(position);
    let landmark = Row { revision, digest: digest(9), kind: Some(ChangeKind::Updated) };
    Position { revision, landmark: Some(landmark) }
}

/// Writes a snapshot of a cache at a position.
pub(super) fn write_at(keeper: &mut Keeper, memory: &Memory, position: i64) {
    let now = Clock::System.moment();
    let draft = keeper.begin(at(position), Some(now.wall), now).unwrap();
    draft.write(memory.export(), || true).unwrap();
    keeper.finish(&draft).unwrap();
}

pub(super) fn note(keeper: &mut Keeper, changes: impl IntoIterator<Item = (u64, i64)>) {
    let changes = changes.into_iter().map(|(key, revision)| updated(key, revision));
    keeper.note(&changes.collect::<Vec<_>>()).unwrap();
}

pub(super) fn updated(key: u64, revision: i64) -> Change {
    Change { revision: Revision(revision), digest: digest(key), kind: ChangeKind::Updated }
}

/// Which of the first hundred keys are cached.
pub(super) fn keys(memory: &Memory) -> Vec<u64> {
    (0..100).filter(|number| known(memory, *number).is_some()).collect()
}

pub(super) fn known(memory: &Memory, number: u64) -> Option<Observation> {
    memory.look(&digest(number), Instant::now()).map(|held| held.observation)
}
