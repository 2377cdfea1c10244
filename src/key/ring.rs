//! The ring of secrets: mints keys and authenticates presented credentials.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    Digest, Environment, Fingerprint, KeyId, MAX_CREDENTIAL_BYTES, Prefix,
    form::{self, Shape},
};

/// One secret: 32 random bytes, held only as a prepared HMAC state that is wiped
/// on drop.
#[derive(Clone)]
pub struct Secret {
    hmac: Hmac<Sha256>,
    fingerprint: Fingerprint,
}

impl Secret {
    /// The length of a secret in bytes.
    pub const LEN: usize = 32;

    fn new(bytes: &[u8; Self::LEN]) -> Self {
        // HMAC pads a short key with zeros to the block size of its hash.
        let mut block = Zeroizing::new([0; 64]);
        block[..Self::LEN].copy_from_slice(bytes);
        let hmac = Hmac::new((&*block).into());
        let hash = keyed_hash(&hmac, &[b"keystead secret fingerprint"]);
        let fingerprint = Fingerprint::from_bytes(std::array::from_fn(|i| hash[i]));
        Self { hmac, fingerprint }
    }

    /// Generates a secret in the form of a secret file: 64 hex digits.
    ///
    /// Fails only if the operating system provides no randomness.
    pub fn generate() -> Result<Zeroizing<String>, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; Self::LEN]);
        getrandom::fill(bytes.as_mut())?;
        Ok(Zeroizing::new(hex::encode(bytes.as_ref())))
    }

    fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; Self::LEN]);
        hex::decode_to_slice(text, bytes.as_mut()).ok()?;
        Some(Self::new(&bytes))
    }

    fn tag(&self, body: &[u8]) -> [u8; form::TAG_LEN] {
        form::tag_digits(&keyed_hash(&self.hmac, &[body]))
    }

    fn digest(&self, key: &[u8]) -> Digest {
        Digest::from_bytes(keyed_hash(&self.hmac, &[key]))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.fingerprint)
    }
}

fn keyed_hash(hmac: &Hmac<Sha256>, parts: &[&[u8]]) -> [u8; 32] {
    let mut hmac = hmac.clone();
    for part in parts {
        hmac.update(part);
    }
    hmac.finalize().into_bytes().into()
}

/// A key in the clear. It exists only between minting and printing; it has no
/// `Display`, and is wiped on drop.
#[derive(Debug, Clone)]
pub struct ApiKey(SecretString);

impl ApiKey {
    /// The key itself, to be shown once.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The part that may be displayed at any time: prefix, environment and the last
    /// four digits. These belong to the tag, so no random bit is revealed.
    #[must_use]
    pub fn hint(&self) -> String {
        let key = self.expose();
        let digits = form::RANDOM_LEN + form::TAG_LEN;
        format!("{}…{}", &key[..key.len() - digits], &key[key.len() - 4..])
    }
}

/// A newly minted key, with what is stored of it.
#[derive(Debug, Clone)]
pub struct Minted {
    /// The public id of the key.
    pub id: KeyId,
    /// The key in the clear.
    pub key: ApiKey,
    /// The digest under which it is stored.
    pub digest: Digest,
    /// The secret that minted it.
    pub secret: Fingerprint,
}

/// A presented credential that can be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// Its tag proves that one of our secrets minted it.
    Ours(Digest),
    /// It does not have our prefix. It may have been imported.
    Foreign(Digest),
}

impl Credential {
    /// The digest to look up.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        match self {
            Self::Ours(digest) | Self::Foreign(digest) => *digest,
        }
    }
}

/// A presented credential and how it was classified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// See [`Credential::Ours`].
    Ours {
        /// The digest to look up.
        digest: Digest,
        /// The secret that made its tag.
        secret: Fingerprint,
    },
    /// See [`Credential::Foreign`].
    Foreign {
        /// The digest to look up.
        digest: Digest,
    },
}

impl Reading {
    /// The credential to look up.
    #[must_use]
    pub const fn credential(self) -> Credential {
        match self {
            Self::Ours { digest, .. } => Credential::Ours(digest),
            Self::Foreign { digest } => Credential::Foreign(digest),
        }
    }
}

