//! The configuration: settings, their sources and their validation.
//!
//! Each section is a struct beside the code that it configures; this module combines,
//! reads and validates them. The list of all settings is derived from the schema of
//! [`Config`], so that parsing, messages and `docs/configuration.md` cannot disagree
//! with the structs.

mod environment;
mod errors;
mod file;
mod reference;
mod settings;
mod sources;
mod store;
mod validate;

use figment::Figment;
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

pub use errors::{ConfigErrors, Problem};
pub use reference::reference;
pub use sources::Sources;
pub use store::StoreConfig;

use crate::{
    cache::CacheConfig,
    check::CheckConfig,
    feed::FeedConfig,
    fill::FillConfig,
    key::KeysConfig,
    snapshot::SnapshotConfig,
    suspect::SuspectConfig,
    telemetry::LogConfig,
    transport::{
        CredentialConfig, DrainConfig, ExtAuthzConfig, ForwardAuthConfig, GrpcConfig, ListenConfig,
    },
};

/// The configuration of Keystead.
///
/// The default is what `keystead serve` runs with when nothing is set: the embedded
/// store and loopback listeners.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses of the listeners.
    pub listen: ListenConfig,
    /// The store of keys.
    pub store: StoreConfig,
    /// When the absence of keys in the store is not believed.
    pub suspect: SuspectConfig,
    /// Lookups on a cache miss.
    pub fill: FillConfig,
    /// The cache in memory.
    pub cache: CacheConfig,
    /// Limits of a check.
    pub check: CheckConfig,
    /// The change feed.
    pub feed: FeedConfig,
    /// The snapshot on disk.
    pub snapshot: SnapshotConfig,
    /// The form of keys, and their secrets.
    pub keys: KeysConfig,
    /// Where proxied requests carry their key.
    pub credential: CredentialConfig,
    /// Responses to Envoy.
    pub ext_authz: ExtAuthzConfig,
    /// Responses to other proxies.
    pub forward_auth: ForwardAuthConfig,
    /// Limits of gRPC connections.
    pub grpc: GrpcConfig,
    /// Graceful shutdown.
    pub drain: DrainConfig,
    /// Logging.
    pub log: LogConfig,
}

impl Config {
    /// Reads all sources and reports every problem, not only the first.
    ///
    /// Flags override the environment, the environment overrides the file, the file
    /// overrides the defaults; an invalid value is an error even if it is overridden.
    /// Opens the configuration file, and none of the files that it names.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let sources::Reading { given, mut problems, doubtful } = sources.read();
        let layers = given.iter().fold(Figment::new(), |layers, given| {
            layers.merge((given.setting.key.as_str(), &given.value))
        });
        match layers.extract::<Self>() {
            Ok(config) => {
                problems.extend(validate::across(&config, &doubtful));
                ConfigErrors::unless_empty(problems)?;
                Ok(config)
            }
            // Each value was accepted on its own, so this is a bug.
            Err(error) => {
                problems.push(Problem::new(format!("{error}; please report this as a bug")));
                Err(ConfigErrors::new(problems))
            }
        }
    }

    /// The configuration as TOML that [`Config::load`] reads, with secrets replaced by
    /// `***`; without secrets, it loads as the same configuration.
    ///
    /// Fails only for a path that is not UTF-8, which [`Config::load`] never returns.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The JSON schema of the configuration file, for editors and linters.
    #[must_use]
    pub fn json_schema() -> String {
        format!("{:#}", schema_for!(Self).to_value())
    }
}

#[cfg(test)]
mod tests;
