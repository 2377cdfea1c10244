//! The journal: changes since a snapshot, so that a key revoked after the snapshot stays
//! revoked when the process dies before the next one.
//!
//! ```text
//! magic 8 · version 4 · fingerprint of the secret 8 · lineage 16 · base 8 · serial 8
//! seal 32, over everything before it
//! changes in sequence: digest 32 · revision 8 · kind 1 · seal 16
//! ```
//!
//! The seal of a change covers the previous seal, the number of the change and the change, so
//! none can be altered, moved or removed. The [end file](super::end) holds the least number of
//! changes. The first change has the number `base`. Changes contained in the snapshot `serial`
//! are dropped, so an earlier snapshot cannot be used with this journal.

use std::{
    fs::File,
    io::{self, Read, Write},
};

use super::{
    Refusal,
    end::End,
    files::{Files, open_private},
    format::{Header, Lineage, take},
    landmark::{kind_from_byte, kind_to_byte},
    seal::{MARK_LEN, Seal, Sealing, Seals},
};
use crate::{
    key::{Digest, Fingerprint, Revision},
    store::Change,
};

const MAGIC: [u8; 8] = *b"ks-chng\n";
const VERSION: u32 = 2;
pub(super) const TAG_LEN: usize = 16;

/// Truncated seal of a change.
pub(super) type Tag = [u8; TAG_LEN];

/// Digest, revision and kind.
const BODY_LEN: usize = Digest::LEN + 8 + 1;
const RECORD_LEN: usize = BODY_LEN + TAG_LEN;

/// Length in bytes of the part that the seal of the head covers.
const HEAD_BODY_LEN: usize = MAGIC.len() + 4 + Fingerprint::LEN + 16 + 8 + 8;
const HEAD_LEN: usize = HEAD_BODY_LEN + MARK_LEN;

/// Maximum number of changes between two snapshots: those of an import of a million keys, 57
/// MB. Beyond it the snapshot is removed.
pub(super) const MAX_RECORDS: u64 = 1_000_000;

/// A change and its number within its lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) number: u64,
    pub(super) change: Change,
}

impl Noted {
    /// Whether the snapshot may lack the change: when writing began, the change was not yet in
    /// the journal or not yet applied.
    pub(super) fn is_after(&self, header: &Header) -> bool {
        self.number >= header.noted || self.change.revision > header.position.revision
    }
}

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    end: File,
    lineage: Lineage,
    /// Serial of the last snapshot renamed into place.
    serial: u64,
    /// Serial of a snapshot that may have been renamed into place since.
    upcoming: u64,
    base: u64,
    chain: Chain,
}

impl Journal {
    /// Creates the journal of a new lineage, replacing any existing one.
    pub(super) fn begin(files: &Files, seals: &Seals, lineage: Lineage) -> io::Result<Self> {
        let serial = 0;
        let (file, chain) = begin(files, seals, Head { lineage, serial, base: 0 }, &[])?;
        let end = chain.end(lineage, serial, serial).begin(files, &chain.seal)?;
        Ok(Self { file, end, lineage, serial, upcoming: serial, base: 0, chain })
    }

    /// Opens the journal of a snapshot and reads its changes. Truncates an incomplete tail
    /// beyond the recorded end, left by a process that died during a write.
    pub(super) fn open(
        files: &Files,
        seals: &Seals,
        header: &Header,
    ) -> Result<(Self, Vec<Noted>), Refusal> {
        let mut file = open_private(&files.changes, true)?.ok_or(Refusal::NoChanges)?;
        let bytes = read_bounded(&mut file)?;
        let contents = Contents::read(&bytes, seals)?;
        let (end, end_file) = End::open(files, seals)?;
        let is_of_them = (contents.serial.max(end.serial)..=end.upcoming).contains(&header.serial);
        // An older journal lacks changes that the snapshot already contains.
        let goes_as_far = header.noted <= contents.chain.next;
        if [contents.lineage, end.lineage] != [header.lineage; 2] || !is_of_them || !goes_as_far {
            return Err(Refusal::OtherChanges);
        }
        if !contents.are_those_of(&end, &bytes) {
            return Err(Refusal::ChangesDamaged);
        }
        if contents.whole < bytes.len() {
            file.set_len(contents.whole as u64)?;
        }
        io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
        let Contents { chain, lineage, base, records, whole, .. } = contents;
        let serial = header.serial;
        let now = chain.end(lineage, serial, serial);
        if end != now || whole < bytes.len() {
            // What the previous process wrote may not be on disk yet, and the new end relies on
            // it.
            file.sync_all()?;
            files.sync()?;
            now.write(&end_file, &chain.seal)?;
        }
        Ok((Self { file, end: end_file, lineage, serial, upcoming: serial, base, chain }, records))
    }

