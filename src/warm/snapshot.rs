//! The format of a snapshot.
//!
//! ```text
//! magic 8 · version 4 · fingerprint of the secret 8
//! store 32 · lineage 16 · created_at 8 · position 8 · covered_since 8 · noted 8
//! landmark: kind 1 · revision 8 · digest 32
//! one after the other: length 4 · digest 32 · validated_at 8 · record
//! length 0 · count 8
//! seal 32, over everything before it
//! magic 8
//! ```
//!
//! Numbers are little-endian, times microseconds since 1970. The seal is checked
//! before anything behind the fingerprint is looked at.

use std::{
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    mem,
    num::NonZeroUsize,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, ScopedJoinHandle},
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Refusal, landmark, record,
    seal::{MARK_LEN, Seal, SealedReader, SealedWriter, Seals},
};
use crate::{
    key::{Digest, Fingerprint, KeyRecord, Revision},
    store::{Known, Position, StoreIdentity},
    time::Moment,
};

/// The version of the format. Records may gain fields without a new one.
pub(super) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"ks-snap\n";
const END: [u8; 8] = *b"ks-end.\n";

/// The most bytes that one entry may take: several times what a key within the
/// bounds of `key::bounds` takes. A larger one, from a table that was brought
/// along, is not kept.
const MAX_ENTRY_BYTES: usize = 1 << 20;

/// What stands before the record of an entry.
const ENTRY_HEAD_BYTES: usize = Digest::LEN + 8;

/// How much is read and written at once.
const BUFFER_BYTES: usize = 1 << 18;

/// How many entries are written between two looks at whether to go on.
const LOOK_EVERY: u64 = 1024;

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
    /// The record.
    pub record: KeyRecord,
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
    entries: impl Iterator<Item = (Digest, Arc<Known>, Instant)>,
    go_on: impl Fn() -> bool,
) -> io::Result<u64> {
    let seal = seals.first();
    let mut out = SealedWriter::new(BufWriter::with_capacity(BUFFER_BYTES, to), seal.begin());
    out.put(&MAGIC)?;
    out.put(&VERSION.to_le_bytes())?;
    out.put(seal.secret().as_bytes())?;
    out.put(&header.to_bytes())?;

    let mut count: u64 = 0;
    let mut bytes = Vec::new();
    for (digest, known, validated_at) in entries {
        bytes.clear();
        bytes.extend_from_slice(digest.as_bytes());
        bytes.extend_from_slice(&now.wall_at(validated_at).as_microsecond().to_le_bytes());
        record::write(&known, &mut bytes);
        if let Ok(length @ ..=MAX_LENGTH) = u32::try_from(bytes.len()) {
            out.put(&length.to_le_bytes())?;
            out.put(&bytes)?;
            count += 1;
        }
        if count.is_multiple_of(LOOK_EVERY) && !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    out.put(&0_u32.to_le_bytes())?;
    out.put(&count.to_le_bytes())?;
    let mut out = out.finish()?;
    out.write_all(&END)?;
    out.flush()?;
    Ok(count)
}

#[expect(clippy::cast_possible_truncation, reason = "it is a constant far below the bound")]
const MAX_LENGTH: u32 = MAX_ENTRY_BYTES as u32;

/// A snapshot whose seal is right.
#[derive(Debug)]
pub struct Sealed<R> {
    source: R,
    seal: Seal,
    header: Header,
}

impl<R: Read + Seek> Sealed<R> {
    /// Reads all of it and checks its seal, and then what it says of itself.
    pub fn open(mut source: R, seals: &Seals) -> Result<Self, Refusal> {
        let seal = check(&mut source, seals)?;
        let mut reader = restart(&mut source, &seal)?;
        let header = Header::read(reader.array()?)?;
        Ok(Self { source, seal, header })
    }

    /// What it says of itself.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Hands out all entries, in no order, on at most as many threads as there are cores.
    ///
    /// Follows the seal a second time: when what is read now is not what was
    /// checked, it is refused, with some entries already handed out.
    pub fn read(mut self, entry: impl Fn(Entry) + Sync) -> Result<(), Refusal> {
        // No more threads than there are batches.
        let batches = self.source.seek(io::SeekFrom::End(0))? / BUFFER_BYTES as u64 + 1;
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let cores = usize::try_from(batches).map_or(cores, |batches| cores.min(batches));
        thread::scope(|scope| {
            let (sender, batches) = mpsc::sync_channel(2 * cores);
            let batches = Arc::new(Mutex::new(batches));
            let parsers: Vec<_> = (0..cores)
                .map(|_| {
                    let (batches, entry) = (Arc::clone(&batches), &entry);
                    scope.spawn(move || parse(&batches, entry))
                })
                .collect();
            // Who sends must notice when nobody takes any more.
            drop(batches);
            let split = self.split(&sender);
            drop(sender);
            // All of them, whatever the first one says: they are gone afterwards.
            let parsed: Vec<_> = parsers.into_iter().map(ScopedJoinHandle::join).collect();
            let parsed = parsed.into_iter().map(|it| it.unwrap_or_else(|died| resume_unwind(died)));
            parsed.collect::<Result<(), _>>().and(split)
        })
    }

    /// Cuts the file into batches of whole entries, and follows its seal.
    fn split(&mut self, batches: &SyncSender<Batch>) -> Result<(), Refusal> {
        let mut reader = restart(&mut self.source, &self.seal)?;
        reader.array::<{ Header::LEN }>()?;
        let mut count: u64 = 0;
        let mut batch = Batch::default();
        loop {
            let length = u32::from_le_bytes(reader.array()?);
            if length == 0 {
                break;
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if !(ENTRY_HEAD_BYTES..=MAX_ENTRY_BYTES).contains(&length) {
                return Err(Refusal::Unreadable("an entry in it has an impossible length"));
            }
            let start = batch.bytes.len();
            batch.bytes.resize(start + length, 0);
            reader.fill(&mut batch.bytes[start..])?;
            batch.ends.push(start + length);
            count += 1;
            if batch.bytes.len() >= BUFFER_BYTES && batches.send(mem::take(&mut batch)).is_err() {
                // They say why.
                return Ok(());
            }
        }
        // They say why.
        let _ = batches.send(batch);
        if u64::from_le_bytes(reader.array()?) != count {
            return Err(Refusal::Unreadable("it does not hold as many entries as it says"));
        }
        if reader.ends_sealed()? { Ok(()) } else { Err(Refusal::Changed) }
    }
}

/// Some entries, one after the other.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

/// Parses batches until there are no more, or one cannot be parsed.
fn parse(batches: &Mutex<Receiver<Batch>>, entry: impl Fn(Entry)) -> Result<(), Refusal> {
    loop {
        let batch = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Batch { bytes, ends }) = batch else {
            return Ok(());
        };
        let mut start = 0;
        for end in ends {
            entry(Entry::read(&bytes[start..end])?);
            start = end;
        }
    }
}

/// Whether the seal belongs to everything before it.
fn check(source: &mut (impl Read + Seek), seals: &Seals) -> Result<Seal, Refusal> {
    const TAIL: u64 = (MARK_LEN + END.len()) as u64;
    let length = source.seek(io::SeekFrom::End(0))?;
    let start = Start::read(source)?;
    if length < Start::LEN as u64 + TAIL {
        return Err(Refusal::CutOff);
    }
    source.seek(io::SeekFrom::Start(length - END.len() as u64))?;
    let mut end = END;
    source.read_exact(&mut end)?;
    if end != END {
        return Err(Refusal::CutOff);
    }
    let seal = seals.find(start.secret).ok_or(Refusal::OtherSecret)?;
    source.rewind()?;
    let mut sealing = seal.begin();
    let mut left = length - TAIL;
    let mut buffer = vec![0; BUFFER_BYTES];
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        source.read_exact(&mut buffer[..part])?;
        sealing.update(&buffer[..part]);
        left -= part as u64;
    }
    let mut mark = [0; MARK_LEN];
    source.read_exact(&mut mark)?;
    if sealing.is(&mark) { Ok(seal.clone()) } else { Err(Refusal::Changed) }
}

