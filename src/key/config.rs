//! How keys look here, and the secrets behind them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Prefix;

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
    /// is set, `keystead.secret` is made on first start beside the database.
    #[schemars(title = "a path")]
    pub secret_file: Option<PathBuf>,
    /// Whether a credential that does not begin with the prefix is looked up as
    /// an imported key. With `false` it is refused as `CREDENTIAL_MALFORMED`,
    /// without a lookup.
    pub accept_imported: bool,
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self { prefix: Prefix::default(), secret_file: None, accept_imported: true }
    }
}
