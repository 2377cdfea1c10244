//! What Envoy is told.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{future, stream};
use http::{Response, StatusCode, header::CONTENT_TYPE};
use prost_types::{ListValue, Struct, Value, value::Kind};
use tonic::{
    Code,
    body::Body,
    codec::{Codec, EncodeBody, SingleMessageCompressionOverride},
    metadata::GRPC_CONTENT_TYPE,
};
use tonic_prost::ProstCodec;

use crate::{
    check::Grant,
    transport::{
        edge::{Form, HttpRefusal, Removal, identity},
        envoy_pb::{
            CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption,
            HttpStatus, OkHttpResponse, header_value_option::HeaderAppendAction,
        },
        refused::Early,
    },
};

/// The one field of the dynamic metadata.
const METADATA: &str = "keystead";

/// Lets a request through: with the headers that tell whose key it is, without
/// those that a client may have made up, and without what is to be removed: the
/// headers `always`, and what there is in this request.
pub(super) fn granted(grant: &Grant, always: &[Bytes], removal: Removal<'_>) -> CheckResponse {
    let owned = |name: &str| Bytes::copy_from_slice(name.as_bytes());
    let in_this = removal.headers.into_iter().map(|name| Bytes::from_static(name.as_bytes()));
    let mut ok = OkHttpResponse {
        headers: Vec::with_capacity(4),
        headers_to_remove: always.iter().cloned().chain(in_this).collect(),
        query_parameters_to_remove: removal.parameters.into_iter().map(owned).collect(),
    };
    for (name, value) in identity(grant) {
        match value {
            Some(value) => ok.headers.push(header(name, value)),
            None => ok.headers_to_remove.push(Bytes::from_static(name.as_bytes())),
        }
    }
    ok.headers.extend(removal.cookie.map(|cookie| header("cookie", cookie)));
    CheckResponse {
        // An empty `google.rpc.Status`: its code is 0, OK.
        status: Some(Bytes::new()),
        ok_response: Some(ok),
        dynamic_metadata: Some(metadata(grant)),
        ..CheckResponse::default()
    }
}

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
pub(super) fn unread(early: Early) -> Response<Body> {
    if early.refusal.code != Code::InvalidArgument {
        // Another method, or a compression that we do not offer: not from a client.
        return early.into_http();
    }
    let mut told = HttpRefusal::new(&early.refusal, Form::Json);
    if early.is_too_large {
        told.status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    }
    let answer = stream::once(future::ready(Ok(refused(told, false))));
    let encoder = ProstCodec::<CheckResponse, CheckRequest>::default().encoder();
    let body = EncodeBody::new_server(
        encoder,
        answer,
        None,
        SingleMessageCompressionOverride::default(),
        None,
    );
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

fn header(name: &'static str, value: String) -> HeaderValueOption {
    header_of(Bytes::from_static(name.as_bytes()), value.into())
}

/// A header that takes the place of any of its name.
fn header_of(key: Bytes, value: Bytes) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key, value, raw_value: Bytes::new() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}

/// Whose key it is, for later filters and the access log.
fn metadata(grant: &Grant) -> Struct {
    let rights = &grant.record.rights;
    let texts = rights.metadata.iter().map(|(name, value)| (name.clone(), text(value)));
    let scopes = ListValue { values: rights.scopes.iter().map(|scope| text(scope)).collect() };
    let facts = [
        ("key_id", text(grant.record.id.as_str())),
        ("principal", text(&rights.principal)),
        ("scopes", of_kind(Kind::ListValue(scopes))),
        ("metadata", of_kind(Kind::StructValue(Struct { fields: texts.collect() }))),
    ];
    let facts = facts.map(|(name, value)| (name.to_owned(), value));
    let facts = of_kind(Kind::StructValue(Struct { fields: facts.into() }));
    Struct { fields: BTreeMap::from([(METADATA.to_owned(), facts)]) }
}

fn text(text: &str) -> Value {
    of_kind(Kind::StringValue(text.to_owned()))
}

const fn of_kind(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}
