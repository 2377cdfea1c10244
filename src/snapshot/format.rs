//! The format of a snapshot.
//!
//! ```text
//! magic 8 · version 4 · fingerprint of the secret 8 · mark of this file 16, random
//! store 32 · lineage 16 · serial 8 · created_at 8 · position 8 · covered_since 8 · noted 8
//! landmark: kind 1 · revision 8 · digest 32
//! seal 32, over everything before it
//! one after the other: length 4 · block of entries · seal 32
//! length 0 · count 8 · seal 32
//! magic 8
//! ```
//!
//! Numbers are little-endian, times microseconds since 1970. Of each part the seal is
//! checked before anything in it is looked at, but for the fingerprint, which tells
//! with what, and lengths, which are bounded.

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

/// The version of the format. Entries may gain fields without a new one.
pub(super) const VERSION: u32 = 3;

const MAGIC: [u8; 8] = *b"ks-snap\n";

/// How many entries are written between two looks at whether to go on: that takes some
/// ten microseconds.
pub(super) const LOOK_EVERY: u64 = 16;

/// Which run of changes a snapshot belongs to: drawn at random when the changes
/// begin to be kept.
pub(super) type Lineage = [u8; 16];

/// What a snapshot says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The store that the entries came from.
    pub store: StoreIdentity,
    /// The run of changes that it belongs to.
    pub lineage: [u8; 16],
    /// Greater than that of every earlier one of its lineage.
    pub serial: u64,
    /// When it began to be written.
    pub created_at: Timestamp,
    /// Up to where changes had been applied when it began to be written.
    pub position: Position,
    /// Since when no change has been missed; `None` when that is not known.
    pub covered_since: Option<Timestamp>,
    /// How many changes of its lineage had been kept when it began to be
    /// written.
    pub noted: u64,
}

/// What was known about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Under what it is looked up.
    pub digest: Digest,
    /// As of when the store vouched for the record.
    pub validated_at: Timestamp,
    /// The key.
    pub known: CompactKey,
}

/// What a snapshot says of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// What was known about it.
    Entry(Entry),
    /// That it has ended.
    Tombstone(Digest, Tombstone),
}

/// Writes a snapshot, and returns how many entries it has.
///
/// Takes a fixed amount of memory. Ends early, with
/// [`Interrupted`](io::ErrorKind::Interrupted), when `go_on` says so.
pub fn write(
    to: impl Write,
    seals: &Seals,
    header: &Header,
    now: Moment,
    exported: impl Iterator<Item = Exported>,
    go_on: impl Fn() -> bool,
) -> io::Result<u64> {
    let seal = seals.first();
    let mut mark = [0; Start::MARK_LEN];
    getrandom::fill(&mut mark)?;
    let start = Start { secret: seal.secret(), mark };
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
        if seen.is_multiple_of(LOOK_EVERY) && !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    if !draft.bytes().is_empty() {
        out.put(draft.bytes())?;
    }
    out.finish(entries + tombstones)?;
    Ok(entries)
}

/// A snapshot whose head has the right seal.
#[derive(Debug)]
pub struct Sealed<R> {
    blocks: blocks::Reader<R>,
    header: Header,
    /// How many bytes the file has.
    length: u64,
}

impl<R: Read + Seek + Send> Sealed<R> {
    /// Looks whether it has an end, and reads what it says of itself.
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

    /// What it says of itself.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Hands out all records, in no order, on as many threads as there are cores at
    /// most. Of profiles with the same content `shared` says which one is used.
    ///
    /// When it is refused, some records were already handed out, all of which are as
    /// they were written.
    pub fn read(
        self,
        shared: impl Fn(&Profile) -> Profile + Sync,
        record: impl Fn(Record) + Sync,
    ) -> Result<(), Refusal> {
        // No more threads than there are blocks.
        let most = usize::try_from(self.length / BLOCK_BYTES as u64 + 1).unwrap_or(usize::MAX);
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(most);
        let blocks = Mutex::new(self.blocks);
        let count = thread::scope(|scope| {
            let reading = || read_blocks(&blocks, &shared, &record);
            let readers: Vec<_> = (0..cores).map(|_| scope.spawn(reading)).collect();
            // All of them, whatever the first one says: they are gone afterwards.
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

/// Reads one block after the other, until there is none or one cannot be read;
/// returns how many records there were.
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

/// Whoever panics with it takes all others along.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is looked at before the seal is known.
struct Start {
    secret: Fingerprint,
    /// By which the seals of this file are others than those of any other one.
    mark: [u8; Self::MARK_LEN],
}

/// The length of all that is sealed as one, with its seal.
const HEAD_LEN: usize = Start::LEN + Header::LEN + MARK_LEN;

impl Start {
    const MARK_LEN: usize = 16;
    const LEN: usize = MAGIC.len() + 4 + Fingerprint::LEN + Self::MARK_LEN;

    fn to_bytes(&self) -> Vec<u8> {
        [&MAGIC[..], &VERSION.to_le_bytes(), self.secret.as_bytes(), &self.mark].concat()
    }

    fn read(source: &mut (impl Read + Seek)) -> Result<Self, Refusal> {
        source.rewind()?;
        let (mut magic, mut version, mut secret) = ([0; 8], [0; 4], [0; Fingerprint::LEN]);
        let begun = source.read_exact(&mut magic);
        if magic != MAGIC {
            // Too short is no failure of the disk.
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
        let mut mark = [0; Self::MARK_LEN];
        source.read_exact(&mut mark)?;
        Ok(Self { secret: Fingerprint::from_bytes(secret), mark })
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
                .map_err(|_| Refusal::Unreadable("it names a time that there is not"))
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

/// The first bytes, which must be there.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (first, rest) = bytes.split_at(N);
    *bytes = rest;
    std::array::from_fn(|at| first[at])
}

#[cfg(test)]
mod tests;
