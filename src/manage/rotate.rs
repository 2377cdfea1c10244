//! Rotates a key: mints its successor, and lets the old key expire.

use jiff::Timestamp;

use super::{CreateError, Created};
use crate::{
    key::{Action, Environment, KeyId, KeyRecord, KeyRing, Lifetime, NewKey, Rights, Successor},
    store::{KeyAdmin, Provenance, StoreError},
};

/// How a key is rotated.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// When the old key expires, unless it does so earlier.
    pub retire_at: Timestamp,
    /// When the new key expires. Absent: when the old one would have expired without
    /// a rotation.
    pub expires_at: Option<Timestamp>,
    /// Whether a key that has a successor gets another one.
    pub again: bool,
    /// The environment that the new key names. Absent: that of the old key, or the
    /// default where its hint names none.
    pub environment: Option<Environment>,
}

/// A key that was rotated.
#[derive(Debug)]
pub struct Rotated {
    /// The new key.
    pub new: Created,
    /// The record of the old key after the rotation.
    pub old: KeyRecord,
}

/// Why a key was not rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No expiry was given, and the one that the key had is not known any more.
    #[error(
        "it is not known how long key {id} was valid before it was rotated, as its successor \
         {successor} {reason}"
    )]
    ExpiryUnknown {
        /// The key.
        id: KeyId,
        /// The newest key that is named as a successor.
        successor: KeyId,
        /// What is wrong with that key.
        reason: &'static str,
    },
    /// The new key cannot be minted or stored.
    #[error(transparent)]
    New(#[from] CreateError),
}

/// Mints a key with the rights of the `old` one, and lets the old one expire.
///
/// The store decides by the record that it has then; `old` is the record as the
/// caller has read it.
pub async fn rotate<S: KeyAdmin>(
    store: &S,
    ring: &KeyRing,
    old: &KeyRecord,
    Rotation { retire_at, expires_at, again, environment }: Rotation,
    by: &Provenance,
) -> Result<Rotated, RotateError> {
    let environment = environment.or_else(|| environment_of(&old.hint)).unwrap_or_default();
    let minted = ring.mint(environment).map_err(CreateError::from)?;
    let lifetime = match (expires_at, &old.successor) {
        (Some(end), _) => Lifetime::Until(Some(end)),
        (None, Some(successor)) if again => {
            Lifetime::Until(original_expiry(store, old, successor, by.at).await?)
        }
        (None, _) => Lifetime::OfOld,
    };
    let successor = Successor { key: NewKey::minted(&minted, Rights::default()), lifetime };
    let key = successor.inherit(old);
    // Plain SQL can have given the old key any rights.
    key.rights.check().map_err(CreateError::from)?;
    let action = Action::Rotate { retire_at, again };
    match store.act(&old.id, action, Some(&successor), by).await {
        Ok(retired) => {
            let new = Created::read_back(store, minted, key, Some(&old.id), by).await;
            Ok(Rotated { new, old: retired })
        }
        Err(error) => Err(CreateError::Write(minted.id, error).into()),
    }
}

/// The environment that the text or the hint of a minted key names, whatever its
/// prefix. `None` for any other text.
#[must_use]
pub fn environment_of(text: &str) -> Option<Environment> {
    let (_, rest) = text.split_once('_')?;
    let (environment, _) = rest.split_once('_')?;
    [Environment::Live, Environment::Test].into_iter().find(|e| e.as_str() == environment)
}

/// When a key that was rotated would have expired without that: its successor was
/// given that expiry, or another one in its place, and may have been rotated itself.
async fn original_expiry<S: KeyAdmin>(
    store: &S,
    rotated: &KeyRecord,
    successor: &KeyId,
    now: Timestamp,
) -> Result<Option<Timestamp>, RotateError> {
    let id = rotated.id.clone();
    let (mut seen, mut next) = (vec![id.clone()], successor.clone());
    // Plain SQL can have made a circle.
    while !seen.contains(&next)
        && let Some(record) = store.get(&next).await?
    {
        let Some(further) = record.successor else {
            return match record.rights.expires_at {
                Some(end) if end <= now => {
                    Err(RotateError::ExpiryUnknown { id, successor: next, reason: "has expired" })
                }
                end => Ok(end),
            };
        };
        seen.push(next);
        next = further;
    }
    Err(RotateError::ExpiryUnknown { id, successor: next, reason: "is gone" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_tells_the_environment() {
        assert_eq!(environment_of("ks_live_…abcd"), Some(Environment::Live));
        assert_eq!(environment_of("acme_test_…abcd"), Some(Environment::Test));
        for none in ["", "ks", "ks_", "ks_prod_…abcd", "sk-…abcd"] {
            assert_eq!(environment_of(none), None, "{none}");
        }
    }
}
