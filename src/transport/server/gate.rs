//! Refuses requests before any service sees them.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{
    FutureExt, TryFutureExt,
    future::{Either, MapOk},
};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{ALLOW, CONTENT_TYPE, HOST},
};
use http_body_util::{Either as EitherBody, Full};
use tower::Service;

use super::{RequestBody, Serves};

/// A refusal in plain text.
type Refusal = Response<Full<Bytes>>;

/// Sends the refusal of `refuse`, if any, or passes the request on to `service`.
#[derive(Debug, Clone)]
pub(super) struct Gate<S> {
    pub(super) refuse: fn(&Request<RequestBody>) -> Option<Refusal>,
    pub(super) service: S,
}

type GateResponse<B> = Response<EitherBody<Full<Bytes>, B>>;

impl<S: Serves> Service<Request<RequestBody>> for Gate<S> {
    type Response = GateResponse<S::Body>;
    type Error = Infallible;
    type Future = Either<
        Ready<Result<Self::Response, Infallible>>,
        MapOk<S::Future, fn(Response<S::Body>) -> Self::Response>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        if let Some(refusal) = (self.refuse)(&request) {
            return ready(Ok(refusal.map(EitherBody::Left))).left_future();
        }
        let map_body: fn(_) -> _ = |response: Response<_>| response.map(EitherBody::Right);
        self.service.call(request).map_ok(map_body).right_future()
    }
}

/// Refuses requests that are not gRPC calls, as gRPC requires (PROTOCOL-HTTP2, "Requests"). gRPC
/// responses always have the status 200, which a proxy that mistakes this listener for the
/// forward-auth one would take for a grant.
pub(super) fn not_grpc(request: &Request<RequestBody>) -> Option<Refusal> {
    let method = request.method();
    if method != Method::POST {
        let mut refusal = refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "this port serves gRPC alone, whose method is POST",
        );
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        // A response to HEAD has no body.
        return Some(if method == Method::HEAD {
            refusal.map(|_| Full::default())
        } else {
            refusal
        });
    }
    if !has_grpc_type(request.headers()) {
        return Some(refusal(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "this port serves gRPC alone, whose content type is application/grpc",
        ));
    }
    (request.version() != Version::HTTP_2).then(|| {
        refusal(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "this port serves gRPC alone, over HTTP/2")
    })
}

/// Whether the content type is `application/grpc`, with or without a codec or a parameter. gRPC-Web
/// is another protocol.
fn has_grpc_type(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let parts = value.and_then(|value| value.split_at_checked(GRPC.len()));
    parts.is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
    })
}

/// Refuses a request without exactly one host, as RFC 9112 (3.2) requires: a proxy and the server
/// behind it might use different ones.
pub(super) fn not_one_host(request: &Request<RequestBody>) -> Option<Refusal> {
    let hosts = request.headers().get_all(HOST).iter().count();
    let is_valid = hosts == 1 || hosts == 0 && request.version() < Version::HTTP_11;
    (!is_valid).then(|| refusal(StatusCode::BAD_REQUEST, "a request has one `host` header"))
}

fn refusal(status: StatusCode, why: &'static str) -> Refusal {
    let mut refusal = Response::new(Full::from(format!("{why}\n")));
    *refusal.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    refusal.headers_mut().insert(CONTENT_TYPE, text);
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_recognized_by_its_content_type() {
        let is_grpc = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            has_grpc_type(&HeaderMap::from_iter([(CONTENT_TYPE, value)]))
        };
        for value in [
            "application/grpc",
            "Application/gRPC",
            "application/grpc+proto",
            "application/grpc;x=y",
            "application/grpc ; x=y",
        ] {
            assert!(is_grpc(value), "{value}");
        }
        for value in ["", "application/grp", "application/grpc-web", "application/json", "grpc"] {
            assert!(!is_grpc(value), "{value}");
        }
        assert!(!has_grpc_type(&HeaderMap::new()));
    }
}
