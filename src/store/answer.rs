//! What a store answers. An absence is evidence for a denial, so that it can
//! be made here alone, from a query that the store answered.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::{StoreError, StoreErrorKind};
use crate::key::CompactKey;
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
    Found(CompactKey),
    /// That there is none.
    Absent(Absence),
}

/// How old the data are that a store answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataAge {
    /// Of the moment at which it was asked: a primary's, or those of a standby that
    /// has replayed all that it has received and still receives.
    Current,
    /// As of an instant that is not longer ago than `store.max_lag`.
    Behind(Instant),
    /// As of an instant that is.
    Lagging(Instant),
}

impl DataAge {
    /// Of data as of an instant, when they were asked for at another.
    pub(super) fn of(as_of: Instant, asked_at: Instant, max_lag: Duration) -> Self {
        match asked_at.saturating_duration_since(as_of) {
            Duration::ZERO => Self::Current,
            age if age <= max_lag => Self::Behind(as_of),
            _ => Self::Lagging(as_of),
        }
    }

    /// As of when the data are that were asked for at `asked_at`.
    #[must_use]
    pub fn as_of(self, asked_at: Instant) -> Instant {
        match self {
            Self::Current => asked_at,
            Self::Behind(as_of) | Self::Lagging(as_of) => as_of.min(asked_at),
        }
    }

    /// Whether they are older than `store.max_lag`.
    #[must_use]
    pub const fn is_lagging(self) -> bool {
        matches!(self, Self::Lagging(_))
    }
}

/// The store's answer to one query: for every digest that was asked for a
/// record, an absence, or why its row cannot be read.
#[derive(Debug)]
pub struct Lookup {
    answers: HashMap<Digest, Result<Answer, StoreError>>,
    age: DataAge,
}

impl Lookup {
    /// Only an engine that has read every row of a successful query may call
    /// this.
    pub(super) fn answered(
        asked: &[Digest],
        rows: impl IntoIterator<Item = (Digest, Result<KeyRecord, StoreError>)>,
        age: DataAge,
    ) -> Self {
        let absent = || match age {
            DataAge::Current => Ok(Answer::Absent(Absence(()))),
            DataAge::Behind(_) | DataAge::Lagging(_) => Err(StoreError::new(
                StoreErrorKind::Lagging,
                "a standby lacks the key that has not replayed all changes",
            )),
        };
        let mut answers: HashMap<_, _> = asked.iter().map(|digest| (*digest, absent())).collect();
        for (digest, row) in rows {
            if let Some(answer) = answers.get_mut(&digest) {
                *answer = match (&answer, row) {
                    (Ok(Answer::Absent(_)), row) => {
                        row.map(|record| Answer::Found(CompactKey::from(&record)))
                    }
                    (Err(why), row) if why.kind() == StoreErrorKind::Lagging => {
                        row.map(|record| Answer::Found(CompactKey::from(&record)))
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
        Self { answers, age }
    }

    /// How old the data are that it was answered with.
    #[must_use]
    pub const fn age(&self) -> DataAge {
        self.age
    }

    /// Whether a key is missing, and the store may only not have it yet.
    pub(super) fn lacks_for_lag(&self) -> bool {
        let lags = |answer: &Result<_, StoreError>| {
            answer.as_ref().is_err_and(|why| why.kind() == StoreErrorKind::Lagging)
        };
        self.answers.values().any(lags)
    }

    /// The answer for a digest; `None` if there is none: the query did not ask
    /// for it, or its row cannot be read.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<&Answer> {
        self.answers.get(digest)?.as_ref().ok()
    }

    /// Why the row of a digest that was asked for cannot be read, or why its absence
    /// says nothing.
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
        let lookup = Lookup::answered(&[asked], [], DataAge::Current);
        assert!(matches!(lookup.get(&asked), Some(Answer::Absent(_))));
        assert_eq!(lookup.get(&other), None);
    }

    #[test]
    fn what_a_standby_lacks_that_is_behind_is_no_absence() {
        let asked = Digest::from_bytes([1; 32]);
        let now = Instant::now();
        for age in [DataAge::Behind(now), DataAge::Lagging(now)] {
            let lookup = Lookup::answered(&[asked], [], age);
            assert_eq!(lookup.get(&asked), None);
            assert_eq!(lookup.unreadable(&asked).unwrap().kind(), StoreErrorKind::Lagging);
        }
    }
}
