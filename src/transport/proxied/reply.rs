//! Renders a refusal as HTTP.

use std::panic::{self, AssertUnwindSafe};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::json;
use tonic::{Code, Status};

use super::{Proxied, items};
use crate::transport::status::{self, Refusal};

/// The format in which a refusal is sent to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Form {
    /// A JSON object.
    Json,
    /// A line of plain text.
    Text,
    /// For gRPC clients: the proxy puts the body into `grpc-message`, and passes on `grpc-status`
    /// and its details.
    Grpc,
}

/// A refusal as an HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::transport) struct HttpRefusal {
    pub(in crate::transport) status: StatusCode,
    /// At most one value per name.
    pub(in crate::transport) headers: HeaderMap,
    pub(in crate::transport) body: String,
    /// The whole refusal as an encoded `google.rpc.Status`, whose code is not OK.
    pub(in crate::transport) rpc: Bytes,
}

impl Form {
    /// Chooses the form for a request: gRPC for a gRPC client; text for a client that accepts plain
    /// text but not JSON, or sends text without saying what it accepts; otherwise JSON. A panic
    /// here only costs the form: the refusal is sent as JSON.
    pub(in crate::transport) fn for_request(request: &impl Proxied) -> Self {
        panic::catch_unwind(AssertUnwindSafe(|| Self::choose(request))).unwrap_or(Self::Json)
    }

    fn choose(request: &impl Proxied) -> Self {
        let content_type = request.header(CONTENT_TYPE.as_str()).next().unwrap_or_default();
        let content_type = media_type(content_type);
        if is_grpc(content_type) {
            return Self::Grpc;
        }
        let accepted = || accepted(request);
        let text = if accepted().next().is_none() {
            starts_with(content_type, "text/")
        } else {
            let takes = |types: &[&str]| {
                accepted()
                    .any(|range| types.iter().any(|it| range.eq_ignore_ascii_case(it.as_bytes())))
            };
            takes(&["text/plain", "text/*"])
                && !takes(&["application/json", "application/*", "*/*"])
        };
        if text { Self::Text } else { Self::Json }
    }
}

impl HttpRefusal {
    /// Renders `refusal` in `form`.
    pub(in crate::transport) fn new(refusal: &Refusal, form: Form) -> Self {
        let rpc = refusal.details();
        let mut headers = match form {
            Form::Grpc => grpc_headers(&refusal.with_details(rpc.clone())),
            Form::Json => of_type("application/json"),
            Form::Text => of_type("text/plain; charset=utf-8"),
        };
        // A cache must not send one client's refusal to another.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = challenge(refusal) {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(delay) = refusal.retry_after() {
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        let body = match form {
            Form::Json => json_body(refusal),
            Form::Text => format!("{}: {}\n", refusal.reason, refusal.message()),
            Form::Grpc => refusal.message().to_owned(),
        };
        Self { status: status::http_status(refusal.code), headers, body, rpc }
    }
}

/// A refusal as a JSON object.
pub(in crate::transport) fn json_body(refusal: &Refusal) -> String {
    let error = json!({"error": {
        "code": status::code_name(refusal.code),
        "reason": refusal.reason,
        "message": refusal.message(),
    }});
    error.to_string()
}

fn of_type(content_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))])
}

/// What a gRPC client reads besides the message: the code, which a proxy would otherwise guess from
/// the HTTP status, and the details.
fn grpc_headers(status: &Status) -> HeaderMap {
    const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
    let mut headers = HeaderMap::new();
    // Fails only for metadata that is not a valid header; this is.
    let _ = status.add_header(&mut headers);
    headers.remove(MESSAGE);
    headers
}

/// The `www-authenticate` challenge of a refusal (RFC 6750, 3).
fn challenge(refusal: &Refusal) -> Option<&'static str> {
    match (refusal.code, refusal.reason) {
        (Code::Unauthenticated, "CREDENTIAL_MISSING") => Some(r#"Bearer realm="keystead""#),
        (Code::Unauthenticated, _) => Some(r#"Bearer realm="keystead", error="invalid_token""#),
        (Code::PermissionDenied, "SCOPE_MISSING") => {
            Some(r#"Bearer realm="keystead", error="insufficient_scope""#)
        }
        _ => None,
    }
}

/// Matches `application/grpc`, with or without a codec, but not gRPC-Web, whose frames include the
/// trailers.
fn is_grpc(media_type: &[u8]) -> bool {
    const GRPC: &str = "application/grpc";
    starts_with(media_type, GRPC) && matches!(media_type.get(GRPC.len()), None | Some(b'+'))
}

fn starts_with(text: &[u8], prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// Strips the parameters.
fn media_type(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// The media ranges of `accept`, except those with `q=0`, which the client does not accept (RFC
/// 9110, 12.4.2).
fn accepted(request: &impl Proxied) -> impl Iterator<Item = &[u8]> {
    let ranges = items(request.header(ACCEPT.as_str())).filter(|range| !range.is_empty());
    ranges.filter(|range| !range.split(|byte| *byte == b';').any(is_zero_quality)).map(media_type)
}

fn is_zero_quality(parameter: &[u8]) -> bool {
    let mut parts = parameter.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
    let is_quality = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(b"q"));
    let value = parts.next().unwrap_or_default();
    is_quality && !value.is_empty() && value.iter().all(|byte| matches!(byte, b'0' | b'.'))
}

#[cfg(test)]
mod tests;
