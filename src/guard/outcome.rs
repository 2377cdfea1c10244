//! What the end of a call says about the store.

use std::time::Duration;

use crate::store::{StoreError, StoreErrorKind};

/// How a call ended, as the breaker sees it.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// The store answered, if only with something that cannot be read.
    Answered {
        /// How long it took.
        took: Duration,
    },
    /// The store failed.
    Failed {
        /// How long it took.
        took: Duration,
        /// How.
        error: StoreError,
    },
    /// The store has no room just now: a reason not to wait for it, but not to
    /// leave it alone.
    Crowded {
        /// How it said so.
        error: StoreError,
    },
    /// The call says nothing about the store: it never ended.
    Nothing,
}

impl Outcome {
    pub(super) fn of<T>(answer: &Result<T, StoreError>, took: Duration) -> Self {
        let Err(error) = answer else {
            return Self::Answered { took };
        };
        match error.kind() {
            StoreErrorKind::Unreachable
            | StoreErrorKind::Timeout
            | StoreErrorKind::Forbidden
            | StoreErrorKind::Schema => Self::Failed { took, error: error.clone() },
            StoreErrorKind::Unreadable | StoreErrorKind::Lagging => Self::Answered { took },
            StoreErrorKind::Saturated => Self::Crowded { error: error.clone() },
            // Who waits for a lock says nothing about lookups.
            StoreErrorKind::Blocked => Self::Nothing,
        }
    }

    /// The kind of failure, if it was one.
    pub(super) const fn failure(&self) -> Option<StoreErrorKind> {
        match self {
            Self::Failed { error, .. } => Some(error.kind()),
            Self::Answered { .. } | Self::Crowded { .. } | Self::Nothing => None,
        }
    }

    /// How long the call took, if it counts.
    pub(super) const fn took(&self) -> Option<Duration> {
        match self {
            Self::Answered { took } | Self::Failed { took, .. } => Some(*took),
            Self::Crowded { .. } | Self::Nothing => None,
        }
    }
}
