//! The service that a proxy protects: it tells what it was sent.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::beside;

/// No request of a test is longer.
const MAX_BODY: usize = 1024 * 1024;

/// A service that answers every request with what it received, as JSON:
/// `{"method", "path", "headers": {NAME: [VALUE…]}, "body_bytes"}`. With a path
/// that begins `/status/500` it does so with that status. It ends with its test.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    received: Record,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: Method,
    /// With the query.
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

type Record = Arc<Mutex<Vec<Received>>>;

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Record::default();
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&received));
        beside(axum::serve(listener, routes).into_future());
        Self { address, received }
    }

    /// All requests that have reached it so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Received {
    /// All values of a header, joined with a comma as RFC 9110 (5.3) has it;
    /// `None` when there is none, while one that is empty is `""`.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self.headers.get_all(name).iter().map(text).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    fn to_json(&self) -> Value {
        let names = self.headers.keys().map(|name| {
            let values: Vec<_> = self.headers.get_all(name).iter().map(text).collect();
            (name.to_string(), json!(values))
        });
        json!({
            "method": self.method.as_str(),
            "path": self.uri.to_string(),
            "headers": Value::Object(names.collect()),
            "body_bytes": self.body.len(),
        })
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

async fn answer(State(record): State<Record>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let received = Received { method: head.method, uri: head.uri, headers: head.headers, body };
    let told = received.to_json();
    let status = wished(received.uri.path());
    record.lock().unwrap_or_else(PoisonError::into_inner).push(received);
    (status, Json(told)).into_response()
}

fn wished(path: &str) -> StatusCode {
    let status = path.strip_prefix("/status/").and_then(|rest| rest.get(..3));
    status.map_or(StatusCode::OK, |status| status.parse().unwrap())
}
