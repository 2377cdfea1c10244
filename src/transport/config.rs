//! Where the service listens, the bounds of its connections, and how it stops.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    thread,
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::DurationText;

/// Where the service listens. On the loopback address unless told otherwise, so
/// that nothing is open to a network by accident; port 0 takes any free port.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenConfig {
    /// Checks and health, over gRPC. `0.0.0.0:50051` listens on all IPv4
    /// addresses.
    #[schemars(title = "an IP address and a port such as `127.0.0.1:50051`")]
    pub grpc: SocketAddr,
    /// Metrics, probes and status, over HTTP, and `/auth` for proxies unless
    /// `listen.forward_auth` is set. Not for the public.
    #[schemars(title = "an IP address and a port such as `127.0.0.1:9464`")]
    pub admin: SocketAddr,
    /// `keystead.v1.Diagnostics/Explain`, over gRPC, for engineers on call. Who calls it
    /// shows a key with the scope `keystead.admin`. There is no TLS, so that this
    /// key and those that are explained travel in plain text: listen on the
    /// loopback address or a private network alone. Not set, there is no such
    /// listener. It opens two connections to the store of its own, so that the
    /// `max_connections` of a server must leave room for two more an instance.
    #[schemars(title = "an IP address and a port such as `127.0.0.1:50052`")]
    pub control: Option<SocketAddr>,
    /// `/auth` for proxies that ask over HTTP, such as nginx, Caddy and Traefik.
    /// Set it where these proxies should not reach metrics and status. Not set,
    /// `/auth` is on `listen.admin`; set, it is on this listener alone.
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

/// The bounds of a gRPC connection.
///
/// These are fixed: a request or a message has 10 s to come in whole, and so has what a
/// client says first; a client that takes none of its answers for 10 s is closed, and so
/// is one that leaves bytes unacknowledged for 20 s, or does not answer a ping, which is
/// sent after 30 s of silence, within 10 s. Of one call 262144 bytes may be unread, of one
/// connection 1048576; 65536 are read in one turn. As many calls may be given up at once
/// as may be under way. Frames that bring nothing (PING, SETTINGS, PRIORITY,
/// `WINDOW_UPDATE`, `RST_STREAM`): 1000, ten more with each call, and one a second.
/// HTTP/2's table of headers has 4096 bytes, a frame 16384. `keystead_connections_ended_total`
/// counts what was ended, by why.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcConfig {
    /// How many bytes a message may have, those of health and reflection too. A longer
    /// one is refused before it is decoded. A check takes a few hundred bytes; 65536 leave room for long
    /// lists of scopes. Of Envoy's messages, which hold whole headers, 262144 are
    /// read at least.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub max_message_bytes: NonZeroUsize,
    /// How many bytes the headers of a request may have, counted as HTTP/2
    /// counts them (RFC 9113, 10.5.1). A request with more is refused. Over
    /// HTTP/1.1 (`/auth` and the admin listener) they are counted as they are
    /// sent, with the request line, and one with more is a 431. What a proxy
    /// lets through to `/auth` must fit, cookies and all.
    #[schemars(range(min = 1024, max = 1_048_576))]
    pub max_header_bytes: NonZeroU32,
    /// How long a connection lives before its client is asked to make a new one,
    /// spread so that connections that were made together do not end together.
    /// It lets clients move to new replicas; requests under way are finished.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "100ms", "x-maximum" = "1day"))]
    pub max_connection_age: Duration,
    /// How many connections may be open at once. More are closed at once, and the log
    /// says so; the last quarter is for peers (an IPv4 address, or an IPv6 network of 64
    /// bits) that have less than a quarter of all. A connection costs about 50 KB and a
    /// file descriptor. Where the limit of open files has no room for all, fewer
    /// are admitted, and the start says so: the store, the snapshot and the
    /// probes keep theirs. A listener of forward-auth has as many again.
    #[schemars(range(max = 1_000_000))]
    pub max_connections: NonZeroUsize,
    /// How many requests one connection may have under way at once. HTTP/2 makes
    /// a client wait with the next one. 1000 let a proxy send all that it has
    /// over one connection, while none can claim all of `check.max_waiting`.
    #[schemars(range(max = 100_000))]
    pub max_concurrent_streams: NonZeroU32,
    /// How many bytes all connections together may hold of messages that have not come
    /// in whole and of answers that nobody has taken. One connection may hold a
    /// sixteenth of it, and 65536 always. A message beyond that is refused as
    /// `OVERLOADED`, and a connection whose answers are beyond it is closed. A
    /// message that comes in at once counts nowhere.
    #[schemars(range(min = 1_048_576, max = 1_099_511_627_776_u64))]
    pub max_held_bytes: NonZeroUsize,
    /// How many threads serve connections, each of which belongs to one of them
    /// from beginning to end. Not set, there is one for each core that the process
    /// may use: the cores of its affinity, or fewer by the CPU limit of its
    /// container.
    #[schemars(with = "NonZeroUsize", range(max = 1024))]
    pub workers: Option<NonZeroUsize>,
}

impl GrpcConfig {
    /// How many threads serve connections.
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

/// How the service stops.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// How long after SIGTERM the service goes on as before, but says
    /// `NOT_SERVING`, so that balancers send no more. SIGINT does not wait. At
    /// least the time that your balancer takes to notice; `0s` does not wait.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "0s", "x-maximum" = "1h"))]
    pub delay: Duration,
    /// How long stopping may take in all, with `drain.delay`. What is not
    /// finished then is cut off. Must be longer than `drain.delay`. Let your
    /// supervisor wait a few seconds longer before it kills the process: with
    /// Kubernetes `terminationGracePeriodSeconds`, which is 30 by default.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    pub timeout: Duration,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), timeout: Duration::from_secs(30) }
    }
}
