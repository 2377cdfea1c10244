//! Causes of undecided checks. Never a denial: see [`crate::check`].

use crate::store::{StoreError, StoreErrorKind};

/// A check that could not be decided.
///
/// It says nothing about the key, and does not convert into a
/// [`crate::check::Denial`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unavailable {
    /// The store could not be called, or gave no usable answer. The kind says
    /// which part failed.
    #[error("the key store gave no answer ({})", .0.as_str())]
    Store(StoreErrorKind),
    /// The circuit breaker is open after repeated failures of the store.
    #[error("the key store is failing and is left alone for a moment")]
    BreakerOpen,
    /// The store has no such key, but its absences are not trusted: it also lacks
    /// keys that were valid.
    #[error("the key store has lost keys that were known, and is not believed")]
    Suspect,
    /// The key has our form and its tag was made with none of our secrets, but the
    /// store has keys of a secret that is not in the secret file, or it is not known
    /// yet whether it has.
    #[error("the secret file may lack the secret that the key was minted with")]
    SecretUnknown,
    /// Load shedding: more checks wait for the store than it can serve in time.
    #[error("too many checks are waiting for the key store")]
    Overloaded,
    /// This instance is about to stop.
    #[error("this instance is shutting down")]
    Draining,
    /// A bug: the task that called the store panicked.
    #[error("internal error")]
    Internal,
}

impl Unavailable {
    /// Label of the cause in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Store(kind) => kind.as_str(),
            Self::BreakerOpen => "breaker_open",
            Self::Suspect => "suspect",
            Self::SecretUnknown => "secret_unknown",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::Internal => "internal",
        }
    }
}

impl From<&StoreError> for Unavailable {
    fn from(error: &StoreError) -> Self {
        Self::Store(error.kind())
    }
}
