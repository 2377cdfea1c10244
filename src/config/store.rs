//! Which store, and the bounds of the connections to it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{guard::GuardConfig, store::StoreUrl, time::DurationText};

/// The store: where keys are kept.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Where keys are kept: `sqlite:PATH` for a file that is made on first
    /// start, or `postgres://USER:PASSWORD@HOST/DATABASE`. A password in it is
    /// never shown; it is better given in the environment than in a file.
    pub url: StoreUrl,
    /// A table or view of your own that keys are read from, `NAME` or
    /// `SCHEMA.NAME`, with the columns that Keystead reads. As in SQL, a name with
    /// capitals, spaces or other special characters stands in double quotes:
    /// `'"Billing"."API Keys"'` in a TOML file. It is never written to and needs
    /// no migrations. PostgreSQL only.
    #[schemars(title = "a name such as `public.api_keys`")]
    pub relation: Option<String>,
    /// Whether statements are prepared once for each connection, which saves the
    /// server work. Set it to `false` behind a pooler that hands out another
    /// connection for every transaction and does not follow prepared
    /// statements; changes cannot be announced through it either, and are then
    /// asked for every `feed.poll_every`. PostgreSQL only.
    pub prepared_statements: bool,
    /// How long making one connection may take for each host in the URL, with its
    /// TLS handshake and its login. A check does not wait that long: it ends
    /// after `store.guard.query_timeout` as `STORE_TIMEOUT`, and the connection is
    /// there for the next. PostgreSQL only.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "1m"))]
    pub connect_timeout: Duration,
    /// How long data that was sent may stay unacknowledged before the kernel
    /// ends the connection, so that a server that vanished is noticed. A
    /// lookup that was given up has its connection to itself until the
    /// server has ended it, or has said nothing for this long: recovering
    /// from a server that froze may take as long. PostgreSQL only.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "1m"))]
    pub tcp_user_timeout: Duration,
    /// How long a connection to the store is used before a new one takes its place,
    /// spread by ±10 %, so that a new server behind the same name is found. Who
    /// answers behind the name is asked more often, every half of `store.max_lag`.
    /// PostgreSQL only.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1s", "x-maximum" = "1day"))]
    pub max_connection_age: Duration,
    /// How old the data of a store may be, as on a standby that lags behind, before
    /// nothing that it says is called fresh and a key that it lacks is no longer
    /// refused as unknown. A new connection is made every half of this, to see which
    /// server answers behind the name in the URL. PostgreSQL only.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub max_lag: Duration,
    /// How often the store is asked whether it answers: about how long the end
    /// of an outage may go unnoticed where no check asks for the store. One
    /// small query each time, on every instance.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "1m"))]
    pub probe_every: Duration,
    /// The bounds of the guard before the store.
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
