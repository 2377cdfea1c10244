//! Configuration of the store and its connections.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{guard::GuardConfig, store::StoreUrl, time::DurationText};

/// The store, which holds the keys.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// URL of the store: `sqlite:PATH`, a file created on first start, or
    /// `postgres://USER:PASSWORD@HOST/DATABASE`. The password is never shown; prefer the
    /// environment to a file for it.
    pub url: StoreUrl,
    /// Table or view of your own to read keys from, `NAME` or `SCHEMA.NAME`, with the columns
    /// that Keystead reads. As in SQL, double-quote names with capitals, spaces or other
    /// special characters: `'"Billing"."API Keys"'` in a TOML file. Keystead never writes to
    /// it, and it needs no migrations. PostgreSQL only.
    #[schemars(title = "a name such as `public.api_keys`")]
    pub relation: Option<String>,
    /// Whether to prepare statements once per connection, which saves server work. Set it to
    /// `false` behind a transaction-mode pooler that does not track prepared statements. Such a
    /// pooler does not pass announcements either, so changes are polled every
    /// `feed.poll_every`. PostgreSQL only.
    pub prepared_statements: bool,
    /// Time-out of making one connection, per host in the URL, including TLS handshake and
    /// login. A check does not wait that long: it ends after `store.guard.query_timeout` as
    /// `STORE_TIMEOUT`, and the connection serves the next one. PostgreSQL only.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "1m"))]
    pub connect_timeout: Duration,
    /// How long sent data may stay unacknowledged before the kernel closes the connection, so
    /// that a vanished server is noticed. An abandoned lookup keeps its connection until the
    /// server ends it, or has been silent for this long: recovery from a frozen server may take
    /// as long. PostgreSQL only.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "1m"))]
    pub tcp_user_timeout: Duration,
    /// Maximum age of a connection before it is replaced, with ±10 % jitter, so that a new
    /// server behind the same name is found. The identity of the server is checked more often,
    /// every half of `store.max_lag`. PostgreSQL only.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1s", "x-maximum" = "1day"))]
    pub max_connection_age: Duration,
    /// Maximum age of the store's data, as on a lagging standby. Beyond it, no answer counts as
    /// fresh, and a missing key is no longer refused as unknown. Every half of it, a new
    /// connection checks which server answers behind the name in the URL. PostgreSQL only.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub max_lag: Duration,
    /// Interval between probes of the store: about how long the end of an outage may go
    /// unnoticed without checks that need the store. Each is one small query per instance.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "1m"))]
    pub probe_every: Duration,
    /// The guard in front of the store.
    pub guard: GuardConfig,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: StoreUrl::default(),
            relation: None,
            prepared_statements: true,
            connect_timeout: Duration::from_secs(2),
            tcp_user_timeout: Duration::from_secs(2),
            max_connection_age: Duration::from_mins(5),
            max_lag: Duration::from_secs(5),
            probe_every: Duration::from_secs(1),
            guard: GuardConfig::default(),
        }
    }
}
