//! Calls over gRPC on a connection that is kept.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{self, SendRequest};
use http::{HeaderMap, Request};
use tokio::{net::TcpStream, runtime::Builder};

use crate::Result;

/// How many bytes of answers a connection may have under way.
const WINDOW: u32 = 1 << 24;

/// A connection. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Channel(SendRequest<Bytes>);

/// An answer to one call.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The `grpc-status`.
    pub(crate) status: i32,
    /// The message without the five bytes before it; empty if there is none.
    pub(crate) message: Bytes,
    /// Without a message, the headers: they are all there is.
    pub(crate) trailers: HeaderMap,
}

impl Channel {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut builder = client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let (channel, connection) = builder.enable_push(false).handshake(stream).await?;
        #[expect(clippy::disallowed_methods, reason = "ends with its channel")]
        tokio::spawn(connection);
        Ok(Self(channel.ready().await?))
    }

    /// How many calls the server takes at once, for certain: it may count some for longer
    /// than we do.
    pub(crate) fn most_at_once(&self) -> usize {
        self.0.current_max_send_streams() / 2
    }

    /// Calls the method at `path` with a framed message.
    pub(crate) async fn call(&self, path: &str, message: Bytes) -> Result<Answer> {
        let request = Request::post(format!("http://keystead{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (response, mut body) = self.0.clone().ready().await?.send_request(request, false)?;
        body.send_data(message, true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut message = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            message.extend_from_slice(&data);
        }
        let trailers = body.trailers().await?.unwrap_or(head.headers);
        let status = trailers.get("grpc-status").ok_or("an answer without a grpc-status")?;
        let status = status.to_str()?.parse()?;
        message.advance(message.len().min(5));
        Ok(Answer { status, message: message.freeze(), trailers })
    }
}

/// Asks once, on a connection of its own.
pub(crate) fn ask(address: SocketAddr, path: &str, message: Vec<u8>) -> Result<Answer> {
    block_on(async { Channel::connect(address).await?.call(path, message.into()).await })
}

/// A message as the body of a call has it.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("it is short").to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// Waits for it on this thread.
pub(crate) fn block_on<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    Builder::new_current_thread().enable_all().build()?.block_on(what)
}