/// Begins again behind the fingerprint.
fn restart<'a, R: Read + Seek>(
    source: &'a mut R,
    seal: &Seal,
) -> Result<SealedReader<BufReader<&'a mut R>>, Refusal> {
    source.rewind()?;
    let source = BufReader::with_capacity(BUFFER_BYTES, source);
    let mut reader = SealedReader::new(source, seal.begin());
    reader.array::<{ Start::LEN }>()?;
    Ok(reader)
}

/// What is looked at before the seal is known.
struct Start {
    secret: Fingerprint,
}

impl Start {
    const LEN: usize = MAGIC.len() + 4 + Fingerprint::LEN;

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
        Ok(Self { secret: Fingerprint::from_bytes(secret) })
    }
}

impl Header {
    const LEN: usize = 80 + landmark::LEN;

    fn to_bytes(self) -> [u8; Self::LEN] {
        let covered_since = self.covered_since.map_or(i64::MIN, Timestamp::as_microsecond);
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend_from_slice(self.store.as_bytes());
        bytes.extend_from_slice(&self.lineage);
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
        let created_at = time(i64::from_le_bytes(take(&mut rest)))?;
        let revision = Revision(i64::from_le_bytes(take(&mut rest)));
        let covered_since = match i64::from_le_bytes(take(&mut rest)) {
            i64::MIN => None,
            micros => Some(time(micros)?),
        };
        let noted = u64::from_le_bytes(take(&mut rest));
        let position = Position { revision, landmark: landmark::read(take(&mut rest))? };
        Ok(Self { store, lineage, created_at, position, covered_since, noted })
    }
}

impl Entry {
    /// From at least [`ENTRY_HEAD_BYTES`] bytes.
    fn read(mut bytes: &[u8]) -> Result<Self, Refusal> {
        let digest = Digest::from_bytes(take(&mut bytes));
        let validated_at = Timestamp::from_microsecond(i64::from_le_bytes(take(&mut bytes)))
            .map_err(|_| Refusal::Unreadable("an entry in it names a time that there is not"))?;
        Ok(Self { digest, validated_at, record: record::read(bytes)? })
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
