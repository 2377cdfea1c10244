//! Tombstones of revoked and deleted keys. They outrank every older row, such as one
//! from a backup that is restored under a running instance.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    key::{CompactKey, Digest, Revision, State},
    outage::Unavailable,
    store::{Change, ChangeKind},
};

/// Maximum number of tombstones, about 15 MB. Evicts the oldest deletion, or the
/// oldest revocation if there is no deletion, so that bulk deletions evict no
/// revocation. A store that revokes a thousand keys a day reaches the bound after
/// three months.
const MAX_TOMBSTONES: usize = 100_000;

/// Minimum interval between logs of outranked rows: a restored backup has many.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// How a key has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tombstone {
    /// Revoked by a row or a numbered change. Final.
    Revoked,
    /// Deleted by the change with this revision. A greater revision may recreate the
    /// row, for example when a digest is imported again.
    Deleted(Revision),
}

impl Tombstone {
    fn outranks(self, known: &CompactKey) -> bool {
        match self {
            Self::Revoked => known.state() != State::Revoked,
            Self::Deleted(deleted) => known.state() == State::Active && known.revision() <= deleted,
        }
    }
}

/// The tombstones of an instance. Consulted for answers of the store, never for hits.
#[derive(Debug, Default)]
pub(super) struct Tombstones(Mutex<Kept>);

/// Position in eviction order: deletions before revocations, each oldest first.
type Position = (bool, u64);

#[derive(Debug, Default)]
struct Kept {
    /// Each with its position in `order`.
    tombstones: HashMap<Digest, (Position, Tombstone)>,
    /// In eviction order.
    order: BTreeMap<Position, Digest>,
    next: u64,
    outranked: u64,
    logged_at: Option<Instant>,
}

impl Tombstones {
    /// Adds a tombstone. A deletion replaces neither a revocation nor a later deletion.
    pub(super) fn put(&self, digest: Digest, tombstone: Tombstone) {
        let mut kept = self.kept();
        let replaces = match (kept.get(&digest), tombstone) {
            (Some(Tombstone::Revoked), _) => false,
            (Some(Tombstone::Deleted(there)), Tombstone::Deleted(new)) => there < new,
            (None, _) | (Some(Tombstone::Deleted(_)), Tombstone::Revoked) => true,
        };
        if replaces {
            kept.remove(&digest);
            kept.add(digest, tombstone);
        }
    }

    /// Applies a numbered change.
    pub(super) fn change(&self, change: &Change) {
        match change.kind {
            ChangeKind::Revoked => self.put(change.digest, Tombstone::Revoked),
            ChangeKind::Deleted => self.put(change.digest, Tombstone::Deleted(change.revision)),
            ChangeKind::Created | ChangeKind::Updated => {
                self.clear_before(&change.digest, change.revision);
            }
        }
    }

    /// Applies tombstones to a row: the row of a revoked key becomes revoked.
    ///
    /// Fails with [`Unavailable::Suspect`] for an active row that is no newer than the
    /// deletion of its key: the row is no grant, and the deletion no denial while the
    /// store has the row. Revoked and disabled rows are always believed.
    pub(super) fn judge(
        &self,
        digest: &Digest,
        known: &CompactKey,
        now: Instant,
    ) -> Result<CompactKey, Unavailable> {
        let mut kept = self.kept();
        match kept.get(digest).filter(|it| it.outranks(known)) {
            None => Ok(known.clone()),
            Some(tombstone) => {
                kept.note_outranked(known, now);
                match tombstone {
                    Tombstone::Revoked => Ok(known.revoked()),
                    Tombstone::Deleted(_) => Err(Unavailable::Suspect),
                }
            }
        }
    }

    /// Whether a key is known to be revoked.
    pub(super) fn is_revoked(&self, digest: &Digest) -> bool {
        self.kept().get(digest) == Some(Tombstone::Revoked)
    }

    /// Whether a tombstone outranks a record.
    pub(super) fn ends(&self, digest: &Digest, known: &CompactKey) -> bool {
        self.kept().get(digest).is_some_and(|it| it.outranks(known))
    }

    /// Removes the deletion of a key if a later row or change of it has `revision`.
    pub(super) fn clear_before(&self, digest: &Digest, revision: Revision) {
        let mut kept = self.kept();
        let is_before = |it| matches!(it, Tombstone::Deleted(deleted) if deleted < revision);
        if kept.get(digest).is_some_and(is_before) {
            kept.remove(digest);
        }
    }

    /// All tombstones, in eviction order.
    pub(super) fn all(&self) -> Vec<(Digest, Tombstone)> {
        let kept = self.kept();
        kept.order.values().filter_map(|digest| Some((*digest, kept.get(digest)?))).collect()
    }

    /// Number of outranked rows.
    pub(super) fn outranked(&self) -> u64 {
        self.kept().outranked
    }

