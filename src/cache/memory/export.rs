//! What outlives the process: records and tombstones, out of the memory and into it.

use jiff::Timestamp;
use tokio::time::Instant;

use super::Memory;
use crate::{
    cache::{Tombstone, entry::Entry},
    key::{CompactKey, Digest, Profile},
    store::Change,
};

/// One thing that outlives the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exported {
    /// A record, and the time when the store vouched for it.
    Record(Digest, CompactKey, Instant),
    /// What is known of a key that has ended.
    Tombstone(Digest, Tombstone),
}

impl Memory {
    /// All records, in no order, and then all tombstones that there are by then, in the
    /// order in which they make room.
    pub fn export(&self) -> impl Iterator<Item = Exported> {
        let parts = |(digest, Entry { known, validated_at }): (Digest, Entry)| {
            Exported::Record(digest, known, validated_at.into())
        };
        let tombstones = std::iter::once_with(|| self.tombstones.all()).flatten();
        let ended = |(digest, tombstone)| Exported::Tombstone(digest, tombstone);
        self.records.iter().map(parts).chain(tombstones.map(ended))
    }

    /// Of profiles with the same content, the one that records in here share.
    #[must_use]
    pub fn shared(&self, profile: &Profile) -> Profile {
        self.profiles.shared(profile)
    }

    /// Puts in a record that the store vouched for at `validated_at`, which may
    /// lie before the start of this process. Its profile is one that
    /// [`shared`](Self::shared) gave. For a memory that nobody else fills yet, before
    /// tombstones are put up in it.
    pub fn restore(
        &self,
        digest: Digest,
        known: CompactKey,
        validated_at: Instant,
        now: Timestamp,
    ) {
        let entry = Entry::new(known, validated_at.into());
        if entry.is_usable(now) {
            self.suspicion.introduce(digest);
        }
        self.records.insert(digest, entry);
    }

    /// Puts up a tombstone from before the start of this process, and removes a record
    /// that it outranks.
    pub fn restore_tombstone(&self, digest: Digest, tombstone: Tombstone) {
        self.tombstones.put(digest, tombstone);
        let ends = |entry: &Entry| self.tombstones.ends(&digest, &entry.known);
        if self.records.remove_if(&digest, ends).is_some() {
            self.suspicion.dismiss(&digest);
        }
    }

    /// Takes in a change from before the start of this process, of a key that is not
    /// restored.
    pub fn restore_change(&self, change: &Change) {
        self.tombstones.change(change);
    }
}
