//! Listeners: how connections are accepted, how long they live, and how they end.

mod bodies;
mod connection_limit;
mod frames;
mod gate;
mod grpc;
mod http1;
mod inline_executor;
mod meter;
mod metered;
mod non_vectored;
mod workers;

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use hyper::body::{Body, Bytes};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service};

pub use self::{
    bodies::{BodyError, RequestBody},
    meter::Budget,
    workers::Workers,
};
use self::{
    connection_limit::{ConnectionLimit, ConnectionPermit, LimitReached},
    meter::Meter,
};
use super::GrpcConfig;
use crate::{
    tasks::Tasks,
    telemetry::{ConnectionEnd, Metrics},
    time::jittered,
};

/// Jitter of the maximum connection age, as a fraction of it, so that clients that connected
/// together do not reconnect together.
const AGE_JITTER: f64 = 0.1;

/// How long a draining connection may take to finish its requests: far longer than a check, and
/// long enough for a streaming client, such as a health watcher, to reconnect elsewhere.
const MAX_DRAIN: Duration = Duration::from_secs(30);

/// How long a client may take from connecting to the end of its HTTP/2 preface, or of the headers
/// of an HTTP/1 request: a few round trips with packet loss. It bounds how long a silent client
/// holds a permit.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);

/// How long sent data may stay unacknowledged, or the peer's window closed, before the operating
/// system drops the connection: a client that never reads must not keep its permit.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);

/// The first bytes of every HTTP/2 connection (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How often an incomplete preface is checked again. One segment holds a preface, so this is rare.
const PREFACE_POLL: Duration = Duration::from_millis(20);

/// How long accepting pauses when the process is out of file descriptors. Connections wait in the
/// listener's backlog meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener with a connection limit.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    limit: Arc<ConnectionLimit>,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
}

/// The protocol of a listener.
#[derive(Debug, Clone, Copy)]
pub enum Protocol {
    /// gRPC, over HTTP/2 with prior knowledge.
    Grpc(GrpcConfig),
    /// HTTP/1.1. Requests have the address of the peer in their extensions.
    Http1 {
        /// Maximum age of a connection, which is then closed after a response; jittered like that
        /// of gRPC connections.
        max_connection_age: Duration,
        /// Maximum size of a request's head in bytes. A larger one, or one with more than 100
        /// headers, is answered with 431, and its connection is closed. The buffer of a connection
        /// grows up to this size plus 8 KiB.
        max_header_bytes: NonZeroU32,
    },
}

/// A service that a listener can serve: it never fails. Each connection gets a clone.
pub trait Serves:
    Service<
        Request<RequestBody>,
        Response = Response<Self::Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
    /// The body of a response.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;
}

impl<S, B> Serves for S
where
    S: Service<
            Request<RequestBody>,
            Response = Response<B>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Body = B;
}

impl Protocol {
    /// HTTP/1.1 with the limits of gRPC.
    #[must_use]
    pub fn http1(config: &GrpcConfig) -> Self {
        let GrpcConfig { max_connection_age, max_header_bytes, .. } = *config;
        Self::Http1 { max_connection_age, max_header_bytes }
    }
}

