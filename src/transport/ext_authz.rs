//! `envoy.service.auth.v3.Authorization`: the surface for Envoy and proxies built on it.

mod answer;
mod grant;
mod message;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response};
use tonic::{Status, body::Body};

use self::message::Message;
use super::{
    Admission, authz, needs,
    proxied::{
        self, CredentialSources, ExtAuthzConfig, Form, HttpRefusal, OnOutage, Proxied, identity,
    },
    rejection::Rejection,
    status::{self, Refusal},
    surface::{Pending, Surface},
    unary::{EncodedMessage, UnaryMethod, UnaryService},
    wire::Malformed,
};
use crate::{
    check::{Decision, Grant},
    key::CompactKey,
    telemetry::Metrics,
    tier::Tier,
    time::{Clock, Moment},
};

/// The label of this surface in the metrics.
const SURFACE: &str = "ext_authz";

/// Lower bound of the message size limit. Envoy sends a path twice, in a field and as the header
/// `:path`, and by default allows 60 KiB of headers (`max_request_headers_kb`): twice that, and as
/// much again for the remaining fields.
const MIN_MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// Error message for bytes that are not a `CheckRequest`.
const NO_REQUEST: &str = "the message is no `envoy.service.auth.v3.CheckRequest`";

/// Serves `envoy.service.auth.v3.Authorization`.
#[derive(Debug)]
pub struct ExtAuthzService<T> {
    surface: Surface<T>,
    sources: CredentialSources,
    config: ExtAuthzConfig,
    /// The encoded part that the responses to all grants share.
    common_part: Box<[u8]>,
}

impl<T: Tier> ExtAuthzService<T> {
    /// The path of the method.
    pub const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

    /// Creates a service that takes keys from `sources`.
    pub fn new(
        admission: Arc<Admission<T>>,
        metrics: &Arc<Metrics>,
        clock: Clock,
        sources: CredentialSources,
        config: ExtAuthzConfig,
    ) -> Self {
        let surface = Surface::new(SURFACE, admission, metrics, clock);
        let key_headers = config.remove_credential.then(|| sources.headers());
        let always_removed = identity::all_lookalikes().chain(key_headers.into_iter().flatten());
        let common_part = grant::common_part(always_removed);
        Self { surface, sources, config, common_part }
    }

    /// Wraps the service in its transport, which answers a message that it cannot read as an
    /// invalid request. The message size limit is `max_message_bytes`, but at least 256 KiB.
    #[must_use]
    pub fn serve(self, max_message_bytes: usize) -> UnaryService<Self> {
        UnaryService::new(self, max_message_bytes.max(MIN_MAX_MESSAGE_BYTES))
    }

    async fn decide(
        &self,
        headers: &HeaderMap,
        message: &Message<'_>,
        now: Moment,
    ) -> Result<Decision, Refusal> {
        let http = message.http().ok_or_else(|| {
            Refusal::invalid("there is no HTTP request in it; ask with Envoy's HTTP filter")
        })?;
        let (scopes, audience) = message.needs()?;
        let client_ip = proxied::client_ip(http, self.config.trusted_hops, message.source_ip());
        let scopes = needs::scopes(scopes)?;
        let needs = needs::needs(&scopes, client_ip, audience)?;
        let presented = match self.sources.find(http) {
            Ok(presented) => presented,
            Err(twice) => return Ok(Decision::Deny(twice.into())),
        };
        if presented.is_none() && http.target().is_empty() && self.sources.has_query() {
            return Err(Refusal::invalid("the request has no path, and a key may be in its query"));
        }
        if presented.is_none() {
            return Ok(Decision::Deny(self.sources.missing(http)));
        }
        let caller_timeout = || authz::grpc_timeout(headers);
        Ok(self.surface.admission().check(presented.as_deref(), needs, caller_timeout, now).await?)
    }

    fn granted(&self, key: &CompactKey, message: &Message<'_>) -> EncodedMessage {
        let http = message.http().filter(|_| self.config.remove_credential);
        let removed = http.map(|http| grant::removal_part(self.sources.removal(http)));
        let parts = [&*self.common_part, &removed.unwrap_or_default()];
        EncodedMessage::of(|to| grant::write(key, parts, to))
    }

    fn refused(&self, refusal: Refusal, message: &Message<'_>) -> Result<EncodedMessage, Status> {
        let outage = status::is_outage(refusal.code);
        if outage && self.config.on_outage == OnOutage::GrpcStatus {
            return Err(refusal.into_status());
        }
        let form = message.http().map_or(Form::Json, Form::for_request);
        let as_error = outage && self.config.on_outage == OnOutage::ErrorResponse;
        Ok(answer::frame(&answer::refused(HttpRefusal::new(&refusal, form), as_error)))
    }
}

impl<T: Tier> UnaryMethod for ExtAuthzService<T> {
    async fn call(&self, headers: &HeaderMap, message: Bytes) -> Result<EncodedMessage, Status> {
        let now = self.surface.now();
        let (message, validity) = match Message::read(&message) {
            Ok(message) => (message, Ok(())),
            Err(Malformed) => (Message::default(), Err(Refusal::invalid(NO_REQUEST))),
        };
        let decision = async {
            validity?;
            self.decide(headers, &message, now).await
        };
        let granted = |grant: Grant| self.granted(&grant.record, &message);
        let response = self.surface.answer(now, decision, granted).await;
        response.or_else(|refusal| self.refused(refusal, &message))
    }

    fn begin(&self) -> Pending<'_> {
        self.surface.outcomes().begin()
    }

    fn refuse(&self, rejection: Rejection) -> Response<Body> {
        self.surface.outcomes().refused(&rejection);
        answer::unread(rejection)
    }
}
