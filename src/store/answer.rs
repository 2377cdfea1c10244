//! What a store answers. An absence is evidence for a denial, so that it can
//! be made here alone, from a query that the store answered.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;

use super::StoreError;
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
    Found(Arc<Known>),
    /// That there is none.
    Absent(Absence),
}

/// A record as it is held in memory, with a note of when it was last used.
#[derive(Debug)]
pub struct Known {
    record: KeyRecord,
    /// Microseconds since the epoch.
    used_at: AtomicI64,
}

impl Known {
    /// Holds a record in memory.
    pub(crate) fn new(record: KeyRecord) -> Self {
        let used_at = record.last_used_at.map_or(i64::MIN, Timestamp::as_microsecond);
        Self { record, used_at: AtomicI64::new(used_at) }
    }

    /// Notes a use. True when the last use that was noted is at least `every`
    /// ago, so that of many uses one in that time is worth storing.
    #[must_use]
    pub fn note_use(&self, now: Timestamp, every: Duration) -> bool {
        let every = i64::try_from(every.as_micros()).unwrap_or(i64::MAX);
        let now = now.as_microsecond();
        let last = self.used_at.load(Ordering::Relaxed);
        let due = last.saturating_add(every) <= now;
        due && self
            .used_at
            .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

impl Deref for Known {
    type Target = KeyRecord;

    fn deref(&self) -> &KeyRecord {
        &self.record
    }
}

/// Two are the same when their records are.
impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.record == other.record
    }
}

impl Eq for Known {}

impl PartialEq<KeyRecord> for Known {
    fn eq(&self, other: &KeyRecord) -> bool {
        self.record == *other
    }
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
                        row.map(|record| Answer::Found(Arc::new(Known::new(record))))
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
    use crate::key::{Revision, Rights, State};

    fn record(last_used_at: Option<Timestamp>) -> KeyRecord {
        KeyRecord {
            id: "key_1".parse().unwrap(),
            hint: String::new(),
            secret: None,
            rights: Rights::default(),
            state: State::Active,
            created_at: Timestamp::UNIX_EPOCH,
            last_used_at,
            revision: Revision(1),
        }
    }

    #[test]
    fn of_many_uses_one_a_minute_is_worth_storing() {
        let minute = Duration::from_mins(1);
        let start = Timestamp::constant(1_800_000_000, 0);
        let known = Known::new(record(None));
        assert!(known.note_use(start, minute));
        assert!(!known.note_use(start, minute));
        assert!(!known.note_use(start + Duration::from_secs(59), minute));
        assert!(known.note_use(start + minute, minute));
    }

    #[test]
    fn a_use_that_is_stored_already_is_not_stored_again() {
        let start = Timestamp::constant(1_800_000_000, 0);
        let known = Known::new(record(Some(start)));
        assert!(!known.note_use(start + Duration::from_secs(59), Duration::from_mins(1)));
    }

    #[test]
    fn only_a_digest_that_was_asked_for_can_be_absent() {
        let asked = Digest::from_bytes([1; 32]);
        let other = Digest::from_bytes([2; 32]);
        let lookup = Lookup::answered(&[asked], []);
        assert!(matches!(lookup.get(&asked), Some(Answer::Absent(_))));
        assert_eq!(lookup.get(&other), None);
    }
}
