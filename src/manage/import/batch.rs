//! All lines of one import.

use std::collections::HashMap;

use super::{bad_lines::BadLines, line::Line};
use crate::key::{Digest, KeyId, NewKey};

/// The keys that are to be imported, and the lines that cannot be.
///
/// A million lines with two scopes and a piece of metadata take about 1.1 GB
/// here, measured.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) keys: Vec<NewKey>,
    /// The line of each key.
    lines: Vec<u64>,
    pub(super) bad: BadLines,
    /// Where each digest stood first.
    seen: HashMap<Digest, u64>,
}

impl Batch {
    /// Takes a line, or why it is bad.
    pub(super) fn take(&mut self, number: u64, read: Result<Line, String>) {
        if let Err(reason) = read.and_then(|line| self.add(number, line)) {
            self.bad.add(number, reason);
        }
    }

    fn add(&mut self, number: u64, Line { digest, rights, state }: Line) -> Result<(), String> {
        if let Some(first) = self.seen.get(&digest) {
            return Err(format!("it repeats the key of line {first}; remove one of the two"));
        }
        let id = KeyId::generate().map_err(|error| error.to_string())?;
        self.seen.insert(digest, number);
        let hint = String::new();
        self.keys.push(NewKey { id, digest, secret: None, hint, rights, state });
        self.lines.push(number);
        Ok(())
    }

    /// No more lines will come: what is only needed while they do is dropped.
    pub(super) fn finish(&mut self) {
        self.seen = HashMap::new();
        self.keys.shrink_to_fit();
    }

    /// Drops the keys at these positions, which ascend, as they are stored
    /// already; their lines are bad.
    pub(super) fn drop_stored(&mut self, positions: &[usize]) {
        for position in positions {
            self.bad.add(self.lines[*position], "its key is stored already; remove the line");
        }
        drop_at(&mut self.keys, positions);
        drop_at(&mut self.lines, positions);
    }
}

/// Drops the elements at these positions, which ascend.
fn drop_at<T>(elements: &mut Vec<T>, positions: &[usize]) {
    let mut drops = positions.iter().copied().peekable();
    let mut position = 0;
    elements.retain(|_| {
        let keep = drops.next_if_eq(&position).is_none();
        position += 1;
        keep
    });
}
