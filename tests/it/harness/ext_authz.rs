//! A request as Envoy describes it, and what Envoy makes of the answer.

use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            Address, HeaderMap, HeaderValue, HeaderValueOption, Metadata, SocketAddress, address,
            socket_address::PortSpecifier,
        },
        service::auth::v3::{
            AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
            attribute_context::{HttpRequest, Peer, Request},
            check_response::HttpResponse,
        },
    },
    google::{
        protobuf::{self, Struct, value::Kind},
        rpc,
    },
};
use prost::Message;
use serde_json::Value;
use tonic::{Code, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use super::refusal::{Refusal, code_name};

/// The path of the one method.
pub(crate) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// A request that a client has sent to Envoy.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    headers: Vec<(String, Vec<u8>)>,
    path: String,
    source: String,
    extensions: HashMap<String, String>,
    raw: bool,
}

/// The verdict on a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It goes on to the upstream, changed.
    Allowed(Allowed),
    /// The client is answered.
    Refused(Refused),
}

/// The request as it continues.
#[derive(Debug)]
pub(crate) struct Allowed {
    pub(crate) response: OkHttpResponse,
    metadata: Struct,
}

/// What the client receives.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Whether Envoy counts it as an error, and may let the request through.
    pub(crate) as_error: bool,
    pub(crate) http: i32,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    /// What only Envoy receives.
    pub(crate) status: Refusal,
}

/// The answer as an Envoy before 1.37 reads it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OlderResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<rpc::Status>,
    #[prost(message, optional, tag = "2")]
    pub(crate) denied_response: Option<DeniedHttpResponse>,
    #[prost(message, optional, tag = "3")]
    pub(crate) ok_response: Option<OkHttpResponse>,
}

impl Ask {
    pub(crate) fn new() -> Self {
        Self {
            headers: Vec::new(),
            path: "/orders?page=1".to_owned(),
            source: "192.0.2.1".to_owned(),
            extensions: HashMap::new(),
            raw: false,
        }
    }

    /// With a key where most have it.
    pub(crate) fn bearer(key: &str) -> Self {
        Self::new().header("authorization", format!("Bearer {key}"))
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// On a connection from there.
    pub(crate) fn from(mut self, source: &str) -> Self {
        source.clone_into(&mut self.source);
        self
    }

    /// On a route whose configuration says so.
    pub(crate) fn extension(mut self, name: &str, value: &str) -> Self {
        self.extensions.insert(name.to_owned(), value.to_owned());
        self
    }

    /// As sent by an Envoy with `encode_raw_headers`.
    pub(crate) fn raw(mut self) -> Self {
        self.raw = true;
        self
    }

    /// The message, with the fields that Envoy fills.
    pub(crate) fn message(&self) -> CheckRequest {
        let pseudo = [(":authority", "api.example"), (":method", "GET"), (":scheme", "https")];
        let pseudo = pseudo.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let path = (":path".to_owned(), self.path.clone().into_bytes());
        let all = pseudo.into_iter().chain([path]).chain(self.headers.clone());
        let (mut headers, mut header_map) = (HashMap::new(), None);
        if self.raw {
            let header = |(key, raw_value)| HeaderValue { key, raw_value, ..Default::default() };
            header_map = Some(HeaderMap { headers: all.map(header).collect() });
        } else {
            for (name, value) in all {
                let value = String::from_utf8_lossy(&value).replace('\u{fffd}', "!");
                let joined: &mut String = headers.entry(name).or_default();
                if !joined.is_empty() {
                    joined.push(',');
                }
                joined.push_str(&value);
            }
        }
        let http = HttpRequest {
            id: "15143563107204302061".to_owned(),
            method: "GET".to_owned(),
            headers,
            header_map,
            path: self.path.clone(),
            host: "api.example".to_owned(),
            scheme: "https".to_owned(),
            protocol: "HTTP/2".to_owned(),
            size: -1,
            ..Default::default()
        };
        CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(peer(&self.source, 40_000)),
                destination: Some(peer("192.0.2.2", 443)),
                request: Some(Request { http: Some(http), ..Default::default() }),
                context_extensions: self.extensions.clone(),
                metadata_context: Some(Metadata::default()),
                ..Default::default()
            }),
        }
    }

    pub(crate) async fn send(&self, channel: Channel) -> Result<Verdict, Status> {
        Ok(Verdict::of(call(channel, self.message()).await?))
    }

    /// Asserts that it is let through, and says how.
    pub(crate) async fn allowed(&self, channel: Channel) -> Allowed {
        match self.send(channel).await.unwrap() {
            Verdict::Allowed(allowed) => allowed,
            Verdict::Refused(refused) => panic!("{refused:?}"),
        }
    }
}

