//! Following the changes of a store.

use std::num::NonZeroU32;

use tokio::time::Instant;

use super::{
    Change, ChangeKind, DataAge, StoreError, postgres::PostgresFollower, sqlite::SqliteFollower,
};
use crate::key::{Digest, Revision};

/// Reads the numbered changes of a store, over a connection of its own.
///
/// Every call ends by itself within the time-outs that the engine was built
/// with, [`Follower::wait`] at its instant. After an error the connection is of
/// no more use: follow anew. A call may be cancelled only together with its
/// follower.
pub trait Follower: Send {
    /// Whether the store announces changes, so that [`Follower::wait`] ends when
    /// there is one. Where it does not, the changes must be asked for.
    fn announces(&self) -> bool;

    /// The revision of the newest change, canaries included; 0 before the first.
    /// Never falls, unless the store has lost changes.
    fn head(&mut self) -> impl Future<Output = Result<Revision, StoreError>> + Send;

    /// How old the data were from which [`Follower::head`] was read last.
    fn age(&self) -> DataAge;

    /// Another number when another server answers than before, whose changes are not
    /// to be compared with those of the one before.
    fn history(&self) -> u64;

    /// What follows a revision, oldest first, at most `limit` rows of it.
    ///
    /// Numbers are given out in the order in which changes become visible, so
    /// that a reader who goes on from the last one that it saw misses none; they
    /// may have gaps. `None` when changes after that revision have been deleted,
    /// so that it is not known what they were.
    fn changes(
        &mut self,
        after: Revision,
        limit: NonZeroU32,
    ) -> impl Future<Output = Result<Option<ChangePage>, StoreError>> + Send;

    /// Sends a word to itself, the way that announcements come. Without a store
    /// that announces, it does nothing.
    fn beat(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Waits for an announcement, or for the last word that was sent, until an
    /// instant. What came since the last call is not lost; many announcements
    /// are told as one.
    fn wait(&mut self, until: Instant) -> impl Future<Output = Result<Woken, StoreError>> + Send;
}

/// Why a follower goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The store has announced changes.
    Announced,
    /// A word that was sent with [`Follower::beat`] has come back.
    Beat,
    /// The time is over.
    Elapsed,
    /// It is time to follow anew. This follower is good until then.
    Renewal,
    /// Another server has taken over. This follower is good for nothing any more.
    TakenOver,
}

/// Changes that follow one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangePage {
    /// What happened to which digest, oldest first.
    pub changes: Vec<Change>,
    /// The tokens of the canaries among them, oldest first.
    pub canaries: Vec<Digest>,
    /// The last row, canaries included; `None` when there is none.
    pub last: Option<Row>,
}

/// A row of the change table, by which its history is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub revision: Revision,
    /// What it is about, or the token of a canary.
    pub digest: Digest,
    /// What happened; `None` for a canary.
    pub kind: Option<ChangeKind>,
}

/// Up to where changes have been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The number of the last row.
    pub revision: Revision,
    /// The last row up to there by which the same store is recognised: a change,
    /// as canaries are soon deleted, or a canary where no change was seen.
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
    /// Something happened to a digest.
    Change(Change),
    /// A server measures how long changes take.
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

    /// The word for a canary in the change table.
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

/// The follower of one of the engines.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each process")]
pub enum AnyFollower {
    /// Over a connection that listens, or polls.
    Postgres(PostgresFollower),
    /// Polls.
    Sqlite(SqliteFollower),
}

/// Calls the same method on whichever engine it is.
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
