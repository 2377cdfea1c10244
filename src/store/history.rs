//! What a store records about itself: the keys that it should have, and the secrets with which
//! they were minted.

use crate::key::{Digest, Fingerprint};

/// Consistency of the keys with the newest changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Number of keys that exist according to their last change.
    pub expected: usize,
    /// Number of those that are present.
    pub found: usize,
    /// Whether there is any key.
    pub any: bool,
    /// Digests whose last change is a deletion.
    pub deleted: Vec<Digest>,
}

impl History {
    /// Number of newest changes examined: a few tenths of a millisecond per hundred, and enough
    /// to detect a partial loss of keys.
    pub(super) const CHANGES: u32 = 1000;

    /// Builds the history from digests, each with whether its last change is a deletion and
    /// whether a key with it exists.
    pub(super) fn of(any: bool, digests: impl IntoIterator<Item = (Digest, bool, bool)>) -> Self {
        let mut history = Self { any, ..Self::default() };
        for (digest, deleted, there) in digests {
            if there || !deleted {
                history.expected += 1;
                history.found += usize::from(there);
            } else {
                history.deleted.push(digest);
            }
        }
        history
    }
}

/// A secret that active keys were minted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretUse {
    /// The secret.
    pub secret: Fingerprint,
    /// Number of active, unexpired keys that refer to it, counted up to [`SecretUse::MANY`].
    pub keys: u32,
}

impl SecretUse {
    /// Maximum count of keys.
    pub const MANY: u32 = 1000;

    /// Parses a row. An invalid fingerprint was written by hand and refers to no secret.
    pub(super) fn of(secret: &str, keys: i64) -> Option<Self> {
        let keys = u32::try_from(keys).unwrap_or(Self::MANY);
        secret.parse().ok().map(|secret| Self { secret, keys })
    }
}
