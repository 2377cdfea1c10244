//! The changes since a snapshot, so that a key that was revoked after it was
//! written stays revoked when the process dies before the next one.
//!
//! ```text
//! magic 8 · version 4 · fingerprint of the secret 8 · lineage 16 · base 8
//! seal 32, over everything before it
//! one after the other: digest 32 · revision 8 · seal 16
//! ```
//!
//! The seal of a change is over the seal before it, its number and itself, so that
//! none can be changed, moved or taken out, but the last. The first change has
//! the number `base`.

use std::{
    fs::File,
    io::{self, Read, Write},
};

use super::{
    Refusal,
    files::{Files, open_private},
    seal::{MARK_LEN, Seal, Sealing, Seals},
    snapshot::{Lineage, take},
};
use crate::key::{Digest, Fingerprint, Revision};

const MAGIC: [u8; 8] = *b"ks-chng\n";
const VERSION: u32 = 1;
const TAG_LEN: usize = 16;

/// Digest and revision.
const BODY_LEN: usize = Digest::LEN + 8;
const RECORD_LEN: usize = BODY_LEN + TAG_LEN;

/// What the seal of the head is over.
const HEAD_BODY_LEN: usize = MAGIC.len() + 4 + Fingerprint::LEN + 16 + 8;
const HEAD_LEN: usize = HEAD_BODY_LEN + MARK_LEN;

/// How many changes are kept between two snapshots: what an import of a million
/// keys makes, 56 MB. Past it the snapshot is given up.
pub(super) const MAX_RECORDS: u64 = 1_000_000;

/// One change, and its number in its lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) number: u64,
    pub(super) digest: Digest,
    pub(super) revision: Revision,
}

impl Noted {
    /// Whether a snapshot that began to be written then may be without it: it
    /// was not yet kept, or not yet applied.
    pub(super) fn is_after(&self, noted: u64, position: Revision) -> bool {
        self.number >= noted || self.revision > position
    }
}

/// The file, open to be written on.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    seal: Seal,
    lineage: Lineage,
    base: u64,
    next: u64,
    tag: [u8; TAG_LEN],
}

impl Journal {
    /// Begins a new file, with some changes in it from the start, in the place
    /// of what is there.
    ///
    /// `Err(Untouched)` when the old file is still in its place, whole.
    pub(super) fn begin(
        files: &Files,
        seals: &Seals,
        lineage: Lineage,
        kept: &[Noted],
        next: u64,
    ) -> Result<Self, BeginError> {
        let seal = seals.first().clone();
        let base = next - kept.len() as u64;
        let journal = || {
            let mut file = Files::draft(&files.changes)?;
            let (head, tag) = head(&seal, lineage, base);
            file.write_all(&head)?;
            let mut journal = Self { file, seal: seal.clone(), lineage, base, next: base, tag };
            // They are the last changes, which keep their numbers, and before
            // them such as are kept for their revisions, whatever their numbers.
            journal.append(kept.iter().map(|noted| (noted.digest, noted.revision)))?;
            journal.file.sync_all()?;
            Ok(journal)
        };
        let journal = journal().map_err(BeginError::Untouched)?;
        files.replace(&files.changes).map_err(BeginError::Unknown)?;
        Ok(journal)
    }

    /// Opens what belongs to a snapshot, and reads the changes in it. Cuts off a
    /// last one that is not whole: the process that wrote it died over it.
    pub(super) fn open(
        files: &Files,
        seals: &Seals,
        lineage: Lineage,
    ) -> Result<(Self, Vec<Noted>), Refusal> {
        let mut file = open_private(&files.changes, true)?.ok_or(Refusal::NoChanges)?;
        let bytes = read_bounded(&mut file)?;
        let contents = Contents::read(&bytes, seals)?;
        if contents.lineage != lineage {
            return Err(Refusal::OtherChanges);
        }
        if contents.whole < bytes.len() {
            file.set_len(contents.whole as u64)?;
            file.sync_all()?;
        }
        io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
        let Contents { seal, base, tag, records, .. } = contents;
        let next = base + records.len() as u64;
        Ok((Self { file, seal, lineage, base, next, tag }, records))
    }

    pub(super) const fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// How many changes of the lineage have been kept.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Whether as many more can be kept.
    pub(super) fn has_room_for(&self, count: usize) -> bool {
        (self.next - self.base).saturating_add(count as u64) <= MAX_RECORDS
    }

    /// Adds changes, and forces them to disk. After an error the file may end in
    /// half a change, and is not to be written on.
    pub(super) fn append(
        &mut self,
        changes: impl Iterator<Item = (Digest, Revision)>,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (digest, revision) in changes {
            let body = body(digest, revision);
            self.tag = tag_of(&self.seal, &self.tag, self.next, &body);
            self.next += 1;
            bytes.extend_from_slice(&body);
            bytes.extend_from_slice(&self.tag);
        }
        self.file.write_all(&bytes)?;
        self.file.sync_data()
    }

    /// Begins the file anew, without what a snapshot has taken in.
    pub(super) fn shorten(
        &mut self,
        files: &Files,
        seals: &Seals,
        noted: u64,
        position: Revision,
    ) -> Result<(), BeginError> {
        if self.next == self.base {
            return Ok(());
        }
        let kept = || -> Result<Vec<Noted>, Refusal> {
            let mut file = open_private(&files.changes, false)?.ok_or(Refusal::NoChanges)?;
            let mut records = Contents::read(&read_bounded(&mut file)?, seals)?.records;
            records.retain(|record| record.is_after(noted, position));
            Ok(records)
        };
        let kept = kept().map_err(|why| BeginError::Untouched(io::Error::other(why)))?;
        *self = Self::begin(files, seals, self.lineage, &kept, self.next)?;
        Ok(())
    }
}

