//! Seals: HMAC-SHA-256 tags that detect files not written by an instance with the same secrets.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::key::{Fingerprint, KeyRing};

/// Derivation purpose of the seal keys, see [`KeyRing::seal_keys`].
pub const PURPOSE: &str = "snapshot";

/// Seal keys, one per secret: the first one seals, each of them verifies.
#[derive(Clone)]
pub struct Seals(Vec<Seal>);

/// Seal key of one secret.
#[derive(Clone)]
pub(super) struct Seal {
    of: Fingerprint,
    hmac: Hmac<Sha256>,
}

/// A seal being computed over the bytes passed to `update`.
#[derive(Clone)]
pub(super) struct Sealing(Hmac<Sha256>);

/// A computed seal.
pub(super) type Mark = [u8; MARK_LEN];

/// Length of a seal in bytes.
pub(super) const MARK_LEN: usize = 32;

impl Seals {
    /// Derives the seal keys of a key ring.
    #[must_use]
    pub fn of(ring: &KeyRing) -> Self {
        Self(ring.seal_keys(PURPOSE).map(|(of, key)| Seal::new(of, &key)).collect())
    }

    /// The key that seals new files.
    pub(super) fn first(&self) -> &Seal {
        // A key ring holds at least one secret.
        &self.0[0]
    }

    /// Finds the key of a secret.
    pub(super) fn find(&self, of: Fingerprint) -> Option<&Seal> {
        self.0.iter().find(|seal| seal.of == of)
    }
}

impl Seal {
    fn new(of: Fingerprint, key: &[u8; 32]) -> Self {
        // HMAC pads a short key with zeros to the block size of its hash.
        let mut block = zeroize::Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(key);
        Self { of, hmac: Hmac::new((&*block).into()) }
    }

    /// Fingerprint of the secret.
    pub(super) const fn secret(&self) -> Fingerprint {
        self.of
    }

    pub(super) fn begin(&self) -> Sealing {
        Sealing(self.hmac.clone())
    }
}

impl Sealing {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> Mark {
        self.0.finalize().into_bytes().into()
    }

    /// Compares with a seal in constant time.
    pub(super) fn is(self, mark: &Mark) -> bool {
        self.0.verify(mark.into()).is_ok()
    }

    /// Compares with a truncated seal in constant time.
    pub(super) fn begins_with(self, tag: &[u8]) -> bool {
        self.0.verify_truncated_left(tag).is_ok()
    }
}

impl fmt::Debug for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seal(of {})", self.of)
    }
}
