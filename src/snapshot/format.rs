//! Format of the snapshot file.
//!
//! ```text
//! magic 8 · version 4 · fingerprint of the secret 8 · random nonce 16
//! store 32 · lineage 16 · serial 8 · created_at 8 · position 8 · covered_since 8 · noted 8
//! landmark: kind 1 · revision 8 · digest 32
//! seal 32, over everything before it
//! blocks in sequence: length 4 · entries · seal 32
//! length 0 · count 8 · seal 32
//! magic 8
//! ```
//!
//! Numbers are little-endian, times microseconds since 1970. The seal of each part is verified
//! before the part is parsed, except for the fingerprint, which selects the seal key, and
//! lengths, which are bounded.

use std::{
    io::{self, BufWriter, Read, Seek, Write},
    num::NonZeroUsize,
    panic::resume_unwind,
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, ScopedJoinHandle},
};

use jiff::Timestamp;

use super::{
    Refusal,
    blocks::{self, BLOCK_BYTES, END, END_LEN},
    entries::{self, Draft},
    landmark,
    seal::{MARK_LEN, Seals},
};
use crate::{
    cache::{Exported, Tombstone},
    key::{CompactKey, Digest, Fingerprint, Profile, Revision},
    store::{Position, StoreIdentity},
    time::Moment,
};

/// Format version. Entries may gain fields without a new one.
pub(super) const VERSION: u32 = 3;

const MAGIC: [u8; 8] = *b"ks-snap\n";

/// Number of entries written between two calls of `go_on`, about ten microseconds.
pub(super) const CHECK_EVERY: u64 = 16;

/// Random id of a journal and its snapshots, drawn when the journal is created.
pub(super) type Lineage = [u8; 16];

/// Metadata of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Store that the entries came from.
    pub store: StoreIdentity,
    /// Lineage of the journal it belongs to.
    pub lineage: [u8; 16],
    /// Sequence number, increasing within its lineage.
    pub serial: u64,
    /// Time when writing began.
    pub created_at: Timestamp,
    /// Position up to which changes had been applied when writing began.
    pub position: Position,
    /// Start of the time without missed changes; `None` if unknown.
    pub covered_since: Option<Timestamp>,
    /// Number of changes of its lineage in the journal when writing began.
    pub noted: u64,
}

/// A cached key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Lookup digest.
    pub digest: Digest,
    /// Time as of which the store confirmed the record.
    pub validated_at: Timestamp,
    /// The key.
    pub known: CompactKey,
}

/// One record of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A cached key.
    Entry(Entry),
    /// A key that has ended.
    Tombstone(Digest, Tombstone),
}

