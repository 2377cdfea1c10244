//! Configuration of keys.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fingerprint, Prefix};

/// The form of keys, and the secrets that authenticate them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// The first part of every key, before its first underscore: 1 to 16
    /// lower-case letters and digits, beginning with a letter. After a change,
    /// keys minted with the previous prefix are no longer recognised.
    pub prefix: Prefix,
    /// A file of one to eight lines of 64 hex digits: the first secret mints,
    /// all of them verify. Create it with `keystead keys new-secret > FILE`.
    /// Required with PostgreSQL, and the same on all instances. With SQLite, if
    /// none is set, the first start creates `keystead.secret` beside the
    /// database. Only its owner and, with mode 0640 or 0440, a group of the
    /// process may read it.
    #[schemars(title = "a path")]
    pub secret_file: Option<PathBuf>,
    /// Fingerprints, 16 hex digits each, of secrets that were removed from
    /// `keys.secret_file` although active keys still name them: those keys stop
    /// working. A secret file that lacks such a secret is otherwise refused, as it
    /// may belong to another store. `keystead keys list --secret FINGERPRINT` lists
    /// the keys.
    #[schemars(title = "a list of fingerprints, 16 hex digits each", with = "Vec<String>")]
    pub retired_secrets: Vec<Fingerprint>,
    /// Whether a credential that does not begin with the prefix is looked up as
    /// an imported key. With `false` it is refused as `CREDENTIAL_MALFORMED`,
    /// without a lookup.
    pub accept_imported: bool,
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self {
            prefix: Prefix::default(),
            secret_file: None,
            retired_secrets: Vec::new(),
            accept_imported: true,
        }
    }
}
