//! How keys look here, and the secrets behind them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fingerprint, Prefix};

/// Keys: their form, and the secrets that vouch for them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// The first part of every key, before its first underscore: 1 to 16
    /// lower-case letters and digits, beginning with a letter. Keys that were
    /// minted with another prefix are no longer recognised after a change.
    pub prefix: Prefix,
    /// A file of one to eight lines of 64 hex digits: the first secret mints,
    /// all of them verify. Made by `keystead keys new-secret > FILE`. Required
    /// with PostgreSQL, and the same on all instances. With SQLite, where none
    /// is set, `keystead.secret` is made on first start beside the database. Its
    /// owner and, with mode 0640 or 0440, a group of the process may read it and
    /// nobody else.
    #[schemars(title = "a path")]
    pub secret_file: Option<PathBuf>,
    /// Fingerprints of secrets, 16 hex digits each, that are no longer in
    /// `keys.secret_file` although active keys name them: those keys are given up.
    /// Without an entry here such a secret file is refused, as it may be that of
    /// another store. `keystead keys list --secret FINGERPRINT` shows the keys.
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