    pub(super) const fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// Number of changes journaled in this lineage.
    pub(super) const fn next(&self) -> u64 {
        self.chain.next
    }

    /// Whether `count` more changes fit.
    pub(super) fn has_room_for(&self, count: usize) -> bool {
        (self.chain.next - self.base).saturating_add(count as u64) <= MAX_RECORDS
    }

    /// Appends changes and flushes them to disk. After an error the file may end in a partial
    /// change; do not append again.
    pub(super) fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        let bytes: Vec<u8> = changes.iter().flat_map(|change| self.chain.put(change)).collect();
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.write_end()
    }

    /// Records on disk that the snapshot `serial` is about to be renamed into place.
    pub(super) fn announce(&mut self, serial: u64) -> io::Result<()> {
        self.upcoming = serial;
        self.write_end()
    }

    fn write_end(&self) -> io::Result<()> {
        let end = self.chain.end(self.lineage, self.serial, self.upcoming);
        end.write(&self.end, &self.chain.seal)
    }

    /// Rewrites the journal without the changes that a snapshot contains. Fails with
    /// [`Unknown`](ShortenError::Unknown) if the file is not the one this process wrote.
    pub(super) fn shorten(
        &mut self,
        files: &Files,
        seals: &Seals,
        header: &Header,
    ) -> Result<(), ShortenError> {
        let read = || -> Result<Vec<u8>, Refusal> {
            let mut file = open_private(&files.changes, false)?.ok_or(Refusal::NoChanges)?;
            read_bounded(&mut file)
        };
        let unknown = |why| ShortenError::Unknown(io::Error::other(why));
        let bytes = read().map_err(unknown)?;
        let mut contents = Contents::read(&bytes, seals).map_err(unknown)?;
        if contents.chain.tag != self.chain.tag {
            return Err(unknown(Refusal::OtherChanges));
        }
        contents.records.retain(|record| record.is_after(header));
        // The last changes keep their numbers. Earlier ones, kept for their revisions, are
        // renumbered.
        let base = self.chain.next - contents.records.len() as u64;
        let head = Head { lineage: self.lineage, serial: header.serial, base };
        (self.file, self.chain) = begin(files, seals, head, &contents.records)?;
        (self.serial, self.base) = (head.serial, base);
        self.write_end().map_err(ShortenError::Unknown)
    }
}

/// Replaces the journal with a new file that contains `kept`.
fn begin(
    files: &Files,
    seals: &Seals,
    head: Head,
    kept: &[Noted],
) -> Result<(File, Chain), ShortenError> {
    let seal = seals.first();
    let (bytes, tag) = head.to_bytes(seal);
    let mut chain = Chain { seal: seal.clone(), next: head.base, tag };
    let records = kept.iter().flat_map(|noted| chain.put(&noted.change));
    let bytes: Vec<u8> = bytes.into_iter().chain(records).collect();
    let file = || {
        let mut file = Files::draft(&files.changes)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        Ok(file)
    };
    let file = file().map_err(ShortenError::Untouched)?;
    files.replace(&files.changes).map_err(ShortenError::Unknown)?;
    Ok((file, chain))
}

/// Error of rewriting the journal.
#[derive(Debug)]
pub(super) enum ShortenError {
    /// The old file is intact.
    Untouched(io::Error),
    /// The state of the files is unknown.
    Unknown(io::Error),
}

impl From<ShortenError> for io::Error {
    fn from(error: ShortenError) -> Self {
        match error {
            ShortenError::Untouched(error) | ShortenError::Unknown(error) => error,
        }
    }
}

/// Parsed contents of a journal.
struct Contents {
    lineage: Lineage,
    serial: u64,
    base: u64,
    records: Vec<Noted>,
    chain: Chain,
    /// Number of valid bytes.
    whole: usize,
}

