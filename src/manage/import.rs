//! Imports keys that were minted elsewhere: a file of their digests.

mod bad_lines;
mod batch;
mod csv_lines;
mod field;
mod json_lines;
mod line;

use std::{
    collections::HashSet,
    io::{self, BufRead},
    time::Duration,
};

use tokio::time::sleep;

pub use self::bad_lines::BadLines;
use self::batch::Batch;
use crate::{
    key::Digest,
    store::{Answer, AnyStore, KeyAdmin, Lookups, Provenance, StoreError, WriteError},
};

/// How many digests are looked up at once.
const LOOKUP: usize = 1000;

/// How many keys are stored in one transaction. No other change can be written
/// meanwhile: for some tens of milliseconds.
const BATCH: usize = 250;

/// How long an embedded store is left to others after each batch. It has no queue:
/// who wants to write looks every 10 ms whether it may.
const PAUSE: Duration = Duration::from_millis(20);

/// What was imported.
#[derive(Debug)]
pub struct Imported {
    /// How many keys.
    pub keys: usize,
    /// The lines that were skipped.
    pub skipped: BadLines,
}

/// Why not all keys were imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The form of the whole file is wrong. Says the remedy.
    #[error("{0}")]
    Form(String),
    /// The file has no line with a key.
    #[error("the file holds no keys")]
    Empty,
    /// It could not be looked up which keys are stored already. Nothing was imported.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Lines are bad. Nothing was imported.
    #[error("nothing was imported, as lines are bad\n{0}")]
    BadLines(BadLines),
    /// The store did not take a batch, or may not have.
    #[error("{done} of {all} keys were imported: {error}")]
    Stopped {
        /// How many keys were imported before.
        done: usize,
        /// How many were to be.
        all: usize,
        /// Why. Duplicates were stored by others during the import.
        error: WriteError,
        /// The bad lines, those of duplicates included.
        bad: BadLines,
    },
}

/// Reads a file of CSV or JSON lines, and stores the keys that it describes.
///
/// Imports nothing if a line is bad, unless bad lines are to be skipped: one that
/// cannot be read, or whose key is stored already. Keys are stored in batches, so
/// that others can change keys meanwhile: an import that fails or is cancelled
/// leaves the batches that it had stored.
pub async fn import(
    store: &AnyStore,
    input: impl BufRead,
    skip_bad: bool,
    by: &Provenance,
) -> Result<Imported, ImportError> {
    let mut batch = read(input)?;
    if batch.keys.is_empty() && batch.bad.is_empty() {
        return Err(ImportError::Empty);
    }
    drop_stored(store, &mut batch).await?;
    if !skip_bad && !batch.bad.is_empty() {
        return Err(ImportError::BadLines(batch.bad));
    }
    let mut done = 0;
    while done < batch.keys.len() {
        let end = batch.keys.len().min(done + BATCH);
        let inserted = store.insert(&batch.keys[done..end], by).await;
        if let Err(WriteError::Duplicates(positions)) = &inserted {
            let digests = positions.iter().map(|position| batch.keys[done + position].digest);
            batch.drop_stored(&digests.collect());
        }
        match inserted {
            Ok(()) => done = end,
            Err(WriteError::Duplicates(_)) if skip_bad => {}
            Err(error) => {
                let (all, bad) = (batch.keys.len(), batch.bad);
                return Err(ImportError::Stopped { done, all, error, bad });
            }
        }
        if matches!(store, AnyStore::Sqlite(_)) && done < batch.keys.len() {
            sleep(PAUSE).await;
        }
    }
    Ok(Imported { keys: done, skipped: batch.bad })
}

/// Reads all lines, in the form that the first character tells.
fn read(mut input: impl BufRead) -> Result<Batch, ImportError> {
    let mut batch = Batch::default();
    let (blank_lines, first) = first_character(&mut input)?;
    let mut take = |line: u64, read| batch.take(line + blank_lines, read);
    match first {
        None => {}
        Some(b'{') => json_lines::read(input, &mut take)?,
        Some(b'[') => {
            return Err(ImportError::Form(
                "this is one JSON array; write an object on each line, as `jq -c '.[]'` does"
                    .to_owned(),
            ));
        }
        Some(_) => csv_lines::read(input, &mut take)?,
    }
    batch.keys.shrink_to_fit();
    Ok(batch)
}

/// Skips what is blank, and the mark that some programs put before UTF-8. Returns
/// how many lines were blank, and the first character that is not.
fn first_character(input: &mut impl BufRead) -> io::Result<(u64, Option<u8>)> {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    let mut blank_lines = 0;
    if input.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
        input.consume(BYTE_ORDER_MARK.len());
    }
    loop {
        let buffer = input.fill_buf()?;
        let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        blank_lines += buffer[..blank].split(|byte| *byte == b'\n').skip(1).count() as u64;
        if let Some(first) = buffer.get(blank).copied() {
            input.consume(blank);
            return Ok((blank_lines, Some(first)));
        }
        if blank == 0 {
            return Ok((blank_lines, None));
        }
        input.consume(blank);
    }
}

/// Adds the lines whose keys are stored already to the bad ones, so that one report
/// has all of them.
async fn drop_stored(store: &AnyStore, batch: &mut Batch) -> Result<(), StoreError> {
    let mut stored = HashSet::new();
    for chunk in batch.keys.chunks(LOOKUP) {
        let digests: Vec<_> = chunk.iter().map(|key| key.digest).collect();
        let found = store.find(&digests).await?;
        let is_stored = |digest: &Digest| matches!(found.get(digest), Some(Answer::Found(_)));
        stored.extend(digests.into_iter().filter(is_stored));
    }
    batch.drop_stored(&stored);
    Ok(())
}

#[cfg(test)]
mod tests;
