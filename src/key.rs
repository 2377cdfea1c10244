//! Keys: their form, the secrets that authenticate them, and their records.
//!
//! A key reads `<prefix>_<env>_<32 base62 random><8 base62 tag>`, for example
//! `ks_live_…`. The tag is a keyed hash of everything before it, so a made-up key is
//! refused without a lookup. Only a digest of the key is stored, never the key.

mod bounds;
mod compact;
mod config;
mod digest;
mod fingerprint;
mod form;
mod lifecycle;
mod oddity;
mod record;
mod ring;
mod secret_file;

pub use bounds::{
    MAX_ENTRIES, MAX_METADATA_NAME_BYTES, MAX_METADATA_PAIRS, MAX_METADATA_VALUE_BYTES,
    MAX_NAME_BYTES, MAX_REQUIRED_SCOPES, NetworkError, RightsError, parse_network, stored_network,
};
#[cfg(test)]
pub(crate) use compact::tests::records;
pub use compact::{CompactKey, Networks, NotAProfile, Pairs, PreparedFor, Profile, Texts};
pub(crate) use compact::{NotAKey, varint};
pub use config::KeysConfig;
pub use digest::{Digest, DigestError};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use form::{Environment, Prefix, PrefixError};
pub use lifecycle::{Action, LifecycleError, Lifetime, Successor};
pub use oddity::Oddity;
pub use record::{KeyId, KeyIdError, KeyRecord, NewKey, Revision, Rights, State, UnknownState};
pub use ring::{
    ApiKey, Credential, Fault, KeyRing, Malformed, Minted, Reading, RingError, RingTrust, Secret,
    Unread,
};
pub use secret_file::{SecretDraft, SecretFile, SecretFileError};

/// The longest credential that is parsed, in bytes.
///
/// Twice the longest key of vendors with a public format (GitHub 255, Stripe 107
/// bytes); anything longer is no API key.
pub const MAX_CREDENTIAL_BYTES: usize = 512;
