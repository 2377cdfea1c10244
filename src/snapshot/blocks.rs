//! Blocks with a seal each, so that they can be checked one by one and by several
//! threads at once.
//!
//! The seal of a block covers the seal of the head, which is another one for each
//! file, and the number of the block: none can be taken out, moved, repeated or
//! brought from another file. The end has a seal of the same kind.

use std::io::{self, Read, Write};

use super::{
    Refusal,
    entries::MAX_ENTRY_BYTES,
    seal::{MARK_LEN, Mark, Seal, Sealing},
};

/// How many bytes a block has when it is full; the last entry may go beyond. To seal and
/// write so much takes some ten microseconds.
pub(super) const BLOCK_BYTES: usize = 1 << 14;

const MAX_BLOCK_BYTES: usize = BLOCK_BYTES + 2 * MAX_ENTRY_BYTES;

/// What a file ends with, behind the last seal.
pub(super) const END: [u8; 8] = *b"ks-end.\n";

/// How long the part behind the last block is.
pub(super) const END_LEN: usize = 4 + 8 + MARK_LEN + END.len();

/// A seal that is to be put under the next block.
#[derive(Debug, Clone)]
struct Chain {
    seal: Seal,
    head: Mark,
    number: u64,
}

impl Chain {
    fn new(seal: Seal, head: Mark) -> Self {
        Self { seal, head, number: 0 }
    }

    fn next(&mut self, length: [u8; 4]) -> Sealing {
        let mut sealing = self.seal.begin();
        sealing.update(&self.head);
        sealing.update(&self.number.to_le_bytes());
        sealing.update(&length);
        self.number += 1;
        sealing
    }
}

/// Writes blocks behind a head.
pub(super) struct Writer<W> {
    inner: W,
    chain: Chain,
}

impl<W: Write> Writer<W> {
    /// Puts the head, and its seal under it.
    pub(super) fn begin(mut inner: W, seal: &Seal, head: &[u8]) -> io::Result<Self> {
        let mut sealing = seal.begin();
        sealing.update(head);
        let mark = sealing.finish();
        inner.write_all(head)?;
        inner.write_all(&mark)?;
        Ok(Self { inner, chain: Chain::new(seal.clone(), mark) })
    }

    /// Puts a block, which is not empty.
    pub(super) fn put(&mut self, block: &[u8]) -> io::Result<()> {
        let length = u32::try_from(block.len()).map_err(io::Error::other)?;
        self.part(length.to_le_bytes(), block)
    }

    /// Puts the end, which says how many entries there are.
    pub(super) fn finish(mut self, count: u64) -> io::Result<W> {
        self.part([0; 4], &count.to_le_bytes())?;
        self.inner.write_all(&END)?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn part(&mut self, length: [u8; 4], bytes: &[u8]) -> io::Result<()> {
        let mut sealing = self.chain.next(length);
        sealing.update(bytes);
        self.inner.write_all(&length)?;
        self.inner.write_all(bytes)?;
        self.inner.write_all(&sealing.finish())
    }
}

/// Reads the blocks behind a head whose seal is right.
#[derive(Debug)]
pub(super) struct Reader<R> {
    source: R,
    chain: Chain,
    /// How many entries there are, once the end was read.
    count: Option<u64>,
    stopped: bool,
}

/// A block of which nothing may be believed yet.
pub(super) struct Unchecked {
    sealing: Sealing,
    mark: Mark,
}

impl<R: Read> Reader<R> {
    /// From behind the seal of the head, `head`.
    pub(super) fn new(source: R, seal: Seal, head: Mark) -> Self {
        Self { source, chain: Chain::new(seal, head), count: None, stopped: false }
    }

    /// The same, over another file.
    #[cfg(test)]
    pub(super) fn over<S>(self, source: S) -> Reader<S> {
        let Self { chain, count, stopped, .. } = self;
        Reader { source, chain, count, stopped }
    }

    /// Puts the next block into `bytes`; `None` when there is no further one, or
    /// somebody has stopped.
    pub(super) fn next(&mut self, bytes: &mut Vec<u8>) -> Result<Option<Unchecked>, Refusal> {
        if self.stopped {
            return Ok(None);
        }
        let length = self.array()?;
        let sealing = self.chain.next(length);
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length == 0 {
            self.end(sealing)?;
            return Ok(None);
        }
        if length > MAX_BLOCK_BYTES {
            return Err(Refusal::Changed);
        }
        bytes.resize(length, 0);
        self.fill(bytes)?;
        Ok(Some(Unchecked { sealing, mark: self.array()? }))
    }

    /// Reads the end, behind which there is nothing.
    fn end(&mut self, mut sealing: Sealing) -> Result<(), Refusal> {
        let count = self.array()?;
        sealing.update(&count);
        let is_sealed = sealing.is(&self.array()?);
        if !is_sealed || self.array()? != END || self.source.read(&mut [0])? != 0 {
            return Err(Refusal::Changed);
        }
        self.count = Some(u64::from_le_bytes(count));
        self.stopped = true;
        Ok(())
    }

    /// Ends the reading for all who share it.
    pub(super) const fn stop(&mut self) {
        self.stopped = true;
    }

    /// How many entries there should be; `None` before the end.
    pub(super) const fn count(&self) -> Option<u64> {
        self.count
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// That there is an end was seen before: what is missing is missing within.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Refusal> {
        self.source.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Refusal::Changed,
            _ => Refusal::Io(error),
        })
    }
}

impl Unchecked {
    /// The block, if its seal is right.
    pub(super) fn checked(self, bytes: &[u8]) -> Result<&[u8], Refusal> {
        let Self { mut sealing, mark } = self;
        sealing.update(bytes);
        if sealing.is(&mark) { Ok(bytes) } else { Err(Refusal::Changed) }
    }
}
