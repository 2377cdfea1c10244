//! The end file: the length of the journal, so that a truncated journal is detected.
//!
//! ```text
//! magic 8 · version 4 · fingerprint of the secret 8 · lineage 16 · next 8 · tag 16
//! serial 8 · upcoming 8 · seal 32, over everything before it
//! ```
//!
//! It is overwritten after each flush of the journal, and before and after a snapshot is
//! renamed into place. It fits into one disk sector, so a write is never partial.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
};

use super::{
    Refusal,
    files::{Files, open_private},
    format::{Lineage, take},
    journal::{TAG_LEN, Tag},
    seal::{MARK_LEN, Seal, Seals},
};
use crate::key::Fingerprint;

const MAGIC: [u8; 8] = *b"ks-last\n";
const VERSION: u32 = 2;
const BODY_LEN: usize = MAGIC.len() + 4 + Fingerprint::LEN + 16 + 8 + TAG_LEN + 8 + 8;
const LEN: usize = BODY_LEN + MARK_LEN;

/// Lower bound of what the snapshot and the journal contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) lineage: Lineage,
    /// Number of changes journaled in this lineage.
    pub(super) next: u64,
    /// Tag of the last of them, which distinguishes it from another change with the same
    /// number.
    pub(super) tag: Tag,
    /// Serial of the last snapshot renamed into place.
    pub(super) serial: u64,
    /// Serial of the snapshot about to be renamed into place, else `serial`. A later serial
    /// comes from a different set of files.
    pub(super) upcoming: u64,
}

impl End {
    /// Reads the end file of a snapshot and keeps it open for overwriting.
    pub(super) fn open(files: &Files, seals: &Seals) -> Result<(Self, File), Refusal> {
        let file = open_private(&files.end, true)?.ok_or(Refusal::NoEnd)?;
        let mut bytes = Vec::with_capacity(LEN);
        (&file).take(LEN as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() != LEN {
            return Err(Refusal::ChangesDamaged);
        }
        let mut rest = bytes.as_slice();
        let known = take(&mut rest) == MAGIC && u32::from_le_bytes(take(&mut rest)) == VERSION;
        let secret = Fingerprint::from_bytes(take(&mut rest));
        if !known {
            return Err(Refusal::ChangesDamaged);
        }
        let mut sealing = seals.find(secret).ok_or(Refusal::OtherSecret)?.begin();
        sealing.update(&bytes[..BODY_LEN]);
        let lineage = take(&mut rest);
        let next = u64::from_le_bytes(take(&mut rest));
        let tag = take(&mut rest);
        let serial = u64::from_le_bytes(take(&mut rest));
        let upcoming = u64::from_le_bytes(take(&mut rest));
        if sealing.is(&take(&mut rest)) {
            Ok((Self { lineage, next, tag, serial, upcoming }, file))
        } else {
            Err(Refusal::ChangesDamaged)
        }
    }

    /// Writes a new file and renames it over the existing one.
    pub(super) fn begin(self, files: &Files, seal: &Seal) -> io::Result<File> {
        let mut file = Files::draft(&files.end)?;
        file.write_all(&self.to_bytes(seal))?;
        file.sync_all()?;
        files.replace(&files.end)?;
        Ok(file)
    }

    /// Overwrites an open end file and flushes it.
    pub(super) fn write(self, file: &File, seal: &Seal) -> io::Result<()> {
        file.write_all_at(&self.to_bytes(seal), 0)?;
        file.sync_data()
    }

    fn to_bytes(self, seal: &Seal) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), seal.secret().as_bytes()].concat();
        bytes.extend_from_slice(&self.lineage);
        bytes.extend_from_slice(&self.next.to_le_bytes());
        bytes.extend_from_slice(&self.tag);
        bytes.extend_from_slice(&self.serial.to_le_bytes());
        bytes.extend_from_slice(&self.upcoming.to_le_bytes());
        let mut sealing = seal.begin();
        sealing.update(&bytes);
        bytes.extend_from_slice(&sealing.finish());
        bytes
    }
}
