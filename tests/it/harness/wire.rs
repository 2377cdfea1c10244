//! One HTTP/2 connection, without a gRPC client's help: nothing is retried,
//! reconnected or given up on this side.

use std::{net::SocketAddr, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tonic::{Code, Status};

use super::{DEADLINE, beside};

/// The path of the one method.
pub(crate) const CHECK: &str = "/keystead.v1.Authz/Check";

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire {
    sender: http2::SendRequest<Body>,
    running: JoinHandle<hyper::Result<()>>,
}

/// An answer with its trailers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http: StatusCode,
    pub(crate) headers: HeaderMap,
    /// `None` when there is no gRPC status in it at all.
    pub(crate) status: Option<Status>,
    pub(crate) body: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        Self { sender, running: beside(connection) }
    }

    /// Sends a message as the whole of a call.
    pub(crate) async fn call(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        message: &impl Message,
    ) -> hyper::Result<Answer> {
        let body = framed(false, &message.encode_to_vec());
        self.send(path, headers, Bytes::from(body).into()).await
    }

    /// Begins a call, and does not wait for its answer.
    pub(crate) async fn begin(
        &mut self,
        path: &str,
        body: Body,
    ) -> JoinHandle<hyper::Result<Response<Incoming>>> {
        let request = Request::post(format!("http://keystead{path}"))
            .header("content-type", "application/grpc");
        self.sender.ready().await.unwrap();
        beside(self.sender.send_request(request.body(body).unwrap()))
    }

    /// Sends a body, whatever it is.
    pub(crate) async fn send(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> hyper::Result<Answer> {
        let mut request = Request::post(format!("http://keystead{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.exchange(request.body(body).unwrap()).await
    }

    /// Sends a request as it is.
    pub(crate) async fn exchange(&mut self, request: Request<Body>) -> hyper::Result<Answer> {
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        Answer::read(answer).await
    }

    /// Waits until the connection has ended, and says how.
    pub(crate) async fn ended(self) -> hyper::Result<()> {
        // The sender would keep it from ending on our side.
        drop(self.sender);
        timeout(DEADLINE, self.running).await.expect("the connection is still open").unwrap()
    }

    /// Whether the connection is still open.
    pub(crate) fn is_open(&self) -> bool {
        !self.running.is_finished()
    }
}

impl Answer {
    async fn read(answer: Response<Incoming>) -> hyper::Result<Self> {
        let (head, mut body) = answer.into_parts();
        let (mut trailers, mut data) = (HeaderMap::new(), Vec::new());
        while let Some(frame) =
            std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
        {
            match frame?.into_data() {
                Ok(more) => data.extend_from_slice(&more),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        let status = [&head.headers, &trailers].into_iter().find_map(Status::from_header_map);
        Ok(Self { http: head.status, headers: head.headers, status, body: data })
    }

    /// The gRPC status of a call that was answered as such.
    pub(crate) fn status(self) -> Status {
        assert_eq!(self.http, StatusCode::OK);
        self.status.expect("an answer has a status")
    }

    /// The one message of a call that did not fail.
    pub(crate) fn message(&self) -> &[u8] {
        let code = self.status.as_ref().map(Status::code);
        assert_eq!((self.http, code), (StatusCode::OK, Some(Code::Ok)));
        let message = self.body.get(5..).expect("a frame has five bytes before its message");
        assert_eq!(self.body, framed(false, message));
        message
    }
}

/// A message in its frame.
pub(crate) fn framed(compressed: bool, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[u8::from(compressed)], &length[..], message].concat()
}

/// A body that begins and never ends.
pub(crate) fn endless() -> Body {
    Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>())
}

/// The `grpc-timeout` header for a deadline.
pub(crate) fn grpc_timeout(patience: Duration) -> String {
    format!("{}m", patience.as_millis())
}