/// Why a credential is malformed, for people. Not evidence; that is [`Malformed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is empty.
    Empty,
    /// It is longer than [`MAX_CREDENTIAL_BYTES`].
    TooLong,
    /// It has a byte outside visible ASCII.
    NotVisible,
    /// It begins with our prefix and `_`, and does not have our form.
    Form,
    /// It has our form, but none of our secrets made its tag.
    Tag,
    /// It does not have our prefix, and imported keys are not accepted.
    Foreign,
}

/// Evidence that a credential cannot be a valid key, found without a lookup.
///
/// Only [`KeyRing::read`] creates it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credential does not have the form of a key")]
pub struct Malformed(Fault);

impl Malformed {
    /// The reason.
    #[must_use]
    pub const fn fault(self) -> Fault {
        self.0
    }
}

/// Why a credential is not looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It cannot be a valid key.
    Malformed(Malformed),
    /// It has our form, but none of our secrets made its tag. It may still be a valid
    /// key, as the ring may lack secrets: see [`RingTrust`].
    SecretUnknown,
}

/// Whether the ring holds every secret that minted keys of this store. Shared by all
/// clones of the ring.
#[derive(Debug, Clone)]
pub struct RingTrust(Arc<AtomicBool>);

impl RingTrust {
    /// Sets whether an unknown tag is evidence that there is no such key.
    pub fn set(&self, complete: bool) {
        self.0.store(complete, Ordering::Relaxed);
    }

    /// Whether an unknown tag is such evidence.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A secret file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The file is empty.
    #[error("it is empty; make one with `keystead keys new-secret > FILE`")]
    Empty,
    /// The file holds more secrets than a ring may.
    #[error("it holds more than {max} secrets; remove those that no key names any more", max = KeyRing::MAX_SECRETS)]
    TooMany,
    /// The line is not a secret. The error does not repeat it.
    #[error("line {0} is not 64 hex digits; make a secret with `keystead keys new-secret`")]
    NotASecret(usize),
    /// The file holds the same secret twice.
    #[error("line {0} repeats an earlier secret; remove it")]
    Repeated(usize),
}

/// One to eight secrets, and the form of the keys that they mint.
///
/// The first secret mints, all of them verify. To rotate, put the new secret first
/// and remove the old one once no record names it.
#[derive(Debug, Clone)]
pub struct KeyRing {
    secrets: Vec<Secret>,
    prefix: Prefix,
    accept_imported: bool,
    trust: RingTrust,
}

impl KeyRing {
    /// The maximum number of secrets in a ring. Each costs a made-up key one more keyed
    /// hash, about a microsecond.
    pub const MAX_SECRETS: usize = 8;

