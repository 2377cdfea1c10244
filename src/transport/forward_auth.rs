//! Forward-auth: `/auth`, which proxies such as nginx (`auth_request`), Caddy
//! (`forward_auth`) and Traefik (`ForwardAuth`) ask about each request that they
//! have received, with that request's headers.
//!
//! What a key needs is in the query of `/auth` itself, as the proxy is set up to
//! ask; what the request's own query was is in a header.

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

/// Where it is asked.
const PATH: &str = "/auth";

/// The body of a refusal as JSON once more, whatever the form of the body: nginx
/// has no use for the body of an answer to `auth_request`.
const ERROR: HeaderName = HeaderName::from_static("x-keystead-error");

#[derive(Debug)]
struct ForwardAuth<T> {
    surface: Surface<T>,
    sources: CredentialSources,
    trusted_hops: u8,
}

/// `/auth`, for any method. The body of a request is not read.
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
    let (asked, _unread) = request.into_parts();
    let now = forward_auth.surface.now();
    let decision = forward_auth.decide(&asked, now);
    let answered = forward_auth.surface.answer(now, decision, |grant| granted(&grant)).await;
    answered.unwrap_or_else(|refusal| refused(&refusal, Form::for_request(&asked)))
}

impl<T: Tier> ForwardAuth<T> {
    async fn decide(&self, asked: &Parts, now: Moment) -> Result<Decision, Refusal> {
        let needed = Needed::read(asked.uri.query().unwrap_or_default())?;
        let peer = asked.extensions.get().map(|Peer(address): &Peer| address.ip());
        let client_ip = proxied::client_ip(asked, self.trusted_hops, peer);
        let scopes = needs::scopes(&needed.scopes)?;
        let needs = needs::needs(&scopes, client_ip, &needed.audience)?;
        let target = if self.sources.has_query() { Some(Target::of(asked)?) } else { None };
        let credential = match self.sources.find(asked) {
            Ok(credential) => credential,
            Err(twice) => return Ok(Decision::Deny(twice.into())),
        };
        if let (Some(Target::Untold), None) = (target, &credential) {
            return Err(Target::missing());
        }
        if credential.is_none() {
            return Ok(Decision::Deny(self.sources.missing(asked)));
        }
        Ok(self.surface.admission().check(credential.as_deref(), needs, || None, now).await?)
    }
}

/// A request as the proxy has received it.
impl Proxied for Parts {
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.get_all(name).iter().map(HeaderValue::as_bytes)
    }

    /// That of the request that `/auth` is asked about; empty where the proxy does
    /// not tell it. Only of use where [`Target::of`] has found that it is told once.
    fn target(&self) -> &[u8] {
        target::told(self).next().unwrap_or_default()
    }
}

/// Every identity header is there, as some proxies take one that is missing for
/// leave to pass on what the client sent under its name.
fn granted(grant: &Grant) -> Response {
    let identity = identity::all(&grant.record).map(|(name, value)| {
        let value = HeaderValue::try_from(value.unwrap_or_default());
        // Every value is a legal one: the identity is encoded.
        (HeaderName::from_static(name), value.unwrap_or(HeaderValue::from_static("")))
    });
    let mut headers = HeaderMap::from_iter(identity);
    // It is about one request, as every refusal is, which says so itself.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (StatusCode::OK, headers).into_response()
}

fn refused(refusal: &Refusal, form: Form) -> Response {
    let HttpRefusal { status, mut headers, body, .. } = HttpRefusal::new(refusal, form);
    let error = match form {
        Form::Json => HeaderValue::try_from(&body),
        Form::Text | Form::Grpc => HeaderValue::try_from(proxied::json_body(refusal)),
    };
    // No message has anything but printable ASCII in it.
    if let Ok(error) = error {
        headers.insert(ERROR, error);
    }
    (status, headers, body).into_response()
}
