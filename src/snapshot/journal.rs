//! The changes since a snapshot, so that a key that was revoked after it was
//! written stays revoked when the process dies before the next one.
//!
//! ```text
//! magic 8 · version 4 · fingerprint of the secret 8 · lineage 16 · base 8 · serial 8
//! seal 32, over everything before it
//! one after the other: digest 32 · revision 8 · kind 1 · seal 16
//! ```
//!
//! The seal of a change is over the seal before it, its number and itself, so that
//! none can be changed, moved or taken out. How many there are at least says the
//! [end](super::end). The first change has the number `base`, and what the snapshot
//! with this `serial` has taken in is gone: an earlier snapshot is of no use with it.

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

/// The seal of a change, shortened.
pub(super) type Tag = [u8; TAG_LEN];

/// Digest, revision and kind.
const BODY_LEN: usize = Digest::LEN + 8 + 1;
const RECORD_LEN: usize = BODY_LEN + TAG_LEN;

/// What the seal of the head is over.
const HEAD_BODY_LEN: usize = MAGIC.len() + 4 + Fingerprint::LEN + 16 + 8 + 8;
const HEAD_LEN: usize = HEAD_BODY_LEN + MARK_LEN;

/// How many changes are kept between two snapshots: what an import of a million
/// keys makes, 57 MB. Past it the snapshot is given up.
pub(super) const MAX_RECORDS: u64 = 1_000_000;

/// One change, and its number in its lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) number: u64,
    pub(super) change: Change,
}

impl Noted {
    /// Whether a snapshot that began to be written then may be without it: it
    /// was not yet kept, or not yet applied.
    pub(super) fn is_after(&self, header: &Header) -> bool {
        self.number >= header.noted || self.change.revision > header.position.revision
    }
}

/// The file, open to be written on.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    end: File,
    lineage: Lineage,
    /// That of the last snapshot that was put in its place.
    serial: u64,
    /// That of the one that may have been since.
    upcoming: u64,
    base: u64,
    chain: Chain,
}

impl Journal {
    /// Begins the changes of a new lineage, in the place of what is there.
    pub(super) fn begin(files: &Files, seals: &Seals, lineage: Lineage) -> io::Result<Self> {
        let serial = 0;
        let (file, chain) = begin(files, seals, Head { lineage, serial, base: 0 }, &[])?;
        let end = chain.end(lineage, serial, serial).begin(files, &chain.seal)?;
        Ok(Self { file, end, lineage, serial, upcoming: serial, base: 0, chain })
    }

    /// Opens what belongs to a snapshot, and reads the changes in it. Cuts off what lies
    /// behind the end and is not whole: the process that wrote it died over it.
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
        // Changes that it has taken in are missing from those of an earlier moment.
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
            // What the process before had written need not be on disk yet, and the end
            // speaks of it.
            file.sync_all()?;
            files.sync()?;
            now.write(&end_file, &chain.seal)?;
        }
        Ok((Self { file, end: end_file, lineage, serial, upcoming: serial, base, chain }, records))
    }

    pub(super) const fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// How many changes of the lineage have been kept.
    pub(super) const fn next(&self) -> u64 {
        self.chain.next
    }

    /// Whether as many more can be kept.
    pub(super) fn has_room_for(&self, count: usize) -> bool {
        (self.chain.next - self.base).saturating_add(count as u64) <= MAX_RECORDS
    }

    /// Adds changes, and forces them to disk. After an error the file may end in
    /// half a change, and is not to be written on.
    pub(super) fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        let bytes: Vec<u8> = changes.iter().flat_map(|change| self.chain.put(change)).collect();
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.write_end()
    }

    /// Says on disk that a snapshot with this serial is about to be put in its place.
    pub(super) fn announce(&mut self, serial: u64) -> io::Result<()> {
        self.upcoming = serial;
        self.write_end()
    }

    fn write_end(&self) -> io::Result<()> {
        let end = self.chain.end(self.lineage, self.serial, self.upcoming);
        end.write(&self.end, &self.chain.seal)
    }

    /// Begins the file anew, without what a snapshot has taken in. Refused as
    /// [`Unknown`](ShortenError::Unknown) when it is not what this process has written.
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
        // They are the last changes, which keep their numbers, and before
        // them such as are kept for their revisions, whatever their numbers.
        let base = self.chain.next - contents.records.len() as u64;
        let head = Head { lineage: self.lineage, serial: header.serial, base };
        (self.file, self.chain) = begin(files, seals, head, &contents.records)?;
        (self.serial, self.base) = (head.serial, base);
        self.write_end().map_err(ShortenError::Unknown)
    }
}

/// Puts a new file, with some changes in it from the start, in the place of what is
/// there.
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

/// The changes could not be begun anew.
#[derive(Debug)]
pub(super) enum ShortenError {
    /// The old file is still in its place, whole.
    Untouched(io::Error),
    /// It is not known what would be found.
    Unknown(io::Error),
}

impl From<ShortenError> for io::Error {
    fn from(error: ShortenError) -> Self {
        match error {
            ShortenError::Untouched(error) | ShortenError::Unknown(error) => error,
        }
    }
}

/// What a file holds.
struct Contents {
    lineage: Lineage,
    serial: u64,
    base: u64,
    records: Vec<Noted>,
    chain: Chain,
    /// How many bytes of it are whole.
    whole: usize,
}

impl Contents {
    /// Ends before the first change that is not whole: those that were not yet forced to
    /// disk may have reached it in any order before a crash.
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

    /// Whether they hold all that an end speaks of. `bytes` is what they were read from.
    fn are_those_of(&self, end: &End, bytes: &[u8]) -> bool {
        if end.serial < self.serial {
            // The process died when it had begun the changes anew, which gave them other
            // tags, and before it had written that to the end.
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
    /// From [`HEAD_LEN`] bytes, with what the first change follows.
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

    /// The bytes at the beginning of a file, and the seal that the first change
    /// follows.
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

/// The seal that the next change follows, and its number.
#[derive(Debug)]
struct Chain {
    seal: Seal,
    next: u64,
    tag: Tag,
}

impl Chain {
    /// The next change as it is in the file.
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

    /// What there is when all of it has been kept.
    const fn end(&self, lineage: Lineage, serial: u64, upcoming: u64) -> End {
        End { lineage, next: self.next, tag: self.tag, serial, upcoming }
    }

    fn tagging(&self, body: &[u8]) -> Sealing {
        let mut sealing = self.seal.begin();
        // Nothing else that is sealed begins like this.
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
