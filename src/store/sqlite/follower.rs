//! Follower that polls, as SQLite announces nothing to other processes. A cheap check comes
//! first: whether anything is new at all.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{
    connection::{Role, Source},
    lane::Lane,
    reads,
};
use crate::{
    key::Revision,
    store::{ChangePage, DataAge, Follower, StoreError, Woken},
};

/// Follows the changes over a dedicated connection.
#[derive(Debug)]
pub struct SqliteFollower {
    /// A single permit, so that all calls use the same connection.
    lane: Arc<Lane>,
    query_timeout: Duration,
    /// The newest change, and the version of the file that contains it. Only the same
    /// connection can compare versions. Cleared by every error, as the connection may be
    /// replaced.
    seen: Option<(i64, Revision)>,
}

impl SqliteFollower {
    pub(super) fn new(source: Arc<Source>, query_timeout: Duration) -> Self {
        let lane = Lane::new(source, Role::Reader, NonZeroUsize::MIN, Vec::new());
        Self { lane, query_timeout, seen: None }
    }
}

impl Follower for SqliteFollower {
    fn announces(&self) -> bool {
        false
    }

    fn age(&self) -> DataAge {
        DataAge::Current
    }

    fn history(&self) -> u64 {
        0
    }

    async fn head(&mut self) -> Result<Revision, StoreError> {
        let seen = self.seen.take();
        let reading = self.lane.run(self.query_timeout, move |db| {
            // Read first: a write in between only makes the version look older.
            let version = reads::data_version(db)?;
            match seen {
                Some((same, head)) if same == version => Ok((version, head)),
                Some(_) | None => Ok((version, reads::head(db)?)),
            }
        });
        let (version, head) = reading.await?;
        self.seen = Some((version, head));
        Ok(head)
    }

    async fn changes(
        &mut self,
        after: Revision,
        limit: NonZeroU32,
    ) -> Result<Option<ChangePage>, StoreError> {
        let seen = self.seen.take();
        let page = self.lane.run(self.query_timeout, move |db| reads::changes(db, after, limit));
        let page = page.await?;
        self.seen = seen;
        Ok(page)
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn wait(&mut self, until: Instant) -> Result<Woken, StoreError> {
        sleep_until(until).await;
        Ok(Woken::Elapsed)
    }
}