    /// Nothing panics while it holds this lock.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn get(&self, digest: &Digest) -> Option<Tombstone> {
        self.tombstones.get(digest).map(|(_, tombstone)| *tombstone)
    }

    fn add(&mut self, digest: Digest, tombstone: Tombstone) {
        let position = (tombstone == Tombstone::Revoked, self.next);
        self.tombstones.insert(digest, (position, tombstone));
        self.order.insert(position, digest);
        self.next += 1;
        if self.tombstones.len() > MAX_TOMBSTONES
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.tombstones.remove(&oldest);
        }
    }

    fn remove(&mut self, digest: &Digest) {
        if let Some((position, _)) = self.tombstones.remove(digest) {
            self.order.remove(&position);
        }
    }

    fn note_outranked(&mut self, known: &CompactKey, now: Instant) {
        self.outranked += 1;
        let is_due = |last: Instant| now.saturating_duration_since(last) >= LOG_EVERY;
        if self.logged_at.is_none_or(is_due) {
            self.logged_at = Some(now);
            tracing::warn!(
                key_id = known.id(), revision = %known.revision(),
                "the store has older rows than this instance: a key that is known to have ended \
                 is active there and stays refused; was a backup loaded?"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fake::record;

    fn nth(n: usize) -> Digest {
        Digest::sha256_of(&n.to_le_bytes())
    }

    fn row(revision: i64, state: State) -> CompactKey {
        let mut record = record("acme", revision);
        record.state = state;
        CompactKey::from(&record)
    }

    fn change(revision: i64, kind: ChangeKind) -> Change {
        Change { revision: Revision(revision), digest: nth(1), kind }
    }

    fn judged(tombstones: &Tombstones, known: &CompactKey) -> Result<State, Unavailable> {
        tombstones.judge(&nth(1), known, Instant::now()).map(|known| known.state())
    }

    #[test]
    fn revoked_key_stays_revoked_whatever_a_row_says_and_whatever_its_number_is() {
        let tombstones = Tombstones::default();
        tombstones.change(&change(7, ChangeKind::Revoked));
        for kind in [ChangeKind::Updated, ChangeKind::Deleted, ChangeKind::Created] {
            tombstones.change(&change(8, kind));
            for revision in [1, 7, 100] {
                for state in [State::Active, State::Disabled, State::Revoked] {
                    let judged = judged(&tombstones, &row(revision, state));
                    assert_eq!(judged, Ok(State::Revoked), "{revision} {state}");
                }
            }
        }
        assert_eq!(tombstones.outranked(), 3 * 3 * 2);
    }

    #[test]
    fn row_that_is_no_newer_than_the_deletion_of_its_key_is_neither_grant_nor_denial() {
        let tombstones = Tombstones::default();
        tombstones.change(&change(7, ChangeKind::Deleted));
        for revision in [1, 7] {
            let judged = judged(&tombstones, &row(revision, State::Active));
            assert_eq!(judged, Err(Unavailable::Suspect));
        }
        for state in [State::Disabled, State::Revoked] {
            assert_eq!(judged(&tombstones, &row(1, state)), Ok(state), "always believed");
        }
        assert_eq!(judged(&tombstones, &row(8, State::Active)), Ok(State::Active));
    }

    #[test]
    fn key_that_was_created_anew_is_as_its_row_says() {
        let tombstones = Tombstones::default();
        tombstones.change(&change(7, ChangeKind::Deleted));
        tombstones.change(&change(6, ChangeKind::Created));
        assert!(judged(&tombstones, &row(6, State::Active)).is_err(), "an older change");
        tombstones.change(&change(8, ChangeKind::Created));
        assert_eq!(judged(&tombstones, &row(8, State::Active)), Ok(State::Active));
        assert_eq!(tombstones.all(), []);
    }

    #[test]
    fn at_the_bound_the_oldest_makes_room_and_what_was_cleared_takes_none() {
        let tombstones = Tombstones::default();
        for n in 1..=MAX_TOMBSTONES {
            tombstones.put(nth(0), Tombstone::Deleted(Revision(1)));
            tombstones.clear_before(&nth(0), Revision(2));
            tombstones.put(nth(n), Tombstone::Revoked);
        }
        assert_eq!(tombstones.all().len(), MAX_TOMBSTONES);
        tombstones.put(nth(0), Tombstone::Revoked);
        let all = tombstones.all();
        assert_eq!((all.len(), all[0].0), (MAX_TOMBSTONES, nth(2)), "the first is gone");
        assert_eq!(all.last(), Some(&(nth(0), Tombstone::Revoked)));
    }

    #[test]
    fn deletion_is_not_forgotten_for_an_earlier_one() {
        let tombstones = Tombstones::default();
        tombstones.put(nth(1), Tombstone::Deleted(Revision(9)));
        tombstones.put(nth(1), Tombstone::Deleted(Revision(3)));
        tombstones.clear_before(&nth(1), Revision(9));
        assert_eq!(tombstones.all(), [(nth(1), Tombstone::Deleted(Revision(9)))]);
    }

    #[test]
    fn deletions_make_room_for_revocations_and_push_out_none() {
        let tombstones = Tombstones::default();
        tombstones.put(nth(1), Tombstone::Deleted(Revision(1)));
        tombstones.put(nth(1), Tombstone::Revoked);
        for n in 2..=MAX_TOMBSTONES + 2 {
            tombstones.put(nth(n), Tombstone::Deleted(Revision(1)));
        }
        let all = tombstones.all();
        assert_eq!(
            (all.len(), all[0].0),
            (MAX_TOMBSTONES, nth(4)),
            "the oldest deletions are gone"
        );
        assert_eq!(all.last(), Some(&(nth(1), Tombstone::Revoked)));
    }
}
