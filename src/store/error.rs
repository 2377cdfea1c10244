//! Store failures, the same for every engine.
//!
//! [`StoreError`] says why there is no answer. It never becomes a denial: no evidence type can
//! be created from it. [`WriteError`] adds the failures of changing a key.

use std::fmt;

use crate::key::{KeyId, LifecycleError};

/// Why a store gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct StoreError {
    kind: StoreErrorKind,
    detail: String,
}

/// Closed list of causes. Metrics, logs and the `cause` of an answer show `as_str`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// No connection, or it broke: refused, reset, closed, name not resolved,
    /// TLS failed, the server is starting up or shutting down.
    Unreachable,
    /// The call timed out, here or at the server.
    Timeout,
    /// No capacity: no free connection here, or too many at the server.
    Saturated,
    /// The server denies access: password, role, rights, read-only.
    Forbidden,
    /// The schema does not match: table or column missing.
    Schema,
    /// A row is not a valid key.
    Unreadable,
    /// A standby with data older than `store.max_lag` answered: what it lacks is no evidence.
    Lagging,
    /// Another transaction holds a required lock.
    Blocked,
}

impl StoreErrorKind {
    /// Every kind, so that metrics exist from the start.
    pub const ALL: [Self; 8] = [
        Self::Unreachable,
        Self::Timeout,
        Self::Saturated,
        Self::Forbidden,
        Self::Schema,
        Self::Unreadable,
        Self::Lagging,
        Self::Blocked,
    ];

    /// Name of the kind.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Saturated => "saturated",
            Self::Forbidden => "forbidden",
            Self::Schema => "schema",
            Self::Unreadable => "unreadable",
            Self::Lagging => "lagging",
            Self::Blocked => "blocked",
        }
    }
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl StoreError {
    pub(crate) fn new(kind: StoreErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    pub(crate) fn unreadable(detail: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unreadable, detail)
    }

    /// The cause.
    #[must_use]
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Message of the engine, for the operator's log. Holds no secret, but is not meant for
    /// callers.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

/// Why no canary was written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CanaryError {
    /// Changes are not written here by design: a standby, a foreign table, or a role without
    /// the right.
    #[error("{0}")]
    ReadOnly(String),
    /// Changes should be written here, but cannot be: [`StoreErrorKind::Blocked`] while another
    /// transaction blocks them.
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// Why a change failed. Nothing was stored, except possibly with
/// [`WriteError::OutcomeUnknown`].
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store failed before the commit.
    #[error("the store did not take the change: {0}")]
    Store(#[from] StoreError),
    /// The answer to the commit was lost: the change is stored completely or not at all.
    #[error("it is not known whether the store took the change: {0}")]
    OutcomeUnknown(StoreError),
    /// There is no key with this id.
    #[error("there is no key {0}; `keystead keys list` shows all")]
    NotFound(KeyId),
    /// The state of the key does not allow it.
    #[error("key {id} cannot be changed so: {reason}")]
    Refused {
        /// Which key.
        id: KeyId,
        /// Why.
        reason: LifecycleError,
    },
    /// Keys with the same digest exist already or occur twice in the slice. Positions in the
    /// slice, from 0, ascending.
    #[error("{} of the keys are stored already", .0.len())]
    Duplicates(Vec<usize>),
    /// `store.relation` is not managed by Keystead.
    #[error(
        "`store.relation` is set, so that keys are read from {0} and changed there, not by keystead"
    )]
    ReadOnly(String),
}
