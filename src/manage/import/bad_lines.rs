//! The lines that cannot be imported.

use std::{collections::BTreeMap, fmt};

/// How many bad lines are told about. Whoever has more has one mistake that is
/// repeated, or the wrong file.
const SHOWN: usize = 20;

/// Counts bad lines, and keeps the first of them with their reasons.
#[derive(Debug, Default)]
pub struct BadLines {
    first: BTreeMap<u64, String>,
    count: usize,
}

impl BadLines {
    /// Adds a line, in any order.
    pub(super) fn add(&mut self, line: u64, reason: impl Into<String>) {
        self.count += 1;
        self.first.insert(line, reason.into());
        if self.first.len() > SHOWN {
            self.first.pop_last();
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many lines are bad.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }
}

/// One line for each of the first, and how many more there are.
impl fmt::Display for BadLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (line, reason)) in self.first.iter().enumerate() {
            let separator = if position == 0 { "" } else { "\n" };
            write!(f, "{separator}  line {line}: {reason}")?;
        }
        let more = self.count - self.first.len();
        if more > 0 { write!(f, "\n  … and {more} more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_are_told_and_the_rest_is_counted() {
        let mut bad = BadLines::default();
        assert!(bad.is_empty());
        for line in (1..=25).rev() {
            bad.add(line, "why");
        }
        let text = bad.to_string();
        assert_eq!(bad.count(), 25);
        assert!(text.starts_with("  line 1: why\n  line 2: why\n"), "{text}");
        assert!(text.ends_with("  line 20: why\n  … and 5 more"), "{text}");
    }
}
