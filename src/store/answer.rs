//! What a store answers. An absence is evidence for a denial, so that it can
//! be made here alone, from a query that the store answered.

use std::collections::HashMap;

use super::{Known, StoreError};
use crate::key::{Digest, KeyRecord};

/// Evidence that the store answered: no such key.
///
/// It has no public constructor, and nothing converts into it. It is made from
/// a [`Lookup`] alone, and a lookup from rows that a store returned. Whoever was
/// given one can hand it on:
///
/// ```
/// use keystead::store::Absence;
/// fn evidence(given: Absence) -> Absence {
///     given
/// }
/// ```
///
/// but nobody can make one:
///
/// ```compile_fail,E0423
/// use keystead::store::Absence;
/// fn evidence(given: Absence) -> Absence {
///     Absence(())
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence(());

/// What a store knows about one digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Its record.
    Found(Known),
    /// That there is none.
    Absent(Absence),
}

/// The store's answer to one query: for every digest that was asked for a
/// record, an absence, or why its row cannot be read.
#[derive(Debug)]
pub struct Lookup {
    answers: HashMap<Digest, Result<Answer, StoreError>>,
}

impl Lookup {
    /// Only an engine that has read every row of a successful query may call
    /// this.
    pub(super) fn answered(
        asked: &[Digest],
        rows: impl IntoIterator<Item = (Digest, Result<KeyRecord, StoreError>)>,
    ) -> Self {
        let mut answers: HashMap<_, _> =
            asked.iter().map(|digest| (*digest, Ok(Answer::Absent(Absence(()))))).collect();
        for (digest, row) in rows {
            if let Some(answer) = answers.get_mut(&digest) {
                *answer = match (&answer, row) {
                    (Ok(Answer::Absent(_)), row) => {
                        row.map(|record| Answer::Found(Known::from(&record)))
                    }
                    // A view that was brought along may show a digest twice.
                    // Which of the rows counts cannot be told, so that none does.
                    (Ok(Answer::Found(_)) | Err(_), _) => Err(StoreError::unreadable(format!(
                        "there are two keys with the digest {}",
                        digest.to_hex()
                    ))),
                };
            }
        }
        Self { answers }
    }

    /// The answer for a digest; `None` if there is none: the query did not ask
    /// for it, or its row cannot be read.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<&Answer> {
        self.answers.get(digest)?.as_ref().ok()
    }

    /// Why the row of a digest that was asked for cannot be read.
    #[must_use]
    pub fn unreadable(&self, digest: &Digest) -> Option<&StoreError> {
        self.answers.get(digest)?.as_ref().err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_digest_that_was_asked_for_can_be_absent() {
        let asked = Digest::from_bytes([1; 32]);
        let other = Digest::from_bytes([2; 32]);
        let lookup = Lookup::answered(&[asked], []);
        assert!(matches!(lookup.get(&asked), Some(Answer::Absent(_))));
        assert_eq!(lookup.get(&other), None);
    }
}
