//! The configuration: what there is to set, where it comes from, and what is
//! wrong with it.
//!
//! Each section is a struct beside the code that it configures; here they are
//! put together, read and validated. The one list of all settings is made from
//! the schema of [`Config`], so that reading, messages and
//! `docs/configuration.md` cannot disagree with the structs.

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
/// The default is what `keystead serve` runs with when nothing is set: the
/// embedded store, and loopback listeners.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the service listens.
    pub listen: ListenConfig,
    /// Where keys are kept.
    pub store: StoreConfig,
    /// When the store is not believed.
    pub suspect: SuspectConfig,
    /// What happens on a miss.
    pub fill: FillConfig,
    /// What is kept in memory.
    pub cache: CacheConfig,
    /// The bounds of a check.
    pub check: CheckConfig,
    /// How changes reach the cache.
    pub feed: FeedConfig,
    /// What is kept on disk for a restart.
    pub snapshot: SnapshotConfig,
    /// The form of keys, and their secrets.
    pub keys: KeysConfig,
    /// Where a request that a proxy asks about carries its key.
    pub credential: CredentialConfig,
    /// How Envoy is answered.
    pub ext_authz: ExtAuthzConfig,
    /// How other proxies are answered.
    pub forward_auth: ForwardAuthConfig,
    /// The bounds of a gRPC connection.
    pub grpc: GrpcConfig,
    /// How the service stops.
    pub drain: DrainConfig,
    /// What is logged.
    pub log: LogConfig,
}

impl Config {
    /// Reads all sources and says all that is wrong with them, not only the
    /// first thing.
    ///
    /// A flag wins over the environment, the environment over the file, the file
    /// over the defaults; but a wrong value is an error even where it is
    /// overridden. Opens the configuration file and no file that it names.
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
            // Every value was accepted alone, so that this is a bug.
            Err(error) => {
                problems.push(Problem::bare(format!("{error}; please report this as a bug")));
                Err(ConfigErrors::new(problems))
            }
        }
    }

    /// The configuration as a file that [`Config::load`] reads, with `***` in
    /// place of secrets; where there are none, it loads as the same
    /// configuration.
    ///
    /// Fails only for a path that is not UTF-8, which [`Config::load`] never
    /// returns.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The JSON schema of a configuration file, for editors and checks.
    #[must_use]
    pub fn json_schema() -> String {
        format!("{:#}", schema_for!(Self).to_value())
    }
}

#[cfg(test)]
mod tests;
