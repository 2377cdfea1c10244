//! What is stored of a key.

use std::{collections::BTreeMap, fmt, str::FromStr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use super::{Digest, Fingerprint, Minted, form};

/// The public id of a key: `key_` and 22 random base62 digits (131 bits).
/// Not secret; logs, lists and responses name the key by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct KeyId(String);

/// The text is not a key id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key id is 1 to 128 visible ASCII characters, such as key_…; `keystead keys list` shows them"
)]
pub struct KeyIdError;

impl KeyId {
    const MAX_LEN: usize = 128;
    const RANDOM_LEN: usize = 22;

    /// Generates an id. Fails only if the operating system provides no randomness.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let digits = form::random_digits(Self::RANDOM_LEN, getrandom::fill)?;
        Ok(Self(format!("key_{digits}")))
    }

    /// Whether the bytes are a valid id.
    pub(crate) fn is_one(bytes: &[u8]) -> bool {
        let visible = bytes.iter().all(u8::is_ascii_graphic);
        visible && !bytes.is_empty() && bytes.len() <= Self::MAX_LEN
    }

    /// Wraps an id that was validated before.
    pub(crate) fn of_known(id: &str) -> Self {
        Self(id.to_owned())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Accepts any visible ASCII, not only our own form: an existing table
/// (`store.relation`) has its own ids.
impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        if Self::is_one(text.as_bytes()) { Ok(Self(text.to_owned())) } else { Err(KeyIdError) }
    }
}

/// The number of a change, store-wide and strictly increasing: of two reads of a
/// record, the one with the greater revision is newer. 0 precedes the first change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Revision(pub i64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the owner of a key allows its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It may be used.
    #[default]
    Active,
    /// It may not be used until it is enabled again.
    Disabled,
    /// It may never be used again.
    Revoked,
}

/// The text is not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a state is `active`, `disabled` or `revoked`, not `{0}`")]
pub struct UnknownState(pub String);

impl State {
    /// The text in stores and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        [Self::Active, Self::Disabled, Self::Revoked]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// Whose key it is and what it may do: all that its owner decides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Rights {
    /// Whose key it is. Never empty.
    pub principal: String,
    /// A name for people. May be empty.
    pub name: String,
    /// The granted scopes. Compared as whole strings.
    pub scopes: Vec<String>,
    /// The client networks that may use it; empty means any.
    pub allowed_networks: Vec<IpNet>,
    /// The services that may accept it; empty means any.
    pub audiences: Vec<String>,
    /// Returned with every valid check.
    pub metadata: BTreeMap<String, String>,
    /// The key is not valid before this instant.
    pub not_before: Option<Timestamp>,
    /// The key is not valid from this instant on.
    pub expires_at: Option<Timestamp>,
}

/// A key as it is stored. Holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyRecord {
    /// The public id of the key.
    pub id: KeyId,
    /// Prefix, environment and last four digits, or the hint of an import.
    pub hint: String,
    /// The secret that minted the key; `None` for an imported key.
    #[serde(serialize_with = "fingerprint_as_text")]
    pub secret: Option<Fingerprint>,
    /// What its owner decided.
    #[serde(flatten)]
    pub rights: Rights,
    /// Whether its owner allows its use.
    pub state: State,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When it was last used, to about a minute; `None` means never.
    pub last_used_at: Option<Timestamp>,
    /// The key that it replaces, if it was minted by a rotation.
    pub predecessor: Option<KeyId>,
    /// The latest key that replaces it, if it was rotated.
    pub successor: Option<KeyId>,
    /// The revision of its last change.
    pub revision: Revision,
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn fingerprint_as_text<S: serde::Serializer>(
    fingerprint: &Option<Fingerprint>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    fingerprint.map(|f| f.to_string()).serialize(serializer)
}

/// A key to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The public id of the key.
    pub id: KeyId,
    /// The digest by which it is looked up.
    pub digest: Digest,
    /// The secret that made the digest; `None` for an imported key.
    pub secret: Option<Fingerprint>,
    /// Prefix, environment and last four digits; empty for an imported key.
    pub hint: String,
    /// What its owner decides.
    pub rights: Rights,
    /// Its initial state.
    pub state: State,
}

impl NewKey {
    /// An active, newly minted key.
    #[must_use]
    pub fn minted(minted: &Minted, rights: Rights) -> Self {
        Self {
            id: minted.id.clone(),
            digest: minted.digest,
            secret: Some(minted.secret),
            hint: minted.key.hint(),
            rights,
            state: State::Active,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_id_round_trips() {
        let id = KeyId::generate().unwrap();
        assert!(id.as_str().starts_with("key_"));
        assert_eq!(id.as_str().len(), 26);
        assert_eq!(id.as_str().parse(), Ok(id));
    }

    #[test]
    fn record_serialises_flat_with_rfc_3339_times() {
        let record = KeyRecord {
            id: "key_1".parse().unwrap(),
            hint: "ks_live_…abcd".to_owned(),
            secret: Some("0011223344556677".parse().unwrap()),
            rights: Rights { principal: "acme".to_owned(), ..Rights::default() },
            state: State::Active,
            created_at: Timestamp::UNIX_EPOCH,
            last_used_at: None,
            predecessor: Some("key_0".parse().unwrap()),
            successor: None,
            revision: Revision(7),
        };
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["id"], "key_1");
        assert_eq!(json["principal"], "acme");
        assert_eq!(json["secret"], "0011223344556677");
        assert_eq!(json["created_at"], "1970-01-01T00:00:00Z");
        assert_eq!(json["revision"], 7);
        assert_eq!(json["predecessor"], "key_0");
        assert!(json["successor"].is_null());
        assert!(json["expires_at"].is_null());
    }
}