/// The address of the peer of a request's connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Listener {
    /// Binds the address. Fails when the port is in use or forbidden. Refuses connections beyond
    /// `max_connections`, and those of one peer beyond three quarters of it. `budget` bounds the
    /// bytes that the connections hold.
    pub async fn bind(
        address: SocketAddr,
        max_connections: NonZeroUsize,
        budget: Arc<Budget>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        Ok(Self { tcp, limit: ConnectionLimit::new(max_connections), budget, metrics })
    }

    /// The bound address: with the assigned port if port 0 was requested.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `draining` is cancelled. Then the listener is closed, and every connection
    /// drains and ends with its last response. Connections are tasks of `connections`: wait for
    /// those. Each new one goes to the worker with the fewest connections.
    pub async fn serve(
        self,
        protocol: Protocol,
        service: impl Serves,
        workers: Workers,
        connections: Tasks,
        draining: CancellationToken,
    ) {
        loop {
            let (stream, peer) = tokio::select! {
                accepted = self.accept() => accepted,
                () = draining.cancelled() => return,
            };
            let Some(permit) = self.acquire_permit(peer) else { continue };
            // A socket moves to another runtime only unregistered from this one.
            let Ok(stream) = stream.into_std() else { continue };
            let (service, draining) = (service.clone(), draining.clone());
            let (meter, metrics) =
                (Meter::new(Arc::clone(&self.budget)), Arc::clone(&self.metrics));
            workers.spawn(&connections, "connection", async move {
                let _permit = permit;
                let served = match TcpStream::from_std(stream) {
                    Ok(stream) => {
                        serve_connection(protocol, (stream, peer), service, &meter, draining).await
                    }
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = &served {
                    tracing::debug!(%error, "connection failed");
                }
                let ended = served.unwrap_or_else(|error| error.why());
                metrics.connection_ended(meter.ended().unwrap_or(ended));
            });
        }
    }

    /// Acquires a permit for a connection of `peer`, or logs that there is none.
    fn acquire_permit(&self, peer: SocketAddr) -> Option<ConnectionPermit> {
        let (why, ended) = match self.limit.acquire(peer.ip()) {
            Ok(permit) => return Some(permit),
            Err(LimitReached::Full) => ("the connection limit is reached", ConnectionEnd::Full),
            Err(LimitReached::Share) => {
                ("few connections are left, and this peer has its share", ConnectionEnd::Share)
            }
        };
        self.metrics.connection_ended(ended);
        let listener = self.tcp.local_addr().map(tracing::field::display).ok();
        tracing::warn!(
            listener, peer = %peer.ip(), why,
            "connection refused; find out which clients open so many, or raise \
             `grpc.max_connections` and, with it, the limit of open files"
        );
        None
    }

    async fn accept(&self) -> (TcpStream, SocketAddr) {
        let mut failing = false;
        loop {
            match self.tcp.accept().await {
                Ok(accepted) => return accepted,
                Err(error) if is_connection_error(&error) => {}
                Err(error) => {
                    if !failing {
                        tracing::error!(
                            %error,
                            "cannot accept connections; is the limit of open files too low?"
                        );
                    }
                    failing = true;
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Whether an error concerns a single incoming connection, not the listener.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// Why a connection ended unexpectedly.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the client sent nothing, or not HTTP")]
    NoPreface,
    #[error("the client did not close within {}", humantime::format_duration(MAX_DRAIN))]
    DrainTimedOut,
    #[error("the client did not read its responses")]
    Unread,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

impl Broken {
    fn why(&self) -> ConnectionEnd {
        match self {
            Self::NoPreface => ConnectionEnd::NoPreface,
            Self::DrainTimedOut => ConnectionEnd::DrainTimedOut,
            Self::Unread => ConnectionEnd::Unread,
            Self::Http(error) if is_reset_flood(error) => ConnectionEnd::Resets,
            Self::Io(_) | Self::Http(_) => ConnectionEnd::Broken,
        }
    }
}

/// Whether the HTTP/2 library ended a connection for exceeding the limit of resets.
fn is_reset_flood(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|it| it.is_library() && it.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

async fn serve_connection(
    protocol: Protocol,
    (stream, peer): (TcpStream, SocketAddr),
    service: impl Serves,
    meter: &Arc<Meter>,
    draining: CancellationToken,
) -> Result<ConnectionEnd, Broken> {
    // Responses are small and complete: delaying them to coalesce gains nothing.
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    match protocol {
        Protocol::Grpc(config) => {
            grpc::serve_connection(config, (stream, peer), service, meter, draining).await
        }
        Protocol::Http1 { max_connection_age, max_header_bytes } => {
            let bounds = (jittered(max_connection_age, AGE_JITTER), max_header_bytes);
            http1::serve_connection(bounds, (stream, peer), service, meter, draining).await
        }
    }
}

/// Waits until the socket has `buffer.len()` bytes, without consuming them, or fewer bytes that
/// cannot be a preface of HTTP/2.
///
/// hyper's time-outs for an HTTP/2 connection only start after the preface, for which it waits
/// without limit.
async fn await_preface(stream: &TcpStream, buffer: &mut [u8]) -> Result<(), Broken> {
    let deadline = Instant::now() + FIRST_BYTES_TIMEOUT;
    loop {
        let peeked = timeout_at(deadline, stream.peek(buffer)).await;
        match peeked.map_err(|_| Broken::NoPreface)?? {
            0 => return Err(Broken::NoPreface),
            all if all == buffer.len() || !PREFACE.starts_with(&buffer[..all]) => return Ok(()),
            _ if Instant::now() >= deadline => return Err(Broken::NoPreface),
            _ => sleep(PREFACE_POLL).await,
        }
    }
}
