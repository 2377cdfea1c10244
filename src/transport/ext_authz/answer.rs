//! What Envoy is told of a refusal.

use bytes::Bytes;
use http::{Response, StatusCode};
use prost::Message;
use tonic::{Code, body::Body};

use crate::transport::{
    envoy_pb::{
        CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption, HttpStatus,
        header_value_option::HeaderAppendAction,
    },
    proxied::{Form, HttpRefusal},
    rejection::Rejection,
    unary::{self, EncodedMessage},
};

/// Refuses a request; `as_error` if Envoy may count it as an error of ours, and
/// let the request through where it is told to do so then.
pub(super) fn refused(told: HttpRefusal, as_error: bool) -> CheckResponse {
    let HttpRefusal { status, headers, body, rpc } = told;
    let headers = headers.iter().map(|(name, value)| {
        header_of(Bytes::copy_from_slice(name.as_ref()), Bytes::copy_from_slice(value.as_bytes()))
    });
    let response = DeniedHttpResponse {
        status: Some(HttpStatus { code: status.as_u16().into() }),
        headers: headers.collect(),
        body,
    };
    CheckResponse {
        status: Some(rpc),
        error_response: as_error.then(|| response.clone()),
        denied_response: Some(response),
        ..CheckResponse::default()
    }
}

/// Refuses a request whose message no service has seen. It is an answer like any
/// other: Envoy would take a failed call for an error of ours, which a client could
/// bring about at will where `failure_mode_allow` lets requests through then.
pub(super) fn unread(rejection: Rejection) -> Response<Body> {
    if rejection.refusal.code != Code::InvalidArgument {
        // Another method, or a compression that we do not offer: not from a client.
        return rejection.into_http();
    }
    let mut told = HttpRefusal::new(&rejection.refusal, Form::Json);
    if rejection.is_too_large {
        told.status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    }
    unary::answered(frame(&refused(told, false)))
}

/// A message in its frame.
pub(super) fn frame(message: &CheckResponse) -> EncodedMessage {
    EncodedMessage::of(|to| message.encode_raw(to))
}

/// A header that takes the place of any of its name.
pub(super) fn header_of(key: Bytes, value: Bytes) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key, value }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}