impl Contents {
    /// Stops before the first invalid change: after a crash, unflushed changes may have reached
    /// the disk in any order.
    fn read(bytes: &[u8], seals: &Seals) -> Result<Self, Refusal> {
        let (head, mut rest) = bytes.split_at_checked(HEAD_LEN).ok_or(Refusal::ChangesDamaged)?;
        let (Head { lineage, serial, base }, mut chain) = Head::read(head, seals)?;
        let mut records = Vec::with_capacity(rest.len() / RECORD_LEN);
        while let Some((record, after)) = rest.split_at_checked(RECORD_LEN) {
            let (mut body, tag) = record.split_at(BODY_LEN);
            if !chain.tagging(body).begins_with(tag) {
                break;
            }
            let digest = Digest::from_bytes(take(&mut body));
            let revision = Revision(i64::from_le_bytes(take(&mut body)));
            let [kind] = take(&mut body);
            let change = Change { revision, digest, kind: kind_from_byte(kind)? };
            records.push(Noted { number: chain.next, change });
            chain.tag.copy_from_slice(tag);
            chain.next += 1;
            rest = after;
        }
        Ok(Self { lineage, serial, base, records, chain, whole: bytes.len() - rest.len() })
    }

    /// Whether the journal, parsed from `bytes`, contains every change recorded by `end`.
    fn are_those_of(&self, end: &End, bytes: &[u8]) -> bool {
        if end.serial < self.serial {
            // The process died after rewriting the journal, which changed the tags, and before
            // updating the end file.
            return end.next <= self.chain.next;
        }
        let Some(nth) = end.next.checked_sub(self.base) else { return false };
        let at = match usize::try_from(nth) {
            Ok(0) => HEAD_BODY_LEN,
            Ok(nth) => HEAD_LEN + nth.saturating_mul(RECORD_LEN) - TAG_LEN,
            Err(_) => return false,
        };
        let whole = &bytes[..self.whole];
        whole.get(at..).is_some_and(|rest| rest.starts_with(&end.tag))
    }
}

#[derive(Debug, Clone, Copy)]
struct Head {
    lineage: Lineage,
    serial: u64,
    base: u64,
}

impl Head {
    /// Parses [`HEAD_LEN`] bytes and starts the chain of seals.
    fn read(bytes: &[u8], seals: &Seals) -> Result<(Self, Chain), Refusal> {
        let mut rest = bytes;
        let known = take(&mut rest) == MAGIC && u32::from_le_bytes(take(&mut rest)) == VERSION;
        let secret = Fingerprint::from_bytes(take(&mut rest));
        let lineage = take(&mut rest);
        let base = u64::from_le_bytes(take(&mut rest));
        let serial = u64::from_le_bytes(take(&mut rest));
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
        let chain = Chain { seal, next: base, tag: shortened(&mark) };
        Ok((Self { lineage, serial, base }, chain))
    }

    /// Returns the head and the tag that seeds the chain.
    fn to_bytes(self, seal: &Seal) -> (Vec<u8>, Tag) {
        let mut bytes = Vec::with_capacity(HEAD_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(seal.secret().as_bytes());
        bytes.extend_from_slice(&self.lineage);
        bytes.extend_from_slice(&self.base.to_le_bytes());
        bytes.extend_from_slice(&self.serial.to_le_bytes());
        let mut sealing = seal.begin();
        sealing.update(&bytes);
        let mark = sealing.finish();
        bytes.extend_from_slice(&mark);
        (bytes, shortened(&mark))
    }
}

/// Tag that seeds the next seal, and the number of the next change.
#[derive(Debug)]
struct Chain {
    seal: Seal,
    next: u64,
    tag: Tag,
}

impl Chain {
    /// Encodes and seals the next change.
    fn put(&mut self, change: &Change) -> [u8; RECORD_LEN] {
        let mut record = [0; RECORD_LEN];
        let (body, tag) = record.split_at_mut(BODY_LEN);
        body[..Digest::LEN].copy_from_slice(change.digest.as_bytes());
        body[Digest::LEN..BODY_LEN - 1].copy_from_slice(&change.revision.0.to_le_bytes());
        body[BODY_LEN - 1] = kind_to_byte(change.kind);
        self.tag = shortened(&self.tagging(body).finish());
        tag.copy_from_slice(&self.tag);
        self.next += 1;
        record
    }

    /// The end that records every change so far.
    const fn end(&self, lineage: Lineage, serial: u64, upcoming: u64) -> End {
        End { lineage, next: self.next, tag: self.tag, serial, upcoming }
    }

    fn tagging(&self, body: &[u8]) -> Sealing {
        let mut sealing = self.seal.begin();
        // Domain separation: nothing else under a seal starts with this.
        sealing.update(b"change");
        sealing.update(&self.tag);
        sealing.update(&self.next.to_le_bytes());
        sealing.update(body);
        sealing
    }
}

fn shortened(mark: &[u8; MARK_LEN]) -> Tag {
    std::array::from_fn(|at| mark[at])
}

/// Reads a journal, refusing files larger than the maximum.
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
