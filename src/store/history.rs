//! What a store tells of itself: what it should have, and with which secrets its
//! keys were minted.

use crate::key::{Digest, Fingerprint};

/// What the newest changes say that the store should have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// How many keys exist by their last change.
    pub expected: usize,
    /// How many of those are there.
    pub found: usize,
    /// Whether there is any key at all.
    pub any: bool,
    /// The digests whose last change says that they were deleted.
    pub deleted: Vec<Digest>,
}

impl History {
    /// How many of the newest changes are looked at: some ten thousandths of a
    /// second for each hundred, and enough to notice that part of all keys is lost.
    pub(super) const CHANGES: u32 = 1000;

    /// From the digests, each with whether its last change says that it was deleted
    /// and whether there is a key with it.
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
    /// Which.
    pub secret: Fingerprint,
    /// How many active, unexpired keys name it, counted up to [`SecretUse::MANY`].
    pub keys: u32,
}

impl SecretUse {
    /// How far keys are counted.
    pub const MANY: u32 = 1000;

    /// Reads a row. What is no fingerprint was written by hand, and names no secret.
    pub(super) fn of(secret: &str, keys: i64) -> Option<Self> {
        let keys = u32::try_from(keys).unwrap_or(Self::MANY);
        secret.parse().ok().map(|secret| Self { secret, keys })
    }
}
