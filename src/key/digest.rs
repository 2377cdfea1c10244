//! The digest under which a key is stored and cached.

use std::{fmt, hash};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// What is stored of a key: HMAC-SHA-256 under a secret for a key minted here,
/// SHA-256 for an imported one.
///
/// Equality is constant-time. `Debug` shows the first four bytes only: enough to
/// tell two apart in a log, not enough to look one up.
#[derive(Clone, Copy, Eq)]
pub struct Digest([u8; Self::LEN]);

/// The input is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 32 bytes, written as 64 hex digits")]
pub struct DigestError;

impl Digest {
    /// The length of a digest in bytes.
    pub const LEN: usize = 32;

    /// Wraps the given bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The SHA-256 of a credential that was not minted here.
    #[must_use]
    pub fn sha256_of(credential: &[u8]) -> Self {
        Self(Sha256::digest(credential).into())
    }

    /// Reads 64 hex digits of either case.
    pub fn from_hex(text: &str) -> Result<Self, DigestError> {
        let mut bytes = [0; Self::LEN];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| DigestError)?;
        Ok(Self(bytes))
    }

    /// All 64 hex digits, in lower case.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = DigestError;

    fn try_from(bytes: &[u8]) -> Result<Self, DigestError> {
        bytes.try_into().map(Self).map_err(|_| DigestError)
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        let (words, _) = self.0.as_chunks::<8>();
        let (others, _) = other.0.as_chunks::<8>();
        let differing = words.iter().zip(others).fold(0, |differing, (word, other)| {
            differing | (u64::from_le_bytes(*word) ^ u64::from_le_bytes(*other))
        });
        differing.ct_eq(&0).into()
    }
}

impl hash::Hash for Digest {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({}…)", hex::encode(&self.0[..4]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips() {
        let digest = Digest::sha256_of(b"abc");
        // FIPS 180-4, appendix example for "abc".
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_hex(), hex);
        assert_eq!(Digest::from_hex(hex), Ok(digest));
        assert_eq!(Digest::from_hex(&hex.to_uppercase()), Ok(digest));
    }

    #[test]
    fn anything_but_64_hex_digits_is_refused() {
        for text in ["", "ba78", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65)] {
            assert_eq!(Digest::from_hex(text), Err(DigestError), "{text}");
        }
    }

    #[test]
    fn digests_that_differ_in_one_bit_are_not_equal() {
        let digest = Digest::sha256_of(b"abc");
        for bit in 0..256 {
            let mut other = digest;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(digest, other, "{bit}");
        }
        assert_eq!(digest, Digest::from_bytes(*digest.as_bytes()));
    }

    #[test]
    fn debug_shows_the_first_four_bytes_only() {
        assert_eq!(format!("{:?}", Digest::sha256_of(b"abc")), "Digest(ba7816bf…)");
    }
}
