//! Creates a key.

use std::slice;

use crate::{
    key::{Environment, KeyId, KeyRecord, KeyRing, Minted, NewKey, Revision, Rights, RightsError},
    store::{KeyAdmin, Provenance, WriteError},
};

/// A key that was minted and stored. Its caller must hand it over: it cannot be
/// shown again.
#[derive(Debug)]
pub struct Created {
    /// The key itself.
    pub minted: Minted,
    /// Its record. The revision is 0, not known, when the store took the key but
    /// could not be read afterwards.
    pub record: KeyRecord,
}

/// Why no key was created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// No key may have these rights.
    #[error(transparent)]
    Rights(#[from] RightsError),
    /// The operating system gave no randomness.
    #[error(transparent)]
    Randomness(#[from] getrandom::Error),
    /// The store did not take the key, or may not have: it has this id if it is
    /// stored.
    #[error("{1}")]
    Write(KeyId, WriteError),
}

/// Mints a key with the first secret of the ring, and stores it.
pub async fn create<S: KeyAdmin>(
    store: &S,
    ring: &KeyRing,
    environment: Environment,
    rights: Rights,
    by: &Provenance,
) -> Result<Created, CreateError> {
    rights.check()?;
    let minted = ring.mint(environment)?;
    let key = NewKey::minted(&minted, rights);
    match store.insert(slice::from_ref(&key), by).await {
        Ok(()) => Ok(Created::read_back(store, minted, key, None, by).await),
        Err(error) => Err(CreateError::Write(minted.id, error)),
    }
}

impl Created {
    /// Reads the record of a key that has just been stored. The key must be handed
    /// over in any case, so that a store that does not answer now is no error.
    pub(super) async fn read_back<S: KeyAdmin>(
        store: &S,
        minted: Minted,
        key: NewKey,
        predecessor: Option<&KeyId>,
        by: &Provenance,
    ) -> Self {
        let record = match store.get(&key.id).await {
            Ok(Some(record)) => record,
            Ok(None) | Err(_) => KeyRecord {
                id: key.id,
                hint: key.hint,
                secret: key.secret,
                rights: key.rights,
                state: key.state,
                created_at: by.at,
                last_used_at: None,
                predecessor: predecessor.cloned(),
                successor: None,
                revision: Revision(0),
            },
        };
        Self { minted, record }
    }
}
