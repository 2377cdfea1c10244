//! Reads changes from the last position and detects gaps.

use std::{fmt, num::NonZeroU32, sync::Arc};

use tokio::sync::watch;

use super::{canary::CanaryWatch, sweep::Sweeps};
use crate::{
    cache::Coverage,
    fill::Fill,
    key::Revision,
    store::{ChangePage, Follower, Lookups, Position, Row, StoreError},
    time::Clock,
};

/// Changes per page. A full page is about 60 KB.
const PAGE: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// Reader of the change table.
#[derive(Debug)]
pub(super) struct Reader<S> {
    pub(super) fill: Fill<S>,
    pub(super) coverage: Arc<Coverage>,
    /// Publishes the position after every catch-up.
    pub(super) published: watch::Sender<Option<Position>>,
    pub(super) canaries: CanaryWatch,
    pub(super) sweeps: Sweeps,
    pub(super) clock: Clock,
    pub(super) max_replay: NonZeroU32,
    /// Position up to which changes were read; `None` until the store has answered once.
    /// Entries cached before then are not covered.
    pub(super) position: Option<Position>,
    /// Result of the landmark check on connecting, for the next catch-up.
    pub(super) found: Found,
}

/// Result of comparing the landmark on a new connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    /// No reason not to continue.
    Nothing,
    /// The landmark exists, with this revision: later changes are read again, as they may have
    /// been lost and their numbers reused.
    Landmark(Revision),
    /// The landmark is missing.
    Gap(Gap),
}

/// Why the changes after the position cannot be replayed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Gap {
    /// The newest change is older than the last one read.
    Lost,
    /// The last change read is missing or a different one.
    OtherHistory,
    /// Only canaries were read, and the last one is gone.
    Unrecognised,
    /// Changes were deleted before they were read.
    Pruned,
    /// More changes than `max_replay`.
    TooLarge,
}

impl<S: Lookups> Reader<S> {
    /// Compares the landmark on a new connection. A server promoted without it may have given
    /// its number, and earlier ones, to other changes.
    pub(super) async fn recognise(
        &mut self,
        follower: &mut impl Follower,
    ) -> Result<(), StoreError> {
        self.found = Found::Nothing;
        let Some(landmark) = self.position.and_then(|it| it.landmark) else { return Ok(()) };
        let page = follower.changes(before(landmark.revision), NonZeroU32::MIN).await?;
        // Pruned changes are no evidence against the store.
        let row = page.map_or(Some(landmark), |page| page.last);
        let taken = row.is_some_and(|row| row.revision == landmark.revision);
        self.found = if row == Some(landmark) {
            Found::Landmark(landmark.revision)
        } else if taken || landmark.kind.is_some() {
            Found::Gap(Gap::OtherHistory)
        } else {
            Found::Gap(Gap::Unrecognised)
        };
        Ok(())
    }

    /// Reads and applies all changes up to now, then confirms coverage. After a gap,
    /// revalidates the cache and continues from the newest change.
    pub(super) async fn catch_up(
        &mut self,
        follower: &mut impl Follower,
    ) -> Result<(), StoreError> {
        loop {
            let queried_at = self.clock.monotonic();
            let head = follower.head().await?;
            let age = follower.age();
            if self.read_up_to(head, follower).await? {
                self.published.send_replace(self.position);
                self.coverage.confirm(age.as_of(queried_at));
                self.coverage.lags(age.is_lagging());
                return Ok(());
            }
        }
    }

    /// Returns false after a restart at `head`: changes made after `head` was read remain to be
    /// read.
    async fn read_up_to(
        &mut self,
        head: Revision,
        follower: &mut impl Follower,
    ) -> Result<bool, StoreError> {
        let Some(read) = self.position else {
            self.position = Some(newest(head, follower).await?);
            return Ok(false);
        };
        if let Some(gap) = self.gap_before(head, read.revision) {
            self.skip(gap, read.revision, newest(head, follower).await?);
            return Ok(false);
        }
        let mut position = match self.found {
            Found::Landmark(revision) => Position { revision, ..read },
            Found::Nothing | Found::Gap(_) => read,
        };
        while position.revision < head {
            let Some(page) = follower.changes(position.revision, PAGE).await? else {
                self.skip(Gap::Pruned, position.revision, newest(head, follower).await?);
                return Ok(false);
            };
            self.fill.apply(&page.changes);
            self.canaries.seen(&page.canaries);
            position = position.after(&page, head);
            // The earlier position counts until all of it has been read again.
            let revision = position.revision.max(read.revision);
            self.position = Some(Position { revision, ..position });
        }
        self.found = Found::Nothing;
        Ok(true)
    }

    fn gap_before(&self, head: Revision, position: Revision) -> Option<Gap> {
        if head < position {
            Some(Gap::Lost)
        } else if let Found::Gap(gap) = self.found {
            Some(gap)
        } else if head.0.saturating_sub(position.0) > i64::from(self.max_replay.get()) {
            Some(Gap::TooLarge)
        } else {
            None
        }
    }

    fn skip(&mut self, gap: Gap, position: Revision, newest: Position) {
        tracing::warn!(
            %position, head = %newest.revision, why = %gap,
            "changes were missed; revalidating the cache, which keeps serving within \
             its bounds"
        );
        self.found = Found::Nothing;
        self.position = Some(newest);
        // Later answers of the store include all changes up to there.
        self.coverage.begin_anew(self.clock.monotonic());
        self.sweeps.request();
    }
}

/// Position at `head`, with a landmark among the last rows.
async fn newest(head: Revision, follower: &mut impl Follower) -> Result<Position, StoreError> {
    let page = follower.changes(Revision((head.0 - i64::from(PAGE.get())).max(0)), PAGE).await?;
    let page = match page {
        // Old rows were pruned; the newest never is.
        None => follower.changes(before(head), PAGE).await?,
        Some(page) => Some(page),
    };
    let nowhere = Position { revision: head, landmark: None };
    Ok(page.map_or(nowhere, |page| nowhere.after(&page, head)))
}

const fn before(revision: Revision) -> Revision {
    Revision(if revision.0 > 0 { revision.0 - 1 } else { 0 })
}

impl Position {
    /// Position after a page; `head` if the page is empty.
    fn after(self, page: &ChangePage, head: Revision) -> Self {
        let change = page.changes.last().map(Row::from);
        let before = self.landmark.filter(|row| row.kind.is_some());
        let landmark = change.or(before).or(page.last).or(self.landmark);
        let revision = page.last.map_or(head, |row| row.revision);
        Self { revision, landmark }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "the store has lost changes, as when a backup is restored",
            Self::OtherHistory => {
                "the store has other changes than before, as when a standby takes over that had not \
                 received all"
            }
            Self::Unrecognised => {
                "nothing is left by which to tell whether the store has the same changes as before"
            }
            Self::Pruned => "changes were deleted before they were read",
            Self::TooLarge => "there are more than `feed.max_replay`",
        })
    }
}
