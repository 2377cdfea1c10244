//! Classifies the outcome of a call for the breaker.

use std::time::Duration;

use crate::store::{StoreError, StoreErrorKind};

/// The outcome of a call as the breaker counts it.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// The store answered, even with unreadable data.
    Answered {
        /// Duration of the call.
        took: Duration,
    },
    /// The store failed.
    Failed {
        /// Duration of the call.
        took: Duration,
        /// The failure.
        error: StoreError,
    },
    /// The store is saturated: a reason not to wait for it, but not to open the
    /// breaker.
    Saturated {
        /// The error that said so.
        error: StoreError,
    },
    /// No evidence about the store, for example as the call never ended.
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
            StoreErrorKind::Saturated => Self::Saturated { error: error.clone() },
            // Waiting for a lock is no evidence about lookups.
            StoreErrorKind::Blocked => Self::Nothing,
        }
    }

    /// The kind of failure, if the call failed.
    pub(super) const fn failure(&self) -> Option<StoreErrorKind> {
        match self {
            Self::Failed { error, .. } => Some(error.kind()),
            Self::Answered { .. } | Self::Saturated { .. } | Self::Nothing => None,
        }
    }

    /// The duration of the call, if the breaker counts it.
    pub(super) const fn took(&self) -> Option<Duration> {
        match self {
            Self::Answered { took } | Self::Failed { took, .. } => Some(*took),
            Self::Saturated { .. } | Self::Nothing => None,
        }
    }
}
