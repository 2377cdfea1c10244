//! Tracks the time span whose changes the feed has applied to the cache.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::time::{AtomicInstant, ShortInstant, nanos};

/// The time span whose changes have all been applied to the cache: an answer read
/// within it is as good as one read at its end.
///
/// Only the feed writes it; every hit reads it without a lock.
#[derive(Debug)]
pub struct Coverage {
    /// Start of the span: no later change was missed.
    since: AtomicInstant,
    /// End of the span: all earlier changes have been applied.
    until: AtomicInstant,
    /// Records validated before this came from a snapshot whose later changes have not
    /// been replayed; they are not fresh.
    unreplayed: AtomicInstant,
    /// Whether those changes can still be replayed.
    replaying: AtomicBool,
    /// Answers read before this came from another server than the present changes.
    history: AtomicInstant,
    /// Whether the data of the store are older than `store.max_lag`.
    lagging: AtomicBool,
    /// How long the feed may be silent before coverage ends, in nanoseconds.
    grace: i64,
}

impl Coverage {
    /// Creates an empty coverage. Coverage ends when the feed was last up to date more
    /// than `grace` ago.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        let [since, until, unreplayed, history] = Default::default();
        let [replaying, lagging] = Default::default();
        Self { since, until, unreplayed, replaying, history, lagging, grace: nanos(grace) }
    }

    /// Records that every change made before `as_of` has been applied. The first call
    /// begins the span; later calls extend it.
    pub fn confirm(&self, as_of: Instant) {
        self.since.get_or_set(as_of);
        self.until.set(Some(as_of));
        if self.replaying.swap(false, Ordering::Relaxed) {
            self.unreplayed.set(None);
        }
    }

    /// Starts a new span at `now`, as earlier changes were missed.
    pub fn begin_anew(&self, now: Instant) {
        self.replaying.store(false, Ordering::Relaxed);
        // In this order: a reader that sees the new end sees the new beginning.
        self.since.set(Some(now));
        self.until.set(Some(now));
    }

    /// Records that another server answers from `now` on: revisions read before cannot
    /// be compared with its changes.
    pub fn new_history(&self, now: Instant) {
        self.history.set(Some(now));
    }

    /// Since when revisions are comparable with those of changes; `None` if all are.
    #[must_use]
    pub fn history(&self) -> Option<Instant> {
        self.history.get()
    }

    /// Sets whether the data of the store are too old for any answer to be fresh or
    /// any absence to be believed.
    pub fn lags(&self, lagging: bool) {
        self.lagging.store(lagging, Ordering::Relaxed);
    }

    /// See [`Coverage::lags`]. One atomic read.
    #[must_use]
    pub fn is_lagging(&self) -> bool {
        self.lagging.load(Ordering::Relaxed)
    }

    /// Records that the cache was filled at `now` from a snapshot that missed no change
    /// since `since`. None of it is fresh until the changes have been replayed.
    pub fn resume(&self, since: Instant, now: Instant) {
        self.unreplayed.set(Some(now));
        self.replaying.store(true, Ordering::Relaxed);
        self.since.set(Some(since));
    }

    /// Until when the feed vouches for a record validated at that time; `None` if it is
    /// not covered.
    #[must_use]
    pub fn good_until(&self, validated_at: ShortInstant) -> Option<ShortInstant> {
        let until = self.until.short()?;
        (self.since.short()? <= validated_at).then(|| until.later_by(self.grace))
    }

    /// Whether a record validated at that time may be fresh at all: this process
    /// validated it, or all changes since the snapshot have been replayed.
    #[must_use]
    pub fn is_replayed(&self, validated_at: ShortInstant) -> bool {
        self.unreplayed.short().is_none_or(|restored| validated_at >= restored)
    }

    /// Since when no change has been missed; `None` before the feed first reports.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        self.since.get()
    }

    /// As of when all changes have been applied; `None` before the feed first reports.
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
    fn record_validated_within_the_span_is_covered_until_the_grace_period_ends() {
        let start = Instant::now();
        let coverage = Coverage::new(3 * SECOND);
        assert_eq!(good_until(&coverage, start), None, "the feed has not reported");
        coverage.confirm(start + SECOND);
        assert_eq!(good_until(&coverage, start), None, "it was validated before the span");
        coverage.confirm(start + 5 * SECOND);
        assert_eq!(good_until(&coverage, start + SECOND), Some(start + 8 * SECOND));
        assert_eq!(coverage.since(), Some(start + SECOND));
    }

    #[test]
    fn gap_ends_the_coverage_of_records_validated_before_it() {
        let start = Instant::now();
        let coverage = Coverage::new(SECOND);
        coverage.confirm(start);
        coverage.begin_anew(start + 9 * SECOND);
        assert_eq!(good_until(&coverage, start + 8 * SECOND), None);
        assert_eq!(good_until(&coverage, start + 9 * SECOND), Some(start + 10 * SECOND));
    }

    #[test]
    fn snapshot_records_are_covered_once_their_changes_are_replayed() {
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
    fn snapshot_records_are_never_fresh_if_their_changes_cannot_be_replayed() {
        let start = Instant::now();
        let before = start.checked_sub(SECOND).unwrap();
        let coverage = Coverage::new(SECOND);
        coverage.resume(before, start);
        coverage.begin_anew(start + SECOND);
        coverage.confirm(start + 2 * SECOND);
        assert!(!is_replayed(&coverage, before) && is_replayed(&coverage, start));
    }
}
