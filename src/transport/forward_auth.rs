//! Forward-auth: `/auth`, which proxies such as nginx (`auth_request`), Caddy (`forward_auth`) and
//! Traefik (`ForwardAuth`) call for each request that they receive, with that request's headers.
//!
//! The query of `/auth` itself, which is part of the proxy's configuration, has the required scopes
//! and audience; the query of the client's request is in a header.

mod needed;
mod target;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::any,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header::CACHE_CONTROL, request::Parts,
};

use self::{needed::Needed, target::Target};
use super::{
    Admission, ForwardAuthConfig, needs,
    proxied::{self, CredentialSources, Form, HttpRefusal, Proxied, identity},
    server::Peer,
    status::Refusal,
    surface::Surface,
};
use crate::{
    check::{Decision, Grant},
    telemetry::Metrics,
    tier::Tier,
    time::{Clock, Moment},
};

/// The label of this surface in the metrics.
const SURFACE: &str = "forward_auth";

/// The path of the endpoint.
const PATH: &str = "/auth";

/// The body of a refusal as JSON, repeated in a header whatever the form of the body: nginx ignores
/// the body of a response to `auth_request`.
const ERROR: HeaderName = HeaderName::from_static("x-keystead-error");

#[derive(Debug)]
struct ForwardAuth<T> {
    surface: Surface<T>,
    sources: CredentialSources,
    trusted_hops: u8,
}

/// The route `/auth`, for any method. The request body is not read.
pub fn auth_routes<T: Tier>(
    admission: Arc<Admission<T>>,
    metrics: &Arc<Metrics>,
    sources: CredentialSources,
    config: ForwardAuthConfig,
    clock: Clock,
) -> Router {
    let forward_auth = ForwardAuth {
        surface: Surface::new(SURFACE, admission, metrics, clock),
        sources,
        trusted_hops: config.trusted_hops,
    };
    Router::new().route(PATH, any(answer)).with_state(Arc::new(forward_auth))
}

async fn answer<T: Tier>(
    State(forward_auth): State<Arc<ForwardAuth<T>>>,
    request: Request<Body>,
) -> Response {
    let (parts, _body) = request.into_parts();
    let now = forward_auth.surface.now();
    let decision = forward_auth.decide(&parts, now);
    let response = forward_auth.surface.answer(now, decision, |grant| granted(&grant)).await;
    response.unwrap_or_else(|refusal| refused(&refusal, Form::for_request(&parts)))
}

impl<T: Tier> ForwardAuth<T> {
    async fn decide(&self, parts: &Parts, now: Moment) -> Result<Decision, Refusal> {
        let needed = Needed::read(parts.uri.query().unwrap_or_default())?;
        let peer = parts.extensions.get().map(|Peer(address): &Peer| address.ip());
        let client_ip = proxied::client_ip(parts, self.trusted_hops, peer);
        let scopes = needs::scopes(&needed.scopes)?;
        let needs = needs::needs(&scopes, client_ip, &needed.audience)?;
        let target = if self.sources.has_query() { Some(Target::of(parts)?) } else { None };
        let credential = match self.sources.find(parts) {
            Ok(credential) => credential,
            Err(twice) => return Ok(Decision::Deny(twice.into())),
        };
        if let (Some(Target::Missing), None) = (target, &credential) {
            return Err(Target::missing());
        }
        if credential.is_none() {
            return Ok(Decision::Deny(self.sources.missing(parts)));
        }
        Ok(self.surface.admission().check(credential.as_deref(), needs, || None, now).await?)
    }
}

/// A request as the proxy received it.
impl Proxied for Parts {
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.get_all(name).iter().map(HeaderValue::as_bytes)
    }

    /// The target of the client's request; empty if the proxy does not send it. Only meaningful
    /// after [`Target::of`] has found a single value.
    fn target(&self) -> &[u8] {
        target::values(self).next().unwrap_or_default()
    }
}

/// Sets every identity header, as some proxies pass on a header that the client sent when the
/// response lacks it.
fn granted(grant: &Grant) -> Response {
    let identity = identity::all(&grant.record).map(|(name, value)| {
        let value = HeaderValue::try_from(value.unwrap_or_default());
        // Every value is valid: the identity is encoded.
        (HeaderName::from_static(name), value.unwrap_or(HeaderValue::from_static("")))
    });
    let mut headers = HeaderMap::from_iter(identity);
    // The response is about one request. Refusals set this header themselves.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (StatusCode::OK, headers).into_response()
}

fn refused(refusal: &Refusal, form: Form) -> Response {
    let HttpRefusal { status, mut headers, body, .. } = HttpRefusal::new(refusal, form);
    let error = match form {
        Form::Json => HeaderValue::try_from(&body),
        Form::Text | Form::Grpc => HeaderValue::try_from(proxied::json_body(refusal)),
    };
    // Messages contain only printable ASCII.
    if let Ok(error) = error {
        headers.insert(ERROR, error);
    }
    (status, headers, body).into_response()
}
