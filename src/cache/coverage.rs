//! How far the changes of the store have reached the memory.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::time::{AtomicInstant, ShortInstant, nanos};

/// The span of time whose changes have all been brought to the memory: what the
/// store said within it is as good as what it would say at its end.
///
/// Written by the feed alone, read by every hit. Reading takes no lock.
#[derive(Debug)]
pub struct Coverage {
    /// Since when no change has been missed.
    since: AtomicInstant,
    /// As of when all changes had been brought.
    until: AtomicInstant,
    /// What was validated before was read from a snapshot, and is not fresh: the
    /// changes since then have not been replayed.
    unreplayed: AtomicInstant,
    /// Whether they still can be.
    replaying: AtomicBool,
    /// What was read before was read from another server than the changes now.
    history: AtomicInstant,
    /// Whether the data that the store answers with are older than `store.max_lag`.
    lagging: AtomicBool,
    /// How long the feed may be silent before its word is no longer good, in
    /// nanoseconds.
    grace: i64,
}

impl Coverage {
    /// Covers nothing yet. When the feed was last up to date longer than `grace`
    /// ago, its word is no longer good.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        let [since, until, unreplayed, history] = Default::default();
        let [replaying, lagging] = Default::default();
        Self { since, until, unreplayed, replaying, history, lagging, grace: nanos(grace) }
    }

    /// Every change that was made before `as_of` has been brought. The first
    /// call begins the span; later ones prolong it.
    pub fn confirm(&self, as_of: Instant) {
        self.since.get_or_set(as_of);
        self.until.set(Some(as_of));
        if self.replaying.swap(false, Ordering::Relaxed) {
            self.unreplayed.set(None);
        }
    }

    /// Changes were missed that were made before `now`: the span begins anew.
    pub fn begin_anew(&self, now: Instant) {
        self.replaying.store(false, Ordering::Relaxed);
        // In this order: a reader that sees the new end sees the new beginning.
        self.since.set(Some(now));
        self.until.set(Some(now));
    }

    /// From `now` on another server answers: numbers of what was read before say
    /// nothing beside its changes.
    pub fn new_history(&self, now: Instant) {
        self.history.set(Some(now));
    }

    /// Since when numbers can be compared with those of changes; `None` when all can.
    #[must_use]
    pub fn history(&self) -> Option<Instant> {
        self.history.get()
    }

    /// Whether the data that the store answers with are too old now for anything to
    /// be fresh, or for a key to be absent.
    pub fn lags(&self, lagging: bool) {
        self.lagging.store(lagging, Ordering::Relaxed);
    }

    /// See [`Coverage::lags`]. One atomic read.
    #[must_use]
    pub fn is_lagging(&self) -> bool {
        self.lagging.load(Ordering::Relaxed)
    }

    /// The memory was filled from a snapshot at `now`, which missed no change
    /// since `since`; none of it is fresh until the changes have been replayed.
    pub fn resume(&self, since: Instant, now: Instant) {
        self.unreplayed.set(Some(now));
        self.replaying.store(true, Ordering::Relaxed);
        self.since.set(Some(since));
    }

    /// Until when what was validated then is good by the word of the feed; `None`
    /// when it is not covered.
    #[must_use]
    pub fn good_until(&self, validated_at: ShortInstant) -> Option<ShortInstant> {
        let until = self.until.short()?;
        (self.since.short()? <= validated_at).then(|| until.later_by(self.grace))
    }

    /// Whether what was validated then may count as fresh at all: it was
    /// validated by this process, or all changes since the snapshot have been
    /// replayed.
    #[must_use]
    pub fn is_replayed(&self, validated_at: ShortInstant) -> bool {
        self.unreplayed.short().is_none_or(|restored| validated_at >= restored)
    }

    /// Since when no change has been missed; `None` before the first word of the
    /// feed.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        self.since.get()
    }

    /// As of when all changes had been brought; `None` before the first word of
    /// the feed.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.until.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn good_until(coverage: &Coverage, validated_at: Instant) -> Option<Instant> {
        coverage.good_until(validated_at.into()).map(Instant::from)
    }

    fn is_replayed(coverage: &Coverage, validated_at: Instant) -> bool {
        coverage.is_replayed(validated_at.into())
    }

    #[test]
    fn what_was_validated_within_the_span_is_good_until_the_feed_has_been_silent_for_the_grace() {
        let start = Instant::now();
        let coverage = Coverage::new(3 * SECOND);
        assert_eq!(good_until(&coverage, start), None, "the feed has not spoken");
        coverage.confirm(start + SECOND);
        assert_eq!(good_until(&coverage, start), None, "it was validated before the span");
        coverage.confirm(start + 5 * SECOND);
        assert_eq!(good_until(&coverage, start + SECOND), Some(start + 8 * SECOND));
        assert_eq!(coverage.since(), Some(start + SECOND));
    }

    #[test]
    fn a_gap_ends_the_cover_of_all_that_was_validated_before_it() {
        let start = Instant::now();
        let coverage = Coverage::new(SECOND);
        coverage.confirm(start);
        coverage.begin_anew(start + 9 * SECOND);
        assert_eq!(good_until(&coverage, start + 8 * SECOND), None);
        assert_eq!(good_until(&coverage, start + 9 * SECOND), Some(start + 10 * SECOND));
    }

    #[test]
    fn what_came_from_a_snapshot_counts_when_the_changes_since_are_replayed() {
        let start = Instant::now();
        let before = start.checked_sub(60 * SECOND).unwrap();
        let coverage = Coverage::new(SECOND);
        assert!(is_replayed(&coverage, before), "there is no snapshot");
        coverage.resume(before, start);
        assert!(!is_replayed(&coverage, before) && is_replayed(&coverage, start));
        assert_eq!(good_until(&coverage, before), None);
        coverage.confirm(start + SECOND);
        assert!(is_replayed(&coverage, before));
        assert_eq!(good_until(&coverage, before), Some(start + 2 * SECOND));
        let earlier = before.checked_sub(SECOND).unwrap();
        assert_eq!(good_until(&coverage, earlier), None, "the snapshot's own span began later");
    }

    #[test]
    fn what_came_from_a_snapshot_never_counts_when_the_changes_since_cannot_be_replayed() {
        let start = Instant::now();
        let before = start.checked_sub(SECOND).unwrap();
        let coverage = Coverage::new(SECOND);
        coverage.resume(before, start);
        coverage.begin_anew(start + SECOND);
        coverage.confirm(start + 2 * SECOND);
        assert!(!is_replayed(&coverage, before) && is_replayed(&coverage, start));
    }
}