    /// Parses a secret file: one to eight lines of 64 hex digits.
    ///
    /// A credential that does not begin with `prefix` and `_` is looked up by its
    /// SHA-256 if `accept_imported` is set; otherwise it is malformed.
    pub fn parse(text: &str, prefix: Prefix, accept_imported: bool) -> Result<Self, RingError> {
        let mut secrets: Vec<Secret> = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let secret = Secret::from_hex(line.trim_end()).ok_or(RingError::NotASecret(number))?;
            if secrets.iter().any(|known| known.fingerprint == secret.fingerprint) {
                return Err(RingError::Repeated(number));
            }
            if secrets.len() == Self::MAX_SECRETS {
                return Err(RingError::TooMany);
            }
            secrets.push(secret);
        }
        if secrets.is_empty() {
            return Err(RingError::Empty);
        }
        let trust = RingTrust(Arc::new(AtomicBool::new(true)));
        Ok(Self { secrets, prefix, accept_imported, trust })
    }

    /// The prefix of all keys of this installation.
    #[must_use]
    pub const fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Whether the ring is trusted to hold all secrets; it is initially.
    #[must_use]
    pub const fn trust(&self) -> &RingTrust {
        &self.trust
    }

    /// The fingerprints of all secrets, the minting one first.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.secrets.iter().map(|secret| secret.fingerprint)
    }

    /// One sealing key for each secret, the minting one first, for data that this
    /// service stores for itself. Different `purpose`s give independent keys; no key
    /// reveals a secret or another key.
    ///
    /// Sealed data name the fingerprint of their secret: seal with the first key, open
    /// with any, so that a rotation loses nothing.
    pub fn seal_keys(
        &self,
        purpose: &'static str,
    ) -> impl Iterator<Item = (Fingerprint, Zeroizing<[u8; 32]>)> {
        // Neither a presented key nor the input of a tag contains a space.
        self.secrets.iter().map(move |secret| {
            let parts: [&[u8]; 2] = [b"keystead seal: ", purpose.as_bytes()];
            (secret.fingerprint, Zeroizing::new(keyed_hash(&secret.hmac, &parts)))
        })
    }

    /// Mints a key with the first secret.
    ///
    /// Fails only if the operating system provides no randomness.
    pub fn mint(&self, environment: Environment) -> Result<Minted, getrandom::Error> {
        let secret = &self.secrets[0];
        let random = Zeroizing::new(form::random_digits(form::RANDOM_LEN, getrandom::fill)?);
        let parts = [self.prefix.as_str(), "_", environment.as_str(), "_", random.as_str()];
        let key = tagged(&parts, |body| secret.tag(body));
        Ok(Minted {
            id: KeyId::generate()?,
            digest: secret.digest(key.as_bytes()),
            secret: secret.fingerprint,
            key: ApiKey(key.into()),
        })
    }

    /// Parses and authenticates a presented credential, which may be any bytes.
    ///
    /// It is malformed if it is empty, longer than [`MAX_CREDENTIAL_BYTES`], has a byte
    /// outside visible ASCII, or begins with our prefix and `_` without our form. An
    /// unknown tag is malformed too, if the ring holds all secrets. Tags are compared in
    /// constant time.
    pub fn read(&self, presented: &[u8]) -> Result<Credential, Unread> {
        self.inspect(presented).map(Reading::credential).map_err(|fault| match fault {
            Fault::Tag if !self.trust.is_complete() => Unread::SecretUnknown,
            Fault::Tag
            | Fault::Empty
            | Fault::TooLong
            | Fault::NotVisible
            | Fault::Form
            | Fault::Foreign => Unread::Malformed(Malformed(fault)),
        })
    }

    /// Like [`KeyRing::read`], but returns the classification, or the fault.
    pub fn inspect(&self, presented: &[u8]) -> Result<Reading, Fault> {
        if presented.is_empty() {
            return Err(Fault::Empty);
        }
        if presented.len() > MAX_CREDENTIAL_BYTES {
            return Err(Fault::TooLong);
        }
        if !presented.iter().all(u8::is_ascii_graphic) {
            return Err(Fault::NotVisible);
        }
        match Shape::of(presented, &self.prefix) {
            Shape::Ours { body, tag } => self
                .secrets
                .iter()
                .find(|secret| secret.tag(body).ct_eq(tag).into())
                .map(|secret| Reading::Ours {
                    digest: secret.digest(presented),
                    secret: secret.fingerprint,
                })
                .ok_or(Fault::Tag),
            Shape::Foreign if self.accept_imported => {
                Ok(Reading::Foreign { digest: Digest::sha256_of(presented) })
            }
            Shape::Foreign => Err(Fault::Foreign),
            Shape::Broken => Err(Fault::Form),
        }
    }
}

/// Concatenates the parts of a key and appends their tag.
///
/// Allocates the full length at once: a string that grows leaves copies behind that
/// nobody wipes.
fn tagged(parts: &[&str], tag: impl FnOnce(&[u8]) -> [u8; form::TAG_LEN]) -> String {
    let length = parts.iter().map(|part| part.len()).sum::<usize>() + form::TAG_LEN;
    let mut key = String::with_capacity(length);
    for part in parts {
        key.push_str(part);
    }
    let tag = tag(key.as_bytes());
    key.extend(tag.map(char::from));
    key
}

#[cfg(test)]
mod tests;
