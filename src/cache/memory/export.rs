//! Exports and restores records and tombstones, which outlive the process.

use jiff::Timestamp;
use tokio::time::Instant;

use super::Memory;
use crate::{
    cache::{Tombstone, entry::Entry},
    key::{CompactKey, Digest, Profile},
    store::Change,
};

/// An exported record or tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exported {
    /// A record, and the time when the store vouched for it.
    Record(Digest, CompactKey, Instant),
    /// The tombstone of a key.
    Tombstone(Digest, Tombstone),
}

impl Memory {
    /// All records, in no order, then all tombstones that exist by then, in eviction
    /// order.
    pub fn export(&self) -> impl Iterator<Item = Exported> {
        let parts = |(digest, Entry { known, validated_at }): (Digest, Entry)| {
            Exported::Record(digest, known, validated_at.into())
        };
        let tombstones = std::iter::once_with(|| self.tombstones.all()).flatten();
        let ended = |(digest, tombstone)| Exported::Tombstone(digest, tombstone);
        self.records.iter().map(parts).chain(tombstones.map(ended))
    }

    /// Returns the copy of a profile that cached records share.
    #[must_use]
    pub fn shared(&self, profile: &Profile) -> Profile {
        self.profiles.shared(profile)
    }

    /// Restores a record that the store vouched for at `validated_at`, possibly before
    /// the start of this process. Its profile must come from [`shared`](Self::shared).
    /// To be called before anything else fills the cache and before tombstones are
    /// restored.
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

    /// Restores a tombstone from before the start of this process, and removes a record
    /// that it outranks.
    pub fn restore_tombstone(&self, digest: Digest, tombstone: Tombstone) {
        self.tombstones.put(digest, tombstone);
        let ends = |entry: &Entry| self.tombstones.ends(&digest, &entry.known);
        if self.records.remove_if(&digest, ends).is_some() {
            self.suspicion.dismiss(&digest);
        }
    }

    /// Applies a change from before the start of this process to the tombstones, for a
    /// key that is not restored.
    pub fn restore_change(&self, change: &Change) {
        self.tombstones.change(change);
    }
}
