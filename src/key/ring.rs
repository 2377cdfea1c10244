//! The ring of secrets: minting keys, and reading what is presented.

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

/// One secret: 32 random bytes, kept only as a prepared HMAC state that is
/// wiped when dropped.
#[derive(Clone)]
pub struct Secret {
    hmac: Hmac<Sha256>,
    fingerprint: Fingerprint,
}

impl Secret {
    /// The length of a secret in bytes.
    pub const LEN: usize = 32;

    fn new(bytes: &[u8; Self::LEN]) -> Self {
        // HMAC fills a short key up with zeros to the block of its hash.
        let mut block = Zeroizing::new([0; 64]);
        block[..Self::LEN].copy_from_slice(bytes);
        let hmac = Hmac::new((&*block).into());
        let hash = keyed_hash(&hmac, &[b"keystead secret fingerprint"]);
        let fingerprint = Fingerprint::from_bytes(std::array::from_fn(|i| hash[i]));
        Self { hmac, fingerprint }
    }

    /// A new secret in the form that a secret file holds: 64 hex digits.
    ///
    /// Fails only when the operating system gives no randomness.
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

/// A key in the clear. It exists between minting and printing, and nowhere
/// else; it has no `Display`, and is wiped when dropped.
#[derive(Debug, Clone)]
pub struct ApiKey(SecretString);

impl ApiKey {
    /// The key itself, to be shown once.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What may be displayed for ever: prefix, environment and the last four
    /// digits. They are digits of the tag, so that no random bit is given away.
    #[must_use]
    pub fn hint(&self) -> String {
        let key = self.expose();
        let digits = form::RANDOM_LEN + form::TAG_LEN;
        format!("{}…{}", &key[..key.len() - digits], &key[key.len() - 4..])
    }
}

/// A key that has just been minted, with all that is kept of it.
#[derive(Debug, Clone)]
pub struct Minted {
    /// The id that stands for the key wherever it is spoken of.
    pub id: KeyId,
    /// The key in the clear.
    pub key: ApiKey,
    /// Under what it is stored.
    pub digest: Digest,
    /// The secret that it was minted with.
    pub secret: Fingerprint,
}

/// A presented credential that may be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// Its tag shows that it was minted with one of our secrets.
    Ours(Digest),
    /// It does not claim to be ours. It may have been imported.
    Foreign(Digest),
}

impl Credential {
    /// What to look up.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        match self {
            Self::Ours(digest) | Self::Foreign(digest) => *digest,
        }
    }
}

/// A presented credential with all that was found out about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// See [`Credential::Ours`].
    Ours {
        /// What to look up.
        digest: Digest,
        /// The secret that its tag was made with.
        secret: Fingerprint,
    },
    /// See [`Credential::Foreign`].
    Foreign {
        /// What to look up.
        digest: Digest,
    },
}

impl Reading {
    /// What may be looked up.
    #[must_use]
    pub const fn credential(self) -> Credential {
        match self {
            Self::Ours { digest, .. } => Credential::Ours(digest),
            Self::Foreign { digest } => Credential::Foreign(digest),
        }
    }
}

/// Why a credential is malformed, for people. Not evidence: that is
/// [`Malformed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is empty.
    Empty,
    /// It is longer than [`MAX_CREDENTIAL_BYTES`].
    TooLong,
    /// It holds a byte outside visible ASCII.
    NotVisible,
    /// It begins with our prefix and `_`, and is not of our form.
    Form,
    /// It has our form, and its tag was made with none of our secrets.
    Tag,
    /// It does not claim to be ours, and no such keys are accepted.
    Foreign,
}

/// Evidence that a credential cannot be a valid key, found without a lookup.
///
/// Only [`KeyRing::read`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credential does not have the form of a key")]
pub struct Malformed(Fault);

impl Malformed {
    /// Why.
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
    /// It has our form, and its tag was made with none of our secrets. It may be a
    /// key all the same, as the ring may lack secrets: see [`RingTrust`].
    SecretUnknown,
}

/// Whether a ring has all the secrets that keys were minted with. Shared by all
/// clones of the ring.
#[derive(Debug, Clone)]
pub struct RingTrust(Arc<AtomicBool>);

impl RingTrust {
    /// Sets whether a tag that is not ours is evidence that there is no such key.
    pub fn set(&self, complete: bool) {
        self.0.store(complete, Ordering::Relaxed);
    }

    /// Whether it is.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A secret file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The file holds no line.
    #[error("it is empty; make one with `keystead keys new-secret > FILE`")]
    Empty,
    /// The file holds more lines than a ring has places.
    #[error("it holds more than {max} secrets; remove those that no key names any more", max = KeyRing::MAX_SECRETS)]
    TooMany,
    /// A line that is no secret. The line itself is not repeated.
    #[error("line {0} is not 64 hex digits; make a secret with `keystead keys new-secret`")]
    NotASecret(usize),
    /// The same secret twice.
    #[error("line {0} repeats an earlier secret; remove it")]
    Repeated(usize),
}

/// One to eight secrets, and the form of the keys that they vouch for.
///
/// The first secret mints, all of them verify: a rotation puts the new secret
/// first and removes the old one when no record names it any more.
#[derive(Debug, Clone)]
pub struct KeyRing {
    secrets: Vec<Secret>,
    prefix: Prefix,
    accept_imported: bool,
    trust: RingTrust,
}

impl KeyRing {
    /// How many secrets a ring may hold. Each costs a made-up key one more
    /// keyed hash, about a microsecond.
    pub const MAX_SECRETS: usize = 8;

    /// Reads the text of a secret file: one to eight lines of 64 hex digits.
    ///
    /// With `accept_imported` unset, what does not begin with `prefix` and `_`
    /// is malformed; with it set, it is looked up by its SHA-256.
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

    /// What keys of this installation begin with.
    #[must_use]
    pub const fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Whether the ring is believed to have all secrets; it is at first.
    #[must_use]
    pub const fn trust(&self) -> &RingTrust {
        &self.trust
    }

    /// The fingerprints of all secrets, the minting one first.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.secrets.iter().map(|secret| secret.fingerprint)
    }

    /// A key of its own for each secret, that of the minting one first, for
    /// sealing what this service keeps for itself. Another `purpose` gives other
    /// keys, and none of them tells anything of a secret or of another.
    ///
    /// What is sealed names the fingerprint of its secret: the first seals, all
    /// may open, so that a rotation loses nothing.
    pub fn seal_keys(
        &self,
        purpose: &'static str,
    ) -> impl Iterator<Item = (Fingerprint, Zeroizing<[u8; 32]>)> {
        // No key that is presented, and no text before a tag, has a space in it.
        self.secrets.iter().map(move |secret| {
            let parts: [&[u8]; 2] = [b"keystead seal: ", purpose.as_bytes()];
            (secret.fingerprint, Zeroizing::new(keyed_hash(&secret.hmac, &parts)))
        })
    }

    /// Mints a key with the first secret.
    ///
    /// Fails only when the operating system gives no randomness.
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

    /// Reads whatever a client presented.
    ///
    /// Malformed is what is empty, longer than [`MAX_CREDENTIAL_BYTES`], holds
    /// a byte outside visible ASCII, or begins with our prefix and `_` without
    /// our form. So is a tag that is not ours, if the ring has all secrets. Tags are
    /// compared in constant time.
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

    /// As [`KeyRing::read`], and says how it was read, or what is wrong with it.
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

/// The parts of a key, and behind them their tag.
///
/// It has its full length from the start: a text that grows leaves copies of
/// itself behind, which nobody wipes.
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
