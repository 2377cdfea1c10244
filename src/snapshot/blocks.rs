//! Sealed blocks, checked independently and by several threads at once.
//!
//! The seal of a block covers the seal of the head, which is unique to each file, and the block
//! number: no block can be removed, moved, repeated or copied from another file. The end of the
//! file has a seal of the same kind.

use std::io::{self, Read, Write};

use super::{
    Refusal,
    entries::MAX_ENTRY_BYTES,
    seal::{MARK_LEN, Mark, Seal, Sealing},
};

/// Size in bytes at which a block is written; its last entry may exceed it. Sealing and writing
/// one takes about ten microseconds.
pub(super) const BLOCK_BYTES: usize = 1 << 14;

const MAX_BLOCK_BYTES: usize = BLOCK_BYTES + 2 * MAX_ENTRY_BYTES;

/// Trailer of a file, after the last seal.
pub(super) const END: [u8; 8] = *b"ks-end.\n";

/// Length in bytes of everything after the last block.
pub(super) const END_LEN: usize = 4 + 8 + MARK_LEN + END.len();

/// Computes the seal of the next block.
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

/// Writes blocks after a head.
pub(super) struct Writer<W> {
    inner: W,
    chain: Chain,
}

impl<W: Write> Writer<W> {
    /// Writes the head and its seal.
    pub(super) fn begin(mut inner: W, seal: &Seal, head: &[u8]) -> io::Result<Self> {
        let mut sealing = seal.begin();
        sealing.update(head);
        let mark = sealing.finish();
        inner.write_all(head)?;
        inner.write_all(&mark)?;
        Ok(Self { inner, chain: Chain::new(seal.clone(), mark) })
    }

    /// Writes a non-empty block.
    pub(super) fn put(&mut self, block: &[u8]) -> io::Result<()> {
        let length = u32::try_from(block.len()).map_err(io::Error::other)?;
        self.part(length.to_le_bytes(), block)
    }

    /// Writes the end of the file with its entry count.
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

/// Reads the blocks after a head whose seal has been verified.
#[derive(Debug)]
pub(super) struct Reader<R> {
    source: R,
    chain: Chain,
    /// Number of entries; `None` until the end of the file is read.
    count: Option<u64>,
    stopped: bool,
}

/// A block whose seal has not been verified.
pub(super) struct Unchecked {
    sealing: Sealing,
    mark: Mark,
}

impl<R: Read> Reader<R> {
    /// Reads from the end of the head's seal `head`.
    pub(super) fn new(source: R, seal: Seal, head: Mark) -> Self {
        Self { source, chain: Chain::new(seal, head), count: None, stopped: false }
    }

    /// Continues on another source.
    #[cfg(test)]
    pub(super) fn over<S>(self, source: S) -> Reader<S> {
        let Self { chain, count, stopped, .. } = self;
        Reader { source, chain, count, stopped }
    }

    /// Reads the next block into `bytes`; `None` at the end of the file or after
    /// [`stop`](Self::stop).
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

    /// Reads the end of the file; further bytes are refused.
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

    /// Stops every thread that shares the reader.
    pub(super) const fn stop(&mut self) {
        self.stopped = true;
    }

    /// Expected number of entries; `None` before the end of the file.
    pub(super) const fn count(&self) -> Option<u64> {
        self.count
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// `Sealed::open` has found the trailer, so missing bytes are damage and not a truncated
    /// file.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Refusal> {
        self.source.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Refusal::Changed,
            _ => Refusal::Io(error),
        })
    }
}

impl Unchecked {
    /// Returns the block if its seal is valid.
    pub(super) fn checked(self, bytes: &[u8]) -> Result<&[u8], Refusal> {
        let Self { mut sealing, mark } = self;
        sealing.update(bytes);
        if sealing.is(&mark) { Ok(bytes) } else { Err(Refusal::Changed) }
    }
}
