//! Listen addresses, connection limits, and shutdown.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    thread,
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::DurationText;

/// Listen addresses. The default is the loopback address, so that nothing is open to a network by
/// accident; port 0 takes any free port.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenConfig {
    /// Checks and health over gRPC. `0.0.0.0:50051` listens on all IPv4 addresses.
    #[schemars(title = "an IP address and a port such as `127.0.0.1:50051`")]
    pub grpc: SocketAddr,
    /// Metrics, probes and status over HTTP, and `/auth` for proxies unless `listen.forward_auth`
    /// is set. Not for the public.
    #[schemars(title = "an IP address and a port such as `127.0.0.1:9464`")]
    pub admin: SocketAddr,
    /// `keystead.v1.Diagnostics/Explain` over gRPC, for engineers on call. Callers present a key
    /// with the scope `keystead.admin`. There is no TLS, so this key and the explained keys travel
    /// in plain text: listen only on the loopback address or a private network. If not set, there
    /// is no such listener. It opens two more connections to the store per instance: the
    /// `max_connections` of the server must leave room for them.
    #[schemars(title = "an IP address and a port such as `127.0.0.1:50052`")]
    pub control: Option<SocketAddr>,
    /// `/auth` for proxies that check requests over HTTP, such as nginx, Caddy and Traefik. Set it
    /// where these proxies must not reach metrics and status. If not set, `/auth` is on
    /// `listen.admin`; if set, it is on this listener only.
    #[schemars(title = "an IP address and a port such as `127.0.0.1:9465`")]
    pub forward_auth: Option<SocketAddr>,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            grpc: (Ipv4Addr::LOCALHOST, 50_051).into(),
            admin: (Ipv4Addr::LOCALHOST, 9464).into(),
            control: None,
            forward_auth: None,
        }
    }
}

/// Limits of gRPC connections.
///
/// These are fixed: a request or a message must arrive completely within 10 s, as must the first
/// bytes of a connection. A connection is closed when its client reads none of its pending
/// responses for 10 s, leaves bytes unacknowledged for 20 s, or does not answer a ping within 10 s;
/// pings are sent after 30 s of silence. At most 262144 bytes of one call and 1048576 of one
/// connection may be unread; 65536 are read in one turn. A client may reset as many calls at once
/// as may be in flight. Overhead frames (PING, SETTINGS, PRIORITY, `WINDOW_UPDATE`, `RST_STREAM`):
/// 1000, ten more with each call, and one per second. The HPACK table has 4096 bytes, a frame
/// 16384. `keystead_connections_ended_total` counts ended connections by reason.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcConfig {
    /// Maximum size of a message in bytes, including those of health and reflection. A longer
    /// message is refused before it is decoded. A check takes a few hundred bytes; 65536 leave room
    /// for long lists of scopes. For Envoy's messages, which hold whole headers, the limit is at
    /// least 262144.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub max_message_bytes: NonZeroUsize,
    /// Maximum size of a request's headers in bytes, counted as HTTP/2 counts them (RFC 9113,
    /// 10.5.1). A request with more is refused. Over HTTP/1.1 (`/auth` and the admin listener) they
    /// are counted as sent, including the request line, and a request with more is answered with
    /// 431. Whatever a proxy forwards to `/auth` must fit, cookies included.
    #[schemars(range(min = 1024, max = 1_048_576))]
    pub max_header_bytes: NonZeroU32,
    /// Maximum age of a connection. Its client is then asked to reconnect, with jitter so that
    /// connections opened together do not end together. This lets clients move to new replicas;
    /// requests in flight are finished.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "100ms", "x-maximum" = "1day"))]
    pub max_connection_age: Duration,
    /// Maximum number of open connections. Further ones are closed at once and logged; the last
    /// quarter is reserved for peers (an IPv4 address, or an IPv6 /64 network) that have less than
    /// a quarter of all. A connection costs about 50 KB and a file descriptor. If the limit of open
    /// files is too low for all, fewer are admitted, and the log says so at startup: the store, the
    /// snapshot and the probes keep their descriptors. A forward-auth listener has the same limit
    /// again.
    #[schemars(range(max = 1_000_000))]
    pub max_connections: NonZeroUsize,
    /// Maximum number of requests in flight on one connection; HTTP/2 makes the client wait with
    /// further ones. 1000 let a proxy send all its requests over one connection, while no
    /// connection can use up `check.max_waiting`.
    #[schemars(range(max = 100_000))]
    pub max_concurrent_streams: NonZeroU32,
    /// Maximum number of bytes that all connections together may hold of incomplete messages and
    /// unread responses. One connection may hold a sixteenth of it, and always 65536. A message
    /// beyond that is refused as `OVERLOADED`, and a connection whose responses exceed it is
    /// closed. A message that arrives in one piece does not count.
    #[schemars(range(min = 1_048_576, max = 1_099_511_627_776_u64))]
    pub max_held_bytes: NonZeroUsize,
    /// Number of threads that serve connections; each connection stays on one thread. If not set,
    /// one for each core that the process may use: the cores of its affinity, or fewer by the CPU
    /// limit of its container.
    #[schemars(with = "NonZeroUsize", range(max = 1024))]
    pub workers: Option<NonZeroUsize>,
}

impl GrpcConfig {
    /// Number of threads that serve connections.
    #[must_use]
    pub fn workers(&self) -> NonZeroUsize {
        let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.workers.unwrap_or_else(cores)
    }
}

impl Default for GrpcConfig {
    fn default() -> Self {
        const MAX_MESSAGE_BYTES: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();
        const MAX_HEADER_BYTES: NonZeroU32 = NonZeroU32::new(16 * 1024).unwrap();
        const MAX_CONCURRENT_STREAMS: NonZeroU32 = NonZeroU32::new(1000).unwrap();
        const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
        const MAX_HELD_BYTES: NonZeroUsize = NonZeroUsize::new(64 * 1024 * 1024).unwrap();
        Self {
            max_message_bytes: MAX_MESSAGE_BYTES,
            max_header_bytes: MAX_HEADER_BYTES,
            max_connection_age: Duration::from_mins(30),
            max_connections: MAX_CONNECTIONS,
            max_concurrent_streams: MAX_CONCURRENT_STREAMS,
            max_held_bytes: MAX_HELD_BYTES,
            workers: None,
        }
    }
}

/// Graceful shutdown.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// How long the service continues after SIGTERM while it reports `NOT_SERVING`, so that load
    /// balancers stop sending requests. SIGINT does not wait. At least the time that your balancer
    /// takes to notice; `0s` does not wait.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "0s", "x-maximum" = "1h"))]
    pub delay: Duration,
    /// Maximum duration of the shutdown, including `drain.delay`. Requests still in flight are then
    /// aborted. Must be longer than `drain.delay`. Let your supervisor wait a few seconds longer
    /// before it kills the process: in Kubernetes `terminationGracePeriodSeconds`, which is 30 by
    /// default.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    pub timeout: Duration,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), timeout: Duration::from_secs(30) }
    }
}