fn peer(address: &str, port: u32) -> Peer {
    let address = SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..Default::default()
    };
    let address = Address { address: Some(address::Address::SocketAddress(address)) };
    Peer { address: Some(address), ..Default::default() }
}

/// Sends a check and decodes the answer as `R`.
pub(crate) async fn call<R>(channel: Channel, request: CheckRequest) -> Result<R, Status>
where
    R: Message + Default + Send + Sync + 'static,
{
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let codec = ProstCodec::<CheckRequest, R>::default();
    let path = PathAndQuery::from_static(CHECK);
    Ok(client.unary(tonic::Request::new(request), path, codec).await?.into_inner())
}

impl Verdict {
    pub(crate) fn of(response: CheckResponse) -> Self {
        let status = response.status.expect("an answer says whether it is one");
        match (status.code, response.http_response.expect("an answer says more")) {
            (0, HttpResponse::OkResponse(ok)) => {
                assert_eq!((status.message.as_str(), status.details.len()), ("", 0));
                let metadata = response.dynamic_metadata.expect("a grant has metadata");
                Self::Allowed(Allowed { response: ok, metadata })
            }
            (1.., HttpResponse::DeniedResponse(told)) => {
                Self::Refused(Refused::of(told, &status, false))
            }
            (1.., HttpResponse::ErrorResponse(told)) => {
                Self::Refused(Refused::of(told, &status, true))
            }
            other => panic!("code and response do not fit: {other:?}"),
        }
    }
}

impl Allowed {
    /// The request as the upstream sees it: headers are set, then removed, and a
    /// query of which a parameter is removed is written anew, as Envoy does it
    /// (`QueryParamsMulti`): parameters are compared as they are spelled, and come
    /// out by their names, each with an `=`.
    pub(crate) fn upstream(&self, ask: &Ask) -> (BTreeMap<String, Vec<String>>, String) {
        let mut headers = BTreeMap::<_, Vec<_>>::new();
        for (name, value) in &ask.headers {
            let value = String::from_utf8_lossy(value).into_owned();
            headers.entry(name.clone()).or_default().push(value);
        }
        for (name, value) in set(&self.response.headers) {
            headers.insert(name, vec![value]);
        }
        for name in &self.response.headers_to_remove {
            headers.remove(name);
        }
        let removed = &self.response.query_parameters_to_remove;
        if removed.is_empty() {
            return (headers, ask.path.clone());
        }
        let (path, query) = ask.path.split_once('?').unwrap_or((&ask.path, ""));
        let mut parameters = BTreeMap::<_, Vec<_>>::new();
        // There is none behind an `&` at the end.
        for parameter in query.strip_suffix('&').unwrap_or(query).split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            parameters.entry(name).or_default().push(value);
        }
        parameters.retain(|name, _| !removed.iter().any(|removed| removed == name));
        let all = parameters.iter();
        let all =
            all.flat_map(|(name, values)| values.iter().map(move |it| format!("{name}={it}")));
        let query = all.collect::<Vec<_>>().join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        (headers, format!("{path}{mark}{query}"))
    }

    /// The one field of the dynamic metadata.
    pub(crate) fn metadata(&self) -> Value {
        let [(name, value)] = &self.metadata.fields.iter().collect::<Vec<_>>()[..] else {
            panic!("{:?}", self.metadata);
        };
        assert_eq!(*name, "keystead");
        json(value.kind.as_ref().unwrap())
    }
}

