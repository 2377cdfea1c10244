//! Following the changes of a store.

use std::num::NonZeroU32;

use tokio::time::Instant;

use super::{
    Change, ChangeKind, DataAge, StoreError, postgres::PostgresFollower, sqlite::SqliteFollower,
};
use crate::key::{Digest, Revision};

/// Reads the numbered changes of a store over a dedicated connection.
///
/// Every call ends within the engine's time-outs, [`Follower::wait`] at its deadline. After an
/// error the connection is unusable: follow again. Cancel a call only together with its
/// follower.
pub trait Follower: Send {
    /// Whether the store announces changes, which ends [`Follower::wait`]. Otherwise, poll.
    fn announces(&self) -> bool;

    /// Revision of the newest change, canaries included; 0 before the first. Never decreases,
    /// unless the store has lost changes.
    fn head(&mut self) -> impl Future<Output = Result<Revision, StoreError>> + Send;

    /// Age of the data that [`Follower::head`] last returned.
    fn age(&self) -> DataAge;

    /// Identifies the server. Changes of different servers cannot be compared.
    fn history(&self) -> u64;

    /// Rows after a revision, oldest first, at most `limit`.
    ///
    /// Revisions are assigned in the order in which changes become visible, so a reader that
    /// resumes after the last one it saw misses none; they may have gaps. `None` if changes
    /// after that revision have been deleted, so that they are unknown.
    fn changes(
        &mut self,
        after: Revision,
        limit: NonZeroU32,
    ) -> impl Future<Output = Result<Option<ChangePage>, StoreError>> + Send;

    /// Sends a heartbeat: an announcement to itself. No-op if the store does not announce
    /// changes.
    fn beat(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Waits until `until` for an announcement or the last heartbeat. Announcements since the
    /// last call are kept, and coalesced into one.
    fn wait(&mut self, until: Instant) -> impl Future<Output = Result<Woken, StoreError>> + Send;
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The store has announced changes.
    Announced,
    /// A heartbeat sent with [`Follower::beat`] has returned.
    Beat,
    /// The deadline has passed.
    Elapsed,
    /// It is time to follow again. This follower works until then.
    Renewal,
    /// Another server has taken over. This follower is unusable.
    TakenOver,
}

/// Consecutive changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangePage {
    /// The changes, oldest first.
    pub changes: Vec<Change>,
    /// Tokens of the canaries among them, oldest first.
    pub canaries: Vec<Digest>,
    /// The last row, canaries included; `None` when there is none.
    pub last: Option<Row>,
}

/// A row of the change table, which identifies its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The revision.
    pub revision: Revision,
    /// Digest of the key, or token of the canary.
    pub digest: Digest,
    /// Kind of change; `None` for a canary.
    pub kind: Option<ChangeKind>,
}

/// Position up to which changes have been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Revision of the last row.
    pub revision: Revision,
    /// Last row up to there that identifies the store: a change, as canaries are soon deleted,
    /// or a canary if no change was seen.
    pub landmark: Option<Row>,
}

impl From<&Change> for Row {
    fn from(change: &Change) -> Self {
        Self { revision: change.revision, digest: change.digest, kind: Some(change.kind) }
    }
}

/// A row of the change table.
#[derive(Debug, Clone)]
pub(super) enum ChangeRow {
    /// A change of a key.
    Change(Change),
    /// A row that measures propagation delay.
    Canary { revision: Revision, token: Digest },
}

impl ChangePage {
    pub(super) fn of(rows: impl IntoIterator<Item = ChangeRow>) -> Self {
        let mut page = Self { changes: Vec::new(), canaries: Vec::new(), last: None };
        for row in rows {
            match row {
                ChangeRow::Change(change) => {
                    page.last = Some(Row::from(&change));
                    page.changes.push(change);
                }
                ChangeRow::Canary { revision, token } => {
                    page.last = Some(Row { revision, digest: token, kind: None });
                    page.canaries.push(token);
                }
            }
        }
        page
    }
}

impl ChangeRow {
    #[cfg(test)]
    pub(super) fn revision(&self) -> Revision {
        match self {
            Self::Change(change) => change.revision,
            Self::Canary { revision, .. } => *revision,
        }
    }

    /// Kind of a canary in the change table.
    const CANARY: &str = "canary";

    pub(super) fn parse(
        revision: Revision,
        digest: Digest,
        kind: &str,
    ) -> Result<Self, StoreError> {
        if kind == Self::CANARY {
            return Ok(Self::Canary { revision, token: digest });
        }
        let kind = super::ChangeKind::parse(kind)?;
        Ok(Self::Change(Change { revision, digest, kind }))
    }
}

/// Follower of one of the engines.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each process")]
pub enum AnyFollower {
    /// Over a connection that listens or polls.
    Postgres(PostgresFollower),
    /// Polls.
    Sqlite(SqliteFollower),
}

/// Dispatches a method to the engine.
macro_rules! on_engine {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            AnyFollower::Postgres(follower) => follower.$method($($argument),*).await,
            AnyFollower::Sqlite(follower) => follower.$method($($argument),*).await,
        }
    };
}

impl Follower for AnyFollower {
    fn announces(&self) -> bool {
        match self {
            Self::Postgres(follower) => follower.announces(),
            Self::Sqlite(follower) => follower.announces(),
        }
    }

    fn age(&self) -> DataAge {
        match self {
            Self::Postgres(follower) => follower.age(),
            Self::Sqlite(follower) => follower.age(),
        }
    }

    fn history(&self) -> u64 {
        match self {
            Self::Postgres(follower) => follower.history(),
            Self::Sqlite(follower) => follower.history(),
        }
    }

    async fn head(&mut self) -> Result<Revision, StoreError> {
        on_engine!(self.head())
    }

    async fn changes(
        &mut self,
        after: Revision,
        limit: NonZeroU32,
    ) -> Result<Option<ChangePage>, StoreError> {
        on_engine!(self.changes(after, limit))
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        on_engine!(self.beat())
    }

    async fn wait(&mut self, until: Instant) -> Result<Woken, StoreError> {
        on_engine!(self.wait(until))
    }
}
