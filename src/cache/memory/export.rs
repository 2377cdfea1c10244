//! What outlives the process: records and tombstones, out of the memory and into it.

use jiff::Timestamp;
use tokio::time::Instant;

use super::Memory;
use crate::{
    cache::{Tombstone, entry::Entry},
    key::Digest,
    store::{Known, Profile},
};

impl Memory {
    /// All records with the times when the store vouched for them, in no order.
    pub fn export(&self) -> impl Iterator<Item = (Digest, Known, Instant)> {
        let parts = |(digest, Entry { known, validated_at }): (Digest, Entry)| {
            (digest, known, validated_at.into())
        };
        self.records.iter().map(parts)
    }

    /// Of profiles with the same content, the one that records in here share.
    #[must_use]
    pub fn shared(&self, profile: &Profile) -> Profile {
        self.profiles.shared(profile)
    }

    /// Puts in a record that the store vouched for at `validated_at`, which may
    /// lie before the start of this process, unless its key is known to have ended. Its
    /// profile is one that
    /// [`shared`](Self::shared) gave. For a memory that nobody else fills yet.
    pub fn restore(&self, digest: Digest, known: Known, validated_at: Instant, now: Timestamp) {
        if self.tombstones.ends(&digest, &known) {
            return;
        }
        let entry = Entry::new(known, validated_at.into());
        if entry.is_usable(now) {
            self.suspicion.introduce(digest);
        }
        self.records.insert(digest, entry);
    }

    /// What is known of keys that have ended, the oldest first.
    #[must_use]
    pub fn tombstones(&self) -> Vec<(Digest, Tombstone)> {
        self.tombstones.all()
    }

    /// Puts up a tombstone from before the start of this process, and removes a record
    /// that it outranks.
    pub fn restore_tombstone(&self, digest: Digest, tombstone: Tombstone) {
        self.tombstones.put(digest, tombstone);
        let ends = |entry: &Entry| self.tombstones.ends(&digest, &entry.known);
        self.records.remove_if(&digest, ends);
    }
}
