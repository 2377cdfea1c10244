//! Configuration errors.

use std::{error::Error, fmt};

/// One problem: its location, what is wrong, and the remedy. `Display` is one line and
/// holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(String);

/// All problems of a configuration, at least one. `Display` writes one line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Problem>);

impl Problem {
    /// A problem that names its own location.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// A problem with a value, and the source of that value.
    pub(super) fn at(origin: &str, what: impl fmt::Display) -> Self {
        Self(format!("{origin}: {what}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names of files and keys may contain any character, including line breaks.
        self.0.chars().try_for_each(|c| {
            if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") }
        })
    }
}

impl ConfigErrors {
    pub(super) const fn new(problems: Vec<Problem>) -> Self {
        Self(problems)
    }

    pub(super) fn unless_empty(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }

    /// The problems, in the order of their sources.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl Error for ConfigErrors {}
