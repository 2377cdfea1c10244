//! Where keys are kept: narrow traits, and the two engines behind them.

mod answer;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod follower;
mod history;
mod identity;
pub mod postgres;
pub mod sqlite;
mod url;

use std::num::NonZeroU32;

use jiff::Timestamp;

pub use answer::{Absence, Answer, DataAge, Lookup};
pub use error::{CanaryError, StoreError, StoreErrorKind, WriteError};
pub use follower::{AnyFollower, ChangePage, Follower, Position, Row, Woken};
pub use history::{History, SecretUse};
pub use identity::StoreIdentity;
pub use url::{StoreUrl, StoreUrlError};

use crate::key::{Action, Digest, Fingerprint, KeyId, KeyRecord, NewKey, Revision, Successor};

/// Looks keys up: all that a check needs.
///
/// A call of this and the other traits of a store ends by itself within the time-outs that
/// the engine was built with, and may be cancelled at any point: a read leaves nothing behind,
/// a write is done wholly or not at all. All engines pass the same suite,
/// `tests/it/conformance.rs`.
pub trait Lookups: Send + Sync + 'static {
    /// Reads the records of all given digests in one query.
    fn find(&self, digests: &[Digest]) -> impl Future<Output = Result<Lookup, StoreError>> + Send;

    /// What the newest changes say that the store should have. `None` for a table of somebody
    /// else, of which no changes are known.
    fn history(&self) -> impl Future<Output = Result<Option<History>, StoreError>> + Send;
}

/// Follows the numbered changes.
pub trait Changes: Send + Sync + 'static {
    /// Reads them.
    type Follower: Follower;

    /// Begins to follow the changes, over a connection of its own. `None` for a table of
    /// somebody else, of which no changes are known.
    fn follow(&self) -> impl Future<Output = Result<Option<Self::Follower>, StoreError>> + Send;

    /// Writes a change of no key, a canary, which measures how long changes take: a
    /// follower reads the same `token`, which must be random. Takes the locks that every
    /// change takes, and waits for them no longer than a lookup may take.
    fn canary(&self, token: &Digest) -> impl Future<Output = Result<(), CanaryError>> + Send;
}

/// Administers keys.
pub trait KeyAdmin: Send + Sync + 'static {
    /// The secrets that active, unexpired keys were minted with and that are not `known`. Of a
    /// table of somebody else, only some keys are read.
    fn unknown_secrets(
        &self,
        known: &[Fingerprint],
    ) -> impl Future<Output = Result<Vec<SecretUse>, StoreError>> + Send;

    /// Reads one record by its public id.
    fn get(&self, id: &KeyId)
    -> impl Future<Output = Result<Option<KeyRecord>, StoreError>> + Send;

    /// A page of records, in the order of their ids.
    fn list(&self, page: &Page) -> impl Future<Output = Result<Vec<StoredKey>, StoreError>> + Send;

    /// Stores all keys or none, with an entry in the audit log for each.
    fn insert(
        &self,
        keys: &[NewKey],
        by: &Provenance,
    ) -> impl Future<Output = Result<(), WriteError>> + Send;

    /// Changes one key, and stores its successor if there is one, in one transaction with the
    /// entries in the audit log. Returns the record as it is afterwards.
    fn act(
        &self,
        id: &KeyId,
        action: Action,
        successor: Option<&Successor>,
        by: &Provenance,
    ) -> impl Future<Output = Result<KeyRecord, WriteError>> + Send;
}

/// Notes the use of keys.
pub trait Usage: Send + Sync + 'static {
    /// Notes when keys were last used. A time that is not later than the stored one changes
    /// nothing; an id that is not stored is ignored. No change in the sense of [`Changes`].
    fn touch(
        &self,
        uses: &[(KeyId, Timestamp)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Every trait of a store.
pub trait Store: Lookups + Changes + KeyAdmin + Usage {}

impl<S: Lookups + Changes + KeyAdmin + Usage> Store for S {}

/// One numbered change of what is stored for a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub revision: Revision,
    /// What it is about.
    pub digest: Digest,
    /// What happened.
    pub kind: ChangeKind,
}

/// What happened to a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A record was stored for it.
    Created,
    /// Its record was changed.
    Updated,
    /// Its record was changed and says that it is revoked.
    Revoked,
    /// Its record was deleted.
    Deleted,
}

impl ChangeKind {
    /// The word in the change table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Revoked => "revoked",
            Self::Deleted => "deleted",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        [Self::Created, Self::Updated, Self::Revoked, Self::Deleted]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| StoreError::unreadable(format!("`{text}` is no kind of change")))
    }
}

/// A record together with the digest that it is stored under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Under what it is looked up.
    pub digest: Digest,
    /// The record.
    pub record: KeyRecord,
}

/// Which part of all records to list.
#[derive(Debug, Clone)]
pub struct Page {
    /// Only keys of this principal.
    pub principal: Option<String>,
    /// Only keys with an id greater than this.
    pub after: Option<KeyId>,
    /// At most so many.
    pub limit: NonZeroU32,
}

/// Who changes something, from where and when: what the audit log keeps.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// Who, for example `cli:alice`.
    pub actor: String,
    /// From where, for example the name of a host.
    pub origin: String,
    /// When.
    pub at: Timestamp,
}

/// One of the engines. An enum and not a trait object, so that a check is
/// dispatched statically.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each process")]
pub enum AnyStore {
    /// A server, shared by many instances.
    Postgres(postgres::PostgresStore),
    /// The embedded default.
    Sqlite(sqlite::SqliteStore),
}

/// Calls the same method on whichever engine it is.
macro_rules! on_engine {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            AnyStore::Postgres(store) => store.$method($($argument),*).await,
            AnyStore::Sqlite(store) => store.$method($($argument),*).await,
        }
    };
}

impl Lookups for AnyStore {
    async fn find(&self, digests: &[Digest]) -> Result<Lookup, StoreError> {
        on_engine!(self.find(digests))
    }

    async fn history(&self) -> Result<Option<History>, StoreError> {
        on_engine!(self.history())
    }
}

impl Changes for AnyStore {
    type Follower = AnyFollower;

    async fn follow(&self) -> Result<Option<AnyFollower>, StoreError> {
        Ok(match self {
            Self::Postgres(store) => store.follow().await?.map(AnyFollower::Postgres),
            Self::Sqlite(store) => store.follow().await?.map(AnyFollower::Sqlite),
        })
    }

    async fn canary(&self, token: &Digest) -> Result<(), CanaryError> {
        on_engine!(self.canary(token))
    }
}

impl KeyAdmin for AnyStore {
    async fn unknown_secrets(&self, known: &[Fingerprint]) -> Result<Vec<SecretUse>, StoreError> {
        on_engine!(self.unknown_secrets(known))
    }

    async fn get(&self, id: &KeyId) -> Result<Option<KeyRecord>, StoreError> {
        on_engine!(self.get(id))
    }

    async fn list(&self, page: &Page) -> Result<Vec<StoredKey>, StoreError> {
        on_engine!(self.list(page))
    }

    async fn insert(&self, keys: &[NewKey], by: &Provenance) -> Result<(), WriteError> {
        on_engine!(self.insert(keys, by))
    }

    async fn act(
        &self,
        id: &KeyId,
        action: Action,
        successor: Option<&Successor>,
        by: &Provenance,
    ) -> Result<KeyRecord, WriteError> {
        on_engine!(self.act(id, action, successor, by))
    }
}

impl Usage for AnyStore {
    async fn touch(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
        on_engine!(self.touch(uses))
    }
}
