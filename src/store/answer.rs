//! Answers of a store. An absence is evidence for a denial, so it can only be created here,
//! from a query that the store answered.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::{StoreError, StoreErrorKind};
use crate::key::CompactKey;
use crate::key::{Digest, KeyRecord};

/// Evidence that the store answered "no such key".
///
/// It has no public constructor and no conversions. Only a [`Lookup`] creates it, and a lookup
/// is created from rows that a store returned. Holders can pass it on:
///
/// ```
/// use keystead::store::Absence;
/// fn evidence(given: Absence) -> Absence {
///     given
/// }
/// ```
///
/// but cannot create one:
///
/// ```compile_fail,E0423
/// use keystead::store::Absence;
/// fn evidence(given: Absence) -> Absence {
///     Absence(())
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence(());

/// The store's answer for one digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The key's record.
    Found(CompactKey),
    /// No such key.
    Absent(Absence),
}

/// Age of the data in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataAge {
    /// As of the query: from a primary, or from a standby that has replayed everything it
    /// received and is still receiving.
    Current,
    /// As of an instant at most `store.max_lag` before the query.
    Behind(Instant),
    /// As of an earlier instant.
    Lagging(Instant),
}

impl DataAge {
    /// Age of data as of `as_of`, queried at `queried_at`.
    pub(super) fn of(as_of: Instant, queried_at: Instant, max_lag: Duration) -> Self {
        match queried_at.saturating_duration_since(as_of) {
            Duration::ZERO => Self::Current,
            age if age <= max_lag => Self::Behind(as_of),
            _ => Self::Lagging(as_of),
        }
    }

    /// Instant as of which data queried at `queried_at` holds.
    #[must_use]
    pub fn as_of(self, queried_at: Instant) -> Instant {
        match self {
            Self::Current => queried_at,
            Self::Behind(as_of) | Self::Lagging(as_of) => as_of.min(queried_at),
        }
    }

    /// Whether the data is older than `store.max_lag`.
    #[must_use]
    pub const fn is_lagging(self) -> bool {
        matches!(self, Self::Lagging(_))
    }
}

/// Answer to one query: for every requested digest a record, an absence, or the reason why its
/// row is unreadable.
#[derive(Debug)]
pub struct Lookup {
    answers: HashMap<Digest, Result<Answer, StoreError>>,
    age: DataAge,
}

impl Lookup {
    /// Only an engine that has read every row of a successful query may call this.
    pub(super) fn answered(
        requested: &[Digest],
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
        let mut answers: HashMap<_, _> =
            requested.iter().map(|digest| (*digest, absent())).collect();
        for (digest, row) in rows {
            if let Some(answer) = answers.get_mut(&digest) {
                *answer = match (&answer, row) {
                    (Ok(Answer::Absent(_)), row) => {
                        row.map(|record| Answer::Found(CompactKey::from(&record)))
                    }
                    (Err(why), row) if why.kind() == StoreErrorKind::Lagging => {
                        row.map(|record| Answer::Found(CompactKey::from(&record)))
                    }
                    // A user's view may return a digest twice. Neither row can be trusted.
                    (Ok(Answer::Found(_)) | Err(_), _) => Err(StoreError::unreadable(format!(
                        "there are two keys with the digest {}",
                        digest.to_hex()
                    ))),
                };
            }
        }
        Self { answers, age }
    }

    /// Age of the data in this answer.
    #[must_use]
    pub const fn age(&self) -> DataAge {
        self.age
    }

    /// Whether a key is missing that the store may not have received yet.
    pub(super) fn lacks_for_lag(&self) -> bool {
        let lags = |answer: &Result<_, StoreError>| {
            answer.as_ref().is_err_and(|why| why.kind() == StoreErrorKind::Lagging)
        };
        self.answers.values().any(lags)
    }

    /// The answer for a digest; `None` if it was not requested or its row is unreadable.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<&Answer> {
        self.answers.get(digest)?.as_ref().ok()
    }

    /// Why the row of a requested digest is unreadable, or why its absence is no evidence.
    #[must_use]
    pub fn unreadable(&self, digest: &Digest) -> Option<&StoreError> {
        self.answers.get(digest)?.as_ref().err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_requested_digest_can_be_absent() {
        let requested = Digest::from_bytes([1; 32]);
        let other = Digest::from_bytes([2; 32]);
        let lookup = Lookup::answered(&[requested], [], DataAge::Current);
        assert!(matches!(lookup.get(&requested), Some(Answer::Absent(_))));
        assert_eq!(lookup.get(&other), None);
    }

    #[test]
    fn key_missing_on_a_standby_behind_is_no_absence() {
        let requested = Digest::from_bytes([1; 32]);
        let now = Instant::now();
        for age in [DataAge::Behind(now), DataAge::Lagging(now)] {
            let lookup = Lookup::answered(&[requested], [], age);
            assert_eq!(lookup.get(&requested), None);
            assert_eq!(lookup.unreadable(&requested).unwrap().kind(), StoreErrorKind::Lagging);
        }
    }
}
