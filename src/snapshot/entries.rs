//! Records in one block of a snapshot: entries and tombstones.
//!
//! ```text
//! records in sequence: length · type 1 · digest 32 · one of
//! 0, entry: validated_at 8 · profile number ·
//!    the profile, if its number is new in this block: length · bytes · the key
//! 1, revoked: nothing
//! 2, deleted: revision 8
//! ```
//!
//! Lengths and numbers are LEB128. Bytes after the key are skipped, so an entry may gain fields
//! there without a new format version.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{
    Refusal,
    format::{Entry, Record},
};
use crate::{
    cache::Tombstone,
    key::{CompactKey, Digest, NotAKey, NotAProfile, Profile, Revision, varint},
};

/// Maximum size of an entry in bytes: several times that of a key within `key::bounds`. A
/// larger entry, from a table of the user's own, is left out.
pub(super) const MAX_ENTRY_BYTES: usize = 1 << 20;

const ENTRY: u8 = 0;
const REVOKED: u8 = 1;
const DELETED: u8 = 2;

/// Upper bound in bytes of an entry without its profile and texts.
const NUMBERS_BYTES: usize = 128;

/// Builder of a block.
#[derive(Default)]
pub(super) struct Draft {
    bytes: Vec<u8>,
    /// Profile numbers by address.
    numbers: HashMap<usize, usize>,
    /// Keeps each profile alive, so that its address is not reused.
    profiles: Vec<Profile>,
    /// Scratch buffer for the current entry.
    entry: Vec<u8>,
}

impl Draft {
    /// Adds an entry. Returns false if it exceeds [`MAX_ENTRY_BYTES`].
    pub(super) fn add(
        &mut self,
        digest: &Digest,
        validated_at: Timestamp,
        known: &CompactKey,
    ) -> bool {
        let profile = known.profile();
        let texts = profile.packed().len() + known.principal().len();
        if texts > MAX_ENTRY_BYTES - NUMBERS_BYTES - known.id().len() {
            return false;
        }
        self.entry.clear();
        self.entry.push(ENTRY);
        self.entry.extend_from_slice(digest.as_bytes());
        self.entry.extend_from_slice(&validated_at.as_microsecond().to_le_bytes());
        let next = self.profiles.len();
        let number = *self.numbers.entry(profile.address()).or_insert(next);
        varint::put_length(&mut self.entry, number);
        if number == next {
            self.profiles.push(profile.clone());
            varint::put(&mut self.entry, profile.packed());
        }
        known.write(&mut self.entry);
        varint::put(&mut self.bytes, &self.entry);
        true
    }

    /// Adds a tombstone.
    pub(super) fn add_tombstone(&mut self, digest: &Digest, tombstone: Tombstone) {
        self.entry.clear();
        match tombstone {
            Tombstone::Revoked => {
                self.entry.push(REVOKED);
                self.entry.extend_from_slice(digest.as_bytes());
            }
            Tombstone::Deleted(Revision(revision)) => {
                self.entry.push(DELETED);
                self.entry.extend_from_slice(digest.as_bytes());
                self.entry.extend_from_slice(&revision.to_le_bytes());
            }
        }
        varint::put(&mut self.bytes, &self.entry);
    }

    /// Contents of the block so far.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Starts the next block.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.numbers.clear();
        self.profiles.clear();
    }
}

/// Passes the records of a block to `keep`, in order, and returns their number. `shared`
/// deduplicates profiles.
pub(super) fn read(
    mut block: &[u8],
    shared: impl Fn(&Profile) -> Profile,
    keep: impl Fn(Record),
) -> Result<u64, Refusal> {
    let (mut profiles, mut count) = (Vec::new(), 0);
    while !block.is_empty() {
        let mut bytes = varint::take(&mut block).ok_or(NOT_AN_ENTRY)?;
        let [record_type] = take(&mut bytes)?;
        let digest = take(&mut bytes).map(Digest::from_bytes)?;
        keep(match record_type {
            ENTRY => Record::Entry(read_entry(digest, &mut bytes, &mut profiles, &shared)?),
            REVOKED => Record::Tombstone(digest, Tombstone::Revoked),
            DELETED => {
                let revision = Revision(i64::from_le_bytes(take(&mut bytes)?));
                Record::Tombstone(digest, Tombstone::Deleted(revision))
            }
            _ => return Err(NOT_AN_ENTRY),
        });
        count += 1;
    }
    Ok(count)
}

/// Reads the part of an entry after its digest.
fn read_entry(
    digest: Digest,
    bytes: &mut &[u8],
    profiles: &mut Vec<Profile>,
    shared: impl Fn(&Profile) -> Profile,
) -> Result<Entry, Refusal> {
    let validated_at = Timestamp::from_microsecond(i64::from_le_bytes(take(bytes)?))
        .map_err(|_| Refusal::Unreadable("an entry in it has an invalid timestamp"))?;
    let number = varint::take_length(bytes).ok_or(NOT_AN_ENTRY)?;
    if number == profiles.len() {
        let profile = varint::take(bytes).ok_or(NOT_AN_ENTRY)?;
        profiles.push(shared(&Profile::read(profile)?));
    }
    let profile = profiles.get(number).ok_or(NOT_AN_ENTRY)?;
    let known = CompactKey::read(bytes, profile.clone())?;
    Ok(Entry { digest, validated_at, known })
}

const NOT_AN_ENTRY: Refusal = Refusal::Unreadable("an entry in it is not a key record");

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Refusal> {
    let (first, rest) = bytes.split_first_chunk().ok_or(NOT_AN_ENTRY)?;
    *bytes = rest;
    Ok(*first)
}

impl From<NotAKey> for Refusal {
    fn from(_: NotAKey) -> Self {
        NOT_AN_ENTRY
    }
}

impl From<NotAProfile> for Refusal {
    fn from(_: NotAProfile) -> Self {
        NOT_AN_ENTRY
    }
}