/// The changes could not be begun anew.
#[derive(Debug)]
pub(super) enum BeginError {
    /// The old file is still in its place, whole.
    Untouched(io::Error),
    /// It is not known which of the two would be found.
    Unknown(io::Error),
}

impl From<BeginError> for io::Error {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::Untouched(error) | BeginError::Unknown(error) => error,
        }
    }
}

/// What a file holds.
struct Contents {
    seal: Seal,
    lineage: Lineage,
    base: u64,
    records: Vec<Noted>,
    /// The last seal.
    tag: [u8; TAG_LEN],
    /// How many bytes of it are whole.
    whole: usize,
}

impl Contents {
    fn read(bytes: &[u8], seals: &Seals) -> Result<Self, Refusal> {
        let (head, mut rest) = bytes.split_at_checked(HEAD_LEN).ok_or(Refusal::ChangesDamaged)?;
        let Head { seal, lineage, base, mut tag } = Head::read(head, seals)?;
        let mut records = Vec::with_capacity(rest.len() / RECORD_LEN);
        let mut number = base;
        while let Some((record, after)) = rest.split_at_checked(RECORD_LEN) {
            let (body, its_tag) = record.split_at(BODY_LEN);
            if !tagging(&seal, &tag, number, body).begins_with(its_tag) {
                // Not all of it had reached the disk, and zeros what had not.
                if after.iter().all(|byte| *byte == 0) {
                    break;
                }
                return Err(Refusal::ChangesDamaged);
            }
            let mut body = body;
            let digest = Digest::from_bytes(take(&mut body));
            let revision = Revision(i64::from_le_bytes(take(&mut body)));
            records.push(Noted { number, digest, revision });
            tag.copy_from_slice(its_tag);
            number += 1;
            rest = after;
        }
        Ok(Self { seal, lineage, base, records, tag, whole: bytes.len() - rest.len() })
    }
}

struct Head {
    seal: Seal,
    lineage: Lineage,
    base: u64,
    tag: [u8; TAG_LEN],
}

impl Head {
    /// From [`HEAD_LEN`] bytes.
    fn read(bytes: &[u8], seals: &Seals) -> Result<Self, Refusal> {
        let mut rest = bytes;
        let known = take(&mut rest) == MAGIC && u32::from_le_bytes(take(&mut rest)) == VERSION;
        let secret = Fingerprint::from_bytes(take(&mut rest));
        let lineage = take(&mut rest);
        let base = u64::from_le_bytes(take(&mut rest));
        if !known || base > u64::MAX - 2 * MAX_RECORDS {
            return Err(Refusal::ChangesDamaged);
        }
        let seal = seals.find(secret).ok_or(Refusal::OtherSecret)?.clone();
        let mut sealing = seal.begin();
        sealing.update(&bytes[..HEAD_BODY_LEN]);
        let mark = take::<MARK_LEN>(&mut rest);
        if !sealing.is(&mark) {
            return Err(Refusal::ChangesDamaged);
        }
        Ok(Self { seal, lineage, base, tag: shortened(&mark) })
    }
}

/// The bytes at the beginning of a file, and the seal that the first change
/// follows.
fn head(seal: &Seal, lineage: Lineage, base: u64) -> (Vec<u8>, [u8; TAG_LEN]) {
    let mut bytes = Vec::with_capacity(HEAD_LEN);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(seal.secret().as_bytes());
    bytes.extend_from_slice(&lineage);
    bytes.extend_from_slice(&base.to_le_bytes());
    let mut sealing = seal.begin();
    sealing.update(&bytes);
    let mark = sealing.finish();
    bytes.extend_from_slice(&mark);
    (bytes, shortened(&mark))
}

fn body(digest: Digest, revision: Revision) -> [u8; BODY_LEN] {
    let mut body = [0; BODY_LEN];
    body[..Digest::LEN].copy_from_slice(digest.as_bytes());
    body[Digest::LEN..].copy_from_slice(&revision.0.to_le_bytes());
    body
}

fn tag_of(seal: &Seal, before: &[u8; TAG_LEN], number: u64, body: &[u8]) -> [u8; TAG_LEN] {
    shortened(&tagging(seal, before, number, body).finish())
}

fn tagging(seal: &Seal, before: &[u8; TAG_LEN], number: u64, body: &[u8]) -> Sealing {
    let mut sealing = seal.begin();
    // Nothing else that is sealed begins like this.
    sealing.update(b"change");
    sealing.update(before);
    sealing.update(&number.to_le_bytes());
    sealing.update(body);
    sealing
}

fn shortened(mark: &[u8; MARK_LEN]) -> [u8; TAG_LEN] {
    std::array::from_fn(|at| mark[at])
}

/// Reads all of a file that is no larger than one of ours can be.
fn read_bounded(file: &mut File) -> Result<Vec<u8>, Refusal> {
    const MAX_BYTES: u64 = HEAD_LEN as u64 + (MAX_RECORDS + 1) * RECORD_LEN as u64;
    if file.metadata()?.len() > MAX_BYTES {
        return Err(Refusal::ChangesDamaged);
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
