//! `envoy.service.auth.v3.Authorization`: the surface for Envoy and what is built
//! on it.

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

/// The fewest bytes that are read of a message. Envoy tells a path twice, in a
/// field and as the header `:path`, and allows headers of 60 KiB in all
/// (`max_request_headers_kb`): twice that, and as much again for what is around
/// them.
const MIN_MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// What is told of bytes that are no message.
const NO_REQUEST: &str = "the message is no `envoy.service.auth.v3.CheckRequest`";

/// Answers `envoy.service.auth.v3.Authorization`.
#[derive(Debug)]
pub struct ExtAuthzService<T> {
    surface: Surface<T>,
    sources: CredentialSources,
    config: ExtAuthzConfig,
    /// What every grant is answered.
    for_all: Box<[u8]>,
}

impl<T: Tier> ExtAuthzService<T> {
    /// The path of the method.
    pub const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

    /// A service that looks for keys in `sources`.
    pub fn new(
        admission: Arc<Admission<T>>,
        metrics: &Arc<Metrics>,
        clock: Clock,
        sources: CredentialSources,
        config: ExtAuthzConfig,
    ) -> Self {
        let surface = Surface::new(SURFACE, admission, metrics, clock);
        let of_keys = config.remove_credential.then(|| sources.headers());
        let never_passed_on = identity::all_lookalikes().chain(of_keys.into_iter().flatten());
        let for_all = grant::for_all(never_passed_on);
        Self { surface, sources, config, for_all }
    }

    /// The service behind its transport, which answers what it cannot read as a
    /// request that makes no sense. A message of `max_message_bytes` is read, or of
    /// 256 KiB if that is less.
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
        let asked = message.asked().ok_or_else(|| {
            Refusal::invalid("there is no HTTP request in it; ask with Envoy's HTTP filter")
        })?;
        let (scopes, audience) = message.needs()?;
        let client_ip = proxied::client_ip(asked, self.config.trusted_hops, message.source_ip());
        let scopes = needs::scopes(scopes)?;
        let needs = needs::needs(&scopes, client_ip, audience)?;
        let presented = match self.sources.find(asked) {
            Ok(presented) => presented,
            Err(twice) => return Ok(Decision::Deny(twice.into())),
        };
        if presented.is_none() && asked.target().is_empty() && self.sources.has_query() {
            return Err(Refusal::invalid(
                "there is no path in it, in whose query a key would be looked for",
            ));
        }
        if presented.is_none() {
            return Ok(Decision::Deny(self.sources.missing(asked)));
        }
        let patience = || authz::patience(headers);
        Ok(self.surface.admission().check(presented.as_deref(), needs, patience, now).await?)
    }

    fn granted(&self, key: &CompactKey, message: &Message<'_>) -> EncodedMessage {
        let asked = message.asked().filter(|_| self.config.remove_credential);
        let removed = asked.map(|asked| grant::for_one(self.sources.removal(asked)));
        let parts = [&*self.for_all, &removed.unwrap_or_default()];
        EncodedMessage::of(|to| grant::write(key, parts, to))
    }

    fn refused(&self, refusal: Refusal, message: &Message<'_>) -> Result<EncodedMessage, Status> {
        let outage = status::is_outage(refusal.code);
        if outage && self.config.on_outage == OnOutage::GrpcStatus {
            return Err(refusal.into_status());
        }
        let form = message.asked().map_or(Form::Json, Form::for_request);
        let as_error = outage && self.config.on_outage == OnOutage::ErrorResponse;
        Ok(answer::frame(&answer::refused(HttpRefusal::new(&refusal, form), as_error)))
    }
}

impl<T: Tier> UnaryMethod for ExtAuthzService<T> {
    async fn call(&self, headers: &HeaderMap, message: Bytes) -> Result<EncodedMessage, Status> {
        let now = self.surface.now();
        let (message, sense) = match Message::read(&message) {
            Ok(message) => (message, Ok(())),
            Err(Malformed) => (Message::default(), Err(Refusal::invalid(NO_REQUEST))),
        };
        let decision = async {
            sense?;
            self.decide(headers, &message, now).await
        };
        let granted = |grant: Grant| self.granted(&grant.record, &message);
        let answered = self.surface.answer(now, decision, granted).await;
        answered.or_else(|refusal| self.refused(refusal, &message))
    }

    fn begin(&self) -> Pending<'_> {
        self.surface.outcomes().begin()
    }

    fn refuse(&self, rejection: Rejection) -> Response<Body> {
        self.surface.outcomes().refused(&rejection);
        answer::unread(rejection)
    }
}