fn json(kind: &Kind) -> Value {
    let of = |value: &protobuf::Value| json(value.kind.as_ref().unwrap());
    match kind {
        Kind::StringValue(text) => text.clone().into(),
        Kind::ListValue(list) => list.values.iter().map(of).collect(),
        Kind::StructValue(fields) => {
            fields.fields.iter().map(|(name, value)| (name.clone(), of(value))).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Headers that replace others of the same name; each occurs once.
fn set(headers: &[HeaderValueOption]) -> BTreeMap<String, String> {
    const OVERWRITE_IF_EXISTS_OR_ADD: i32 = 2;
    let pairs = headers.iter().map(|option| {
        assert_eq!(option.append_action, OVERWRITE_IF_EXISTS_OR_ADD, "{option:?}");
        let header = option.header.as_ref().unwrap();
        // Envoy reads nothing else here.
        assert!(header.raw_value.is_empty(), "{header:?}");
        (header.key.clone(), header.value.clone())
    });
    let set: BTreeMap<_, _> = pairs.collect();
    assert_eq!(set.len(), headers.len(), "{headers:?}");
    set
}

impl Refused {
    fn of(told: DeniedHttpResponse, status: &rpc::Status, as_error: bool) -> Self {
        let code = Code::from_i32(status.code);
        let message = status.message.clone();
        let details = status.encode_to_vec().into();
        let mut status = Refusal::of(&Status::with_details(code, message, details));
        // Which is a trailer where there is one.
        status.pushback = status.retry_after.map(|delay| delay.as_millis().to_string());
        let headers = set(&told.headers);
        Self { as_error, http: told.status.unwrap().code, headers, body: told.body, status }
    }

    /// Asserts that client and Envoy get the same row of the table, and that it is this one.
    pub(crate) fn is_row(&self, (code, reason): (Code, &str)) {
        self.status.is_honest();
        assert_eq!((self.status.code, self.status.reason.as_str()), (code, reason), "{self:?}");
        assert_eq!(self.headers["cache-control"], "no-store", "{self:?}");
        let http = match code {
            // As for oversized headers elsewhere.
            Code::InvalidArgument if self.http == 431 => 431,
            Code::InvalidArgument => 400,
            Code::Unauthenticated => 401,
            Code::PermissionDenied => 403,
            Code::Internal => 500,
            Code::Unavailable => 503,
            other => panic!("nobody is told {other:?}"),
        };
        assert_eq!(self.http, http, "{self:?}");
        let after = self.status.retry_after.map(|delay| delay.as_secs_f64().ceil().to_string());
        assert_eq!(self.headers.get("retry-after"), after.as_ref(), "{self:?}");
        let challenge = match (code, reason) {
            (Code::Unauthenticated, "CREDENTIAL_MISSING") => Some(r#"Bearer realm="keystead""#),
            (Code::Unauthenticated, _) => Some(r#"Bearer realm="keystead", error="invalid_token""#),
            (_, "SCOPE_MISSING") => Some(r#"Bearer realm="keystead", error="insufficient_scope""#),
            _ => None,
        };
        let told = self.headers.get("www-authenticate").map(String::as_str);
        assert_eq!(told, challenge, "{self:?}");
    }

    /// Asserts that the body is that of a row, as JSON.
    pub(crate) fn is_json(&self) {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        let body: Value = serde_json::from_str(&self.body).unwrap();
        let Refusal { code, reason, message, .. } = &self.status;
        let expected = serde_json::json!({
            "error": {"code": code_name(*code), "reason": reason, "message": message},
        });
        assert_eq!(body, expected);
    }

    /// The status that a gRPC client behind Envoy reads.
    pub(crate) fn as_grpc(&self) -> Refusal {
        let mut headers = http::HeaderMap::new();
        for (name, value) in &self.headers {
            let name = http::HeaderName::try_from(name).unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        let status = Status::from_header_map(&headers).unwrap();
        let details = status.get_details_error_info().unwrap();
        assert_eq!(details.reason, self.status.reason);
        // Envoy puts the body there.
        let status = Status::with_details_and_metadata(
            status.code(),
            self.body.clone(),
            status.details().to_vec().into(),
            tonic::metadata::MetadataMap::from_headers(headers),
        );
        Refusal::of(&status)
    }
}
