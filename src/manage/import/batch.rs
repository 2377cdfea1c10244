//! All lines of one import.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use super::bad_lines::BadLines;
use crate::key::{Digest, NewKey};

/// The keys that are to be imported, and the lines that cannot be.
///
/// A million lines with two scopes and a piece of metadata take about 1.1 GB
/// here, measured.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) keys: Vec<NewKey>,
    pub(super) bad: BadLines,
    /// The first line of each digest.
    lines: HashMap<Digest, u64>,
}

impl Batch {
    /// Takes a line, or why it is bad.
    pub(super) fn take(&mut self, number: u64, read: Result<NewKey, String>) {
        match read.map(|key| (self.lines.entry(key.digest), key)) {
            Ok((Entry::Vacant(line), key)) => {
                line.insert(number);
                self.keys.push(key);
            }
            Ok((Entry::Occupied(first), _)) => {
                let first = first.get();
                let what = format!("it repeats the key of line {first}; remove one of the two");
                self.bad.add(number, what);
            }
            Err(reason) => self.bad.add(number, reason),
        }
    }

    /// Drops the keys that are stored already; their lines are bad.
    pub(super) fn drop_stored(&mut self, stored: &HashSet<Digest>) {
        for digest in stored {
            self.bad.add(self.lines[digest], "its key is stored already; remove the line");
        }
        self.keys.retain(|key| !stored.contains(&key.digest));
    }
}