/// Writes a snapshot and returns its number of entries.
///
/// Uses constant memory. Fails with [`Interrupted`](io::ErrorKind::Interrupted) once `go_on`
/// returns false.
pub fn write(
    to: impl Write,
    seals: &Seals,
    header: &Header,
    now: Moment,
    exported: impl Iterator<Item = Exported>,
    go_on: impl Fn() -> bool,
) -> io::Result<u64> {
    let seal = seals.first();
    let mut nonce = [0; Start::NONCE_LEN];
    getrandom::fill(&mut nonce)?;
    let start = Start { secret: seal.secret(), nonce };
    let head = [&start.to_bytes()[..], &header.to_bytes()].concat();
    let out = BufWriter::with_capacity(2 * BLOCK_BYTES, to);
    let mut out = blocks::Writer::begin(out, seal, &head)?;

    let (mut seen, mut entries, mut tombstones): (u64, u64, u64) = (0, 0, 0);
    let mut draft = Draft::default();
    for exported in exported {
        match exported {
            Exported::Record(digest, known, validated_at) => {
                let validated_at = now.wall_at(validated_at);
                entries += u64::from(draft.add(&digest, validated_at, &known));
            }
            Exported::Tombstone(digest, tombstone) => {
                draft.add_tombstone(&digest, tombstone);
                tombstones += 1;
            }
        }
        if draft.bytes().len() >= BLOCK_BYTES {
            out.put(draft.bytes())?;
            draft.clear();
        }
        seen += 1;
        if seen.is_multiple_of(CHECK_EVERY) && !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    if !draft.bytes().is_empty() {
        out.put(draft.bytes())?;
    }
    out.finish(entries + tombstones)?;
    Ok(entries)
}

/// A snapshot whose head has a verified seal.
#[derive(Debug)]
pub struct Sealed<R> {
    blocks: blocks::Reader<R>,
    header: Header,
    /// Size of the file in bytes.
    length: u64,
}

impl<R: Read + Seek + Send> Sealed<R> {
    /// Checks that the file is complete and reads its header.
    pub fn open(mut source: R, seals: &Seals) -> Result<Self, Refusal> {
        let length = source.seek(io::SeekFrom::End(0))?;
        let start = Start::read(&mut source)?;
        if length < (HEAD_LEN + END_LEN) as u64 {
            return Err(Refusal::CutOff);
        }
        source.seek(io::SeekFrom::Start(length - END.len() as u64))?;
        let mut end = END;
        source.read_exact(&mut end)?;
        if end != END {
            return Err(Refusal::CutOff);
        }
        let seal = seals.find(start.secret).ok_or(Refusal::OtherSecret)?;
        source.seek(io::SeekFrom::Start(Start::LEN as u64))?;
        let (mut header, mut mark) = ([0; Header::LEN], [0; MARK_LEN]);
        source.read_exact(&mut header)?;
        source.read_exact(&mut mark)?;
        let mut sealing = seal.begin();
        sealing.update(&start.to_bytes());
        sealing.update(&header);
        if !sealing.is(&mark) {
            return Err(Refusal::Changed);
        }
        let header = Header::read(header)?;
        Ok(Self { blocks: blocks::Reader::new(source, seal.clone(), mark), header, length })
    }

    /// Returns the header.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Passes all records to `record`, unordered, on at most one thread per core. `shared`
    /// deduplicates profiles with the same content.
    ///
    /// Before an error, it may have passed some records; their seals were valid.
    pub fn read(
        self,
        shared: impl Fn(&Profile) -> Profile + Sync,
        record: impl Fn(Record) + Sync,
    ) -> Result<(), Refusal> {
        // No more threads than blocks.
        let most = usize::try_from(self.length / BLOCK_BYTES as u64 + 1).unwrap_or(usize::MAX);
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(most);
        let blocks = Mutex::new(self.blocks);
        let count = thread::scope(|scope| {
            let reading = || read_blocks(&blocks, &shared, &record);
            let readers: Vec<_> = (0..cores).map(|_| scope.spawn(reading)).collect();
            // Join all threads before returning any error.
            let counts: Vec<_> = readers.into_iter().map(ScopedJoinHandle::join).collect();
            let counts = counts.into_iter().map(|it| it.unwrap_or_else(|died| resume_unwind(died)));
            counts.sum::<Result<u64, Refusal>>()
        })?;
        if lock(&blocks).count() == Some(count) {
            return Ok(());
        }
        Err(Refusal::Unreadable("it does not hold as many records as it says"))
    }
}

/// Reads blocks until the end or an error; returns the number of records.
fn read_blocks<R: Read>(
    blocks: &Mutex<blocks::Reader<R>>,
    shared: impl Fn(&Profile) -> Profile,
    record: impl Fn(Record),
) -> Result<u64, Refusal> {
    let (mut count, mut bytes) = (0, Vec::new());
    let mut next = || {
        let Some(block) = lock(blocks).next(&mut bytes)? else { return Ok(None) };
        entries::read(block.checked(&bytes)?, &shared, &record).map(Some)
    };
    loop {
        match next() {
            Ok(Some(more)) => count += more,
            Ok(None) => return Ok(count),
            Err(refusal) => {
                lock(blocks).stop();
                return Err(refusal);
            }
        }
    }
}

/// A panic of one reader is resumed in the caller, so poisoning is ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes parsed before the seal is verified.
struct Start {
    secret: Fingerprint,
    /// Makes the seals of this file differ from those of every other file.
    nonce: [u8; Self::NONCE_LEN],
}

/// Length in bytes of everything under the first seal, and that seal.
const HEAD_LEN: usize = Start::LEN + Header::LEN + MARK_LEN;

impl Start {
    const NONCE_LEN: usize = 16;
    const LEN: usize = MAGIC.len() + 4 + Fingerprint::LEN + Self::NONCE_LEN;

    fn to_bytes(&self) -> Vec<u8> {
        [&MAGIC[..], &VERSION.to_le_bytes(), self.secret.as_bytes(), &self.nonce].concat()
    }

    fn read(source: &mut (impl Read + Seek)) -> Result<Self, Refusal> {
        source.rewind()?;
        let (mut magic, mut version, mut secret) = ([0; 8], [0; 4], [0; Fingerprint::LEN]);
        let begun = source.read_exact(&mut magic);
        if magic != MAGIC {
            // A short file is not an I/O error.
            begun.or_else(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Ok(()),
                _ => Err(error),
            })?;
            return Err(Refusal::NotASnapshot);
        }
        source.read_exact(&mut version)?;
        let version = u32::from_le_bytes(version);
        if version != VERSION {
            return Err(Refusal::Version(version));
        }
        source.read_exact(&mut secret)?;
        let mut nonce = [0; Self::NONCE_LEN];
        source.read_exact(&mut nonce)?;
        Ok(Self { secret: Fingerprint::from_bytes(secret), nonce })
    }
}

impl Header {
    const LEN: usize = 88 + landmark::LEN;

    fn to_bytes(self) -> [u8; Self::LEN] {
        let covered_since = self.covered_since.map_or(i64::MIN, Timestamp::as_microsecond);
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend_from_slice(self.store.as_bytes());
        bytes.extend_from_slice(&self.lineage);
        bytes.extend_from_slice(&self.serial.to_le_bytes());
        for number in [self.created_at.as_microsecond(), self.position.revision.0, covered_since] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.noted.to_le_bytes());
        bytes.extend_from_slice(&landmark::to_bytes(self.position.landmark));
        std::array::from_fn(|at| bytes[at])
    }

    fn read(bytes: [u8; Self::LEN]) -> Result<Self, Refusal> {
        let mut rest = bytes.as_slice();
        let time = |micros| {
            Timestamp::from_microsecond(micros)
                .map_err(|_| Refusal::Unreadable("it has an invalid timestamp"))
        };
        let store = StoreIdentity::from_bytes(take(&mut rest));
        let lineage = take(&mut rest);
        let serial = u64::from_le_bytes(take(&mut rest));
        let created_at = time(i64::from_le_bytes(take(&mut rest)))?;
        let revision = Revision(i64::from_le_bytes(take(&mut rest)));
        let covered_since = match i64::from_le_bytes(take(&mut rest)) {
            i64::MIN => None,
            micros => Some(time(micros)?),
        };
        let noted = u64::from_le_bytes(take(&mut rest));
        let position = Position { revision, landmark: landmark::read(take(&mut rest))? };
        Ok(Self { store, lineage, serial, created_at, position, covered_since, noted })
    }
}

/// Splits off the first `N` bytes, which must exist.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (first, rest) = bytes.split_at(N);
    *bytes = rest;
    std::array::from_fn(|at| first[at])
}

#[cfg(test)]
mod tests;
