//! Encodes refusals for Envoy.

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

/// A response that refuses a request. With `as_error`, Envoy may count it as an error of the
/// authorization service and let the request through if so configured.
pub(super) fn refused(refusal: HttpRefusal, as_error: bool) -> CheckResponse {
    let HttpRefusal { status, headers, body, rpc } = refusal;
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

/// Refuses a request whose message was rejected by the transport. It is an ordinary response: Envoy
/// would take a failed call for an error of the authorization service, which a client could cause
/// at will where `failure_mode_allow` then lets requests through.
pub(super) fn unread(rejection: Rejection) -> Response<Body> {
    if rejection.refusal.code != Code::InvalidArgument {
        // An unknown method or an unsupported compression: not caused by a client.
        return rejection.into_http();
    }
    let mut refusal = HttpRefusal::new(&rejection.refusal, Form::Json);
    if rejection.is_too_large {
        refusal.status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    }
    unary::success(frame(&refused(refusal, false)))
}

/// Encodes a response with its gRPC frame.
pub(super) fn frame(message: &CheckResponse) -> EncodedMessage {
    EncodedMessage::of(|to| message.encode_raw(to))
}

/// A header that replaces any header of the same name.
pub(super) fn header_of(key: Bytes, value: Bytes) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key, value }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}
