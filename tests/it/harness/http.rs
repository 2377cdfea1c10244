//! A literal HTTP/1.1 client: follows no redirects, retries nothing, and adds no
//! header but `host`.

use std::net::SocketAddr;

use axum::body::Body;
use http::{HeaderMap, Request};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use super::{DEADLINE, beside};

/// A connection that is kept between requests.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: http1::SendRequest<Body>,
    running: JoinHandle<hyper::Result<()>>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// Sends one request over its own connection.
pub(crate) async fn send(address: SocketAddr, request: Request<Body>) -> Answer {
    Connection::open(address).await.send(request).await.unwrap()
}

/// A GET with headers.
pub(crate) fn get(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    request("GET", path, headers, Body::empty())
}

pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header("host", "example.test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        Self { sender, running: beside(connection) }
    }

    /// Waits for the whole answer. Fails when the connection ends before it.
    pub(crate) async fn send(&mut self, request: Request<Body>) -> hyper::Result<Answer> {
        let exchange = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let body = axum::body::to_bytes(Body::new(body), usize::MAX).await.unwrap();
            let body = String::from_utf8(body.into()).unwrap();
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        timeout(DEADLINE, exchange).await.expect("it is answered in time")
    }

    /// Waits until the other side has ended it, and says how.
    pub(crate) async fn ended(self) -> hyper::Result<()> {
        let Self { sender, running } = self;
        let ended = timeout(DEADLINE, running).await.expect("the connection is still open");
        drop(sender);
        ended.unwrap()
    }
}

impl Answer {
    /// The value of a header that is there at most once; `None` when it is not.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The reason of a refusal.
    pub(crate) fn reason(&self) -> String {
        self.json()["error"]["reason"].as_str().unwrap_or_default().to_owned()
    }
}
