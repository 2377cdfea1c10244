//! The one taxonomy of store failures, the same for every engine.
//!
//! [`StoreError`] says why there is no answer. It never becomes a denial: no
//! type of evidence can be made from it. [`WriteError`] is what a change of a
//! key may meet besides.

use std::fmt;

use crate::key::{KeyId, LifecycleError};

/// Why a store gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct StoreError {
    kind: StoreErrorKind,
    detail: String,
}

/// The closed list of causes. `as_str` is what metrics, logs and the `cause` of
/// an answer say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// No connection, or it broke: refused, reset, closed, name not resolved,
    /// TLS failed, the server is starting up or shutting down.
    Unreachable,
    /// A time-out of ours or the server's ended the call.
    Timeout,
    /// There is no place: no free connection here, or too many at the server.
    Saturated,
    /// The server refuses us: password, role, rights, read-only.
    Forbidden,
    /// The schema is not the one that is needed: table or column missing.
    Schema,
    /// A row could not be read as a key.
    Unreadable,
    /// A standby answers whose data are older than `store.max_lag`: what it lacks
    /// is no evidence.
    Lagging,
    /// Another transaction holds a lock that is needed.
    Blocked,
}

impl StoreErrorKind {
    /// Every kind, for metrics that must exist from the start.
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

    /// The word for it.
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

    /// What the engine said, for the operator's log. Holds no secret, but is
    /// not for callers either.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

/// Why no canary was written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CanaryError {
    /// Changes are not written here at all, and are not meant to be: a standby,
    /// somebody else's table, or a role without the right.
    #[error("{0}")]
    ReadOnly(String),
    /// They should be, and cannot: [`StoreErrorKind::Blocked`] while somebody else
    /// is in the way.
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// Why a change was not made. Nothing of it was stored, save perhaps with
/// [`WriteError::OutcomeUnknown`].
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store gave no answer, before it was asked to make the change last.
    #[error("the store did not take the change: {0}")]
    Store(#[from] StoreError),
    /// The store was asked to make the change last, and its answer was lost: it
    /// is stored wholly or not at all.
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
    /// Keys with the same digest are stored already, or stand twice in what was
    /// to be inserted. Positions in the slice, counted from 0, ascending.
    #[error("{} of the keys are stored already", .0.len())]
    Duplicates(Vec<usize>),
    /// `store.relation` is somebody else's table.
    #[error(
        "`store.relation` is set, so that keys are read from {0} and changed there, not by keystead"
    )]
    ReadOnly(String),
}
