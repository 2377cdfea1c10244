//! Listeners: how connections are accepted, how old they may grow, and how they
//! end.

mod bodies;
mod frames;
mod gate;
mod grpc;
mod http1;
mod inline_executor;
mod meter;
mod metered;
mod non_vectored;
mod places;
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
    meter::Meter,
    places::{NoPlace, Place, Places},
};
use super::GrpcConfig;
use crate::{
    tasks::Tasks,
    telemetry::{ConnectionEnd, Metrics},
    time::jittered,
};

/// How far the age of connections is spread, so that clients that connected
/// together do not reconnect together.
const AGE_JITTER: f64 = 0.1;

/// How long a connection that was asked to end may take to finish its requests:
/// far longer than a check, and long enough for a client that streams, such as a
/// health watch, to come back elsewhere.
const MAX_DRAIN: Duration = Duration::from_secs(30);

/// How long a client may take from connecting to its first complete words: the
/// HTTP/2 preface, or the headers of an HTTP/1 request. A few round trips, with
/// packets lost on the way. It bounds for how long a client that says nothing
/// holds a place.
const FIRST_WORDS: Duration = Duration::from_secs(10);

/// How long what was sent may stay unacknowledged, or a full window closed, before the
/// operating system gives the connection up: a client that never reads must not hold
/// its place.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// What every HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How often it is looked whether a preface that came in parts is complete. One
/// segment holds it, so that this is rare.
const PREFACE_POLL: Duration = Duration::from_millis(20);

/// How long accepting pauses when the process is out of file descriptors. The
/// backlog of the listener holds meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener with a bounded number of places for connections.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    places: Arc<Places>,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy)]
pub enum Protocol {
    /// gRPC, over HTTP/2 that begins at once.
    Grpc(GrpcConfig),
    /// HTTP/1.1. A request has the address of its peer among its extensions.
    Http1 {
        /// How long a connection lives before it is closed with an answer, spread
        /// as that of a gRPC connection.
        max_connection_age: Duration,
        /// How many bytes a request may have before its body. One with more is a
        /// 431, as one with more than 100 headers is, and its connection is
        /// closed. Each connection keeps a buffer that grows to as many and
        /// 8 KiB.
        max_header_bytes: NonZeroU32,
    },
}

/// What a listener can serve: a service that always answers. Each connection gets
/// a clone.
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
    /// The body of an answer.
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
    /// HTTP/1.1 with the bounds that gRPC has.
    #[must_use]
    pub fn http1(config: &GrpcConfig) -> Self {
        let GrpcConfig { max_connection_age, max_header_bytes, .. } = *config;
        Self::Http1 { max_connection_age, max_header_bytes }
    }
}

/// Who is at the other end of the connection that a request came over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Listener {
    /// Binds the address. Fails when the port is in use or forbidden. Of more than
    /// `max_connections` the rest is refused, and of one peer's three quarters of them.
    /// What its connections hold is within `budget`.
    pub async fn bind(
        address: SocketAddr,
        max_connections: NonZeroUsize,
        budget: Arc<Budget>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        Ok(Self { tcp, places: Places::new(max_connections), budget, metrics })
    }

    /// Where it listens: the port that was given, or the one that was found for
    /// port 0.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `draining` is cancelled. Then the listener is closed, and
    /// every connection is asked to end and does so when its last request has
    /// been answered. Connections are tasks of `connections`: wait for those. Each
    /// is served by the one of `workers` that has the fewest.
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
            let Some(place) = self.place_of(peer) else { continue };
            // For another runtime it must belong to none.
            let Ok(stream) = stream.into_std() else { continue };
            let (service, draining) = (service.clone(), draining.clone());
            let (meter, metrics) =
                (Meter::new(Arc::clone(&self.budget)), Arc::clone(&self.metrics));
            workers.spawn(&connections, "connection", async move {
                let _place = place;
                let served = match TcpStream::from_std(stream) {
                    Ok(stream) => {
                        serve_connection(protocol, (stream, peer), service, &meter, draining).await
                    }
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = &served {
                    tracing::debug!(%error, "a connection broke");
                }
                let ended = served.unwrap_or_else(|error| error.why());
                metrics.connection_ended(meter.ended().unwrap_or(ended));
            });
        }
    }

    /// A place for a connection of `peer`, or a word in the log that there is none.
    fn place_of(&self, peer: SocketAddr) -> Option<Place> {
        let (why, ended) = match self.places.take(peer.ip()) {
            Ok(place) => return Some(place),
            Err(NoPlace::Full) => ("all places are taken", ConnectionEnd::Full),
            Err(NoPlace::Share) => {
                ("few places are left, and this peer has its share", ConnectionEnd::Share)
            }
        };
        self.metrics.connection_ended(ended);
        let listener = self.tcp.local_addr().map(tracing::field::display).ok();
        tracing::warn!(
            listener, peer = %peer.ip(), why,
            "a connection is refused; see who opens so many, or raise `grpc.max_connections` and, \
             with it, the limit of open files"
        );
        None
    }

    async fn accept(&self) -> (TcpStream, SocketAddr) {
        let mut failing = false;
        loop {
            match self.tcp.accept().await {
                Ok(accepted) => return accepted,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if !failing {
                        tracing::error!(%error, "cannot accept connections; is the limit of open files too low?");
                    }
                    failing = true;
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// An error of the connection that was about to be accepted, not of the
/// listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// Why a connection ended otherwise than as planned.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the client said nothing, or not HTTP")]
    NoPreface,
    #[error("the client did not let go within {}", humantime::format_duration(MAX_DRAIN))]
    DrainTimedOut,
    #[error("the client did not take its answers")]
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
            Self::Http(error) if is_calmed(error) => ConnectionEnd::Resets,
            Self::Io(_) | Self::Http(_) => ConnectionEnd::Broken,
        }
    }
}

/// Whether the HTTP/2 library ended a connection for more resets than it is told to bear.
fn is_calmed(error: &hyper::Error) -> bool {
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
    // Answers are small and final: nothing is gained by waiting for more.
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
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

/// Waits until as many bytes have come as `words` holds, without taking them. Fewer
/// are enough when they cannot begin an HTTP/2 connection.
///
/// hyper begins to watch over an HTTP/2 connection when it has read the preface,
/// and waits for that without a limit.
async fn await_preface(stream: &TcpStream, words: &mut [u8]) -> Result<(), Broken> {
    let deadline = Instant::now() + FIRST_WORDS;
    loop {
        let peeked = timeout_at(deadline, stream.peek(words)).await;
        match peeked.map_err(|_| Broken::NoPreface)?? {
            0 => return Err(Broken::NoPreface),
            all if all == words.len() || !PREFACE.starts_with(&words[..all]) => return Ok(()),
            _ if Instant::now() >= deadline => return Err(Broken::NoPreface),
            _ => sleep(PREFACE_POLL).await,
        }
    }
}
