//! The seal: what was not written by an instance with the same secrets is
//! noticed.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::key::{Fingerprint, KeyRing};

/// What the keys of the seal are derived for, see [`KeyRing::seal_keys`].
pub const PURPOSE: &str = "snapshot";

/// The keys of the seal: that of the first secret seals, all of them may open.
#[derive(Clone)]
pub struct Seals(Vec<Seal>);

/// One key.
#[derive(Clone)]
pub(super) struct Seal {
    of: Fingerprint,
    hmac: Hmac<Sha256>,
}

/// A seal in the making, over whatever is written to it.
#[derive(Clone)]
pub(super) struct Sealing(Hmac<Sha256>);

/// A seal that was put under something.
pub(super) type Mark = [u8; MARK_LEN];

/// The length of a seal in bytes.
pub(super) const MARK_LEN: usize = 32;

impl Seals {
    /// Those of a ring.
    #[must_use]
    pub fn of(ring: &KeyRing) -> Self {
        Self(ring.seal_keys(PURPOSE).map(|(of, key)| Seal::new(of, &key)).collect())
    }

    /// The one that seals.
    pub(super) fn first(&self) -> &Seal {
        // A ring holds at least one secret.
        &self.0[0]
    }

    /// The one that belongs to a secret.
    pub(super) fn find(&self, of: Fingerprint) -> Option<&Seal> {
        self.0.iter().find(|seal| seal.of == of)
    }
}

impl Seal {
    fn new(of: Fingerprint, key: &[u8; 32]) -> Self {
        // HMAC fills a short key up with zeros to the block of its hash.
        let mut block = zeroize::Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(key);
        Self { of, hmac: Hmac::new((&*block).into()) }
    }

    /// The secret that it belongs to.
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

    /// Whether this is the seal. In constant time.
    pub(super) fn is(self, mark: &Mark) -> bool {
        self.0.verify(mark.into()).is_ok()
    }

    /// Whether the seal begins with these bytes. In constant time.
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
