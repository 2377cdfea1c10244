//! `envoy.service.auth.v3.Authorization`: the surface for Envoy and what is built
//! on it.

mod answer;
mod message;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tonic::{
    Request, Response, Status,
    service::{LayerExt, Routes},
};
use tower::util::MapResponseLayer;

use self::message::Asked;
use super::{
    Admission, authz,
    edge::{self, CredentialSources, ExtAuthzConfig, Form, HttpRefusal, OnOutage, Proxied},
    envoy_pb::{
        CheckRequest, CheckResponse,
        authorization_server::{Authorization, AuthorizationServer},
    },
    needs,
    status::{self, Refusal},
    surface::Surface,
};
use crate::{
    check::{Decision, Grant},
    telemetry::Metrics,
    tier::Tier,
    time::Clock,
};

/// The label of this surface in the metrics.
const SURFACE: &str = "ext_authz";

/// The fewest bytes that are read of a message. Envoy tells a path twice, in a
/// field and as the header `:path`, and allows headers of 60 KiB in all
/// (`max_request_headers_kb`): twice that, and as much again for what is around
/// them.
const MIN_MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// Answers `envoy.service.auth.v3.Authorization`.
#[derive(Debug)]
pub struct ExtAuthzService<T> {
    surface: Surface<T>,
    sources: CredentialSources,
    config: ExtAuthzConfig,
    /// Headers that no upstream is to see, whatever is in the request.
    always_removed: Vec<Bytes>,
}

impl<T: Tier> ExtAuthzService<T> {
    /// A service that looks for keys in `sources`.
    pub fn new(
        admission: Arc<Admission<T>>,
        metrics: Arc<Metrics>,
        clock: Clock,
        sources: CredentialSources,
        config: ExtAuthzConfig,
    ) -> Self {
        let surface = Surface::new(SURFACE, admission, metrics, clock);
        let of_keys = config.remove_credential.then(|| sources.headers());
        let always_removed =
            edge::identity_lookalikes().chain(of_keys.into_iter().flatten()).map(Bytes::from);
        let always_removed = always_removed.collect();
        Self { surface, sources, config, always_removed }
    }

    /// Puts it beside other services, behind a transport that answers what it cannot
    /// read as a request that makes no sense. A message of `max_message_bytes` is
    /// read, or of 256 KiB if that is less.
    #[must_use]
    pub fn join(self, routes: Routes, max_message_bytes: usize) -> Routes {
        let completing = MapResponseLayer::new(self.surface.outcomes().completing(answer::unread));
        let limit = max_message_bytes.max(MIN_MAX_MESSAGE_BYTES);
        let server = AuthorizationServer::new(self).max_decoding_message_size(limit);
        routes.add_service(completing.named_layer(server))
    }

    async fn decide(
        &self,
        message: &CheckRequest,
        patience: Option<Duration>,
    ) -> Result<Decision, Refusal> {
        let asked = Asked::of(message).ok_or_else(|| {
            Refusal::invalid("there is no HTTP request in it; ask with Envoy's HTTP filter")
        })?;
        let (scopes, audience) = message::needs(message)?;
        let client_ip =
            edge::client_ip(&asked, self.config.trusted_hops, message::source_ip(message));
        let needs = needs::needs(&scopes, client_ip, audience)?;
        let presented = match self.sources.find(&asked) {
            Ok(presented) => presented,
            Err(twice) => return Ok(Decision::Deny(twice.into())),
        };
        if presented.is_none() && asked.target().is_empty() && self.sources.has_query() {
            return Err(Refusal::invalid(
                "there is no path in it, in whose query a key would be looked for",
            ));
        }
        Ok(self.surface.admission().check(presented.as_deref(), needs, patience).await?)
    }

    fn granted(&self, grant: &Grant, message: &CheckRequest) -> CheckResponse {
        let asked = Asked::of(message).filter(|_| self.config.remove_credential);
        let removal = asked.as_ref().map(|asked| self.sources.removal(asked));
        answer::granted(grant, &self.always_removed, removal.unwrap_or_default())
    }

    fn refused(&self, refusal: Refusal, message: &CheckRequest) -> Result<CheckResponse, Status> {
        let outage = status::is_outage(refusal.code);
        if outage && self.config.on_outage == OnOutage::GrpcStatus {
            return Err(refusal.into_status());
        }
        let form = Asked::of(message).map_or(Form::Json, |asked| Form::for_request(&asked));
        let as_error = outage && self.config.on_outage == OnOutage::ErrorResponse;
        Ok(answer::refused(HttpRefusal::new(&refusal, form), as_error))
    }
}

#[tonic::async_trait]
impl<T: Tier> Authorization for ExtAuthzService<T> {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let patience = authz::patience(request.metadata().as_ref());
        let message = request.into_inner();
        let granted = |grant: &Grant| self.granted(grant, &message);
        let answered = self.surface.answer(self.decide(&message, patience), granted).await;
        let answer = answered.or_else(|refusal| self.refused(refusal, &message))?;
        Ok(Response::new(answer))
    }
}
