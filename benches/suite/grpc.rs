//! Calls over gRPC on a connection that is kept.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use prost::Message;

use crate::{
    Result,
    load::{self, Answer},
};

/// A connection. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Channel(SendRequest<Bytes>);

/// A message as it is sent.
pub(crate) fn framed(message: &impl Message) -> Result<Bytes> {
    Ok(load::framed(&message.encode_to_vec())?.into())
}

impl Channel {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let (channel, connection) = load::connect(address).await?;
        #[expect(clippy::disallowed_methods, reason = "ends with its channel")]
        tokio::spawn(connection);
        Ok(Self(channel))
    }

    /// Calls the method at `path` with a framed message.
    pub(crate) async fn call(&self, path: &str, message: Bytes) -> Result<Answer> {
        load::call(self.0.clone(), path, message).await
    }
}
