//! `keystead.v1.Diagnostics`, on the control listener.

mod message;

use std::{mem, sync::Arc, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    service::{LayerExt, Routes},
};
use tower::util::MapResponseLayer;
use zeroize::Zeroizing;

use super::{
    Admission, authz, needs,
    pb::{
        ExplainRequest, ExplainResponse,
        diagnostics_server::{Diagnostics, DiagnosticsServer},
    },
    proxied,
    rejection::{self, Rejection},
    status::Refusal,
    surface::Outcomes,
};
use crate::{
    check::{Decision, Needs},
    explain::Explainer,
    outage::Unavailable,
    store::Lookups,
    telemetry::Metrics,
    tier::Tier,
    time::Clock,
};

/// The label of this surface in the metrics, which count the outcomes of Explain calls, not the
/// explained decisions.
const SURFACE: &str = "explain";

/// The scope that the key of a caller must have been granted.
const ADMIN_SCOPE: &str = "keystead.admin";

/// Serves the control listener.
#[derive(Debug)]
pub struct Control<T, S> {
    /// Authorizes callers, as it does for any key.
    pub admission: Arc<Admission<T>>,
    /// Explains decisions.
    pub explainer: Explainer<S>,
    /// When cancelled, waiting calls fail with [`Unavailable::Draining`].
    pub cut_off: CancellationToken,
    /// The clock for deadlines.
    pub clock: Clock,
}

/// The control listener as a gRPC service.
struct ControlService<T, S> {
    control: Control<T, S>,
    outcomes: Outcomes,
}

impl<T: Tier, S: Lookups> Control<T, S> {
    /// Wraps the service in its transport, which refuses calls as the data listener does.
    pub(super) fn routes(self, metrics: &Arc<Metrics>, max_message_bytes: usize) -> Routes {
        let outcomes = Outcomes::new(SURFACE, metrics);
        let counted = outcomes.clone();
        let complete = move |rejection: Rejection| {
            counted.refused(&rejection);
            rejection.into_http()
        };
        let completing =
            MapResponseLayer::new(move |response| rejection::complete_with(response, &complete));
        let server = DiagnosticsServer::new(ControlService { control: self, outcomes });
        let server = server.max_decoding_message_size(max_message_bytes);
        Routes::new(completing.named_layer(server))
    }

    /// Authorizes the caller before it validates the request: a caller without the scope learns
    /// nothing, not even whether its request is valid.
    async fn answer(&self, request: Request<ExplainRequest>) -> Result<ExplainResponse, Refusal> {
        let began = self.clock.monotonic();
        let (metadata, _, message) = request.into_parts();
        let caller_timeout = authz::grpc_timeout(metadata.as_ref());
        self.authorize(metadata.as_ref(), caller_timeout).await?;

        let mut message = message.check.ok_or_else(|| Refusal::invalid("`check` is missing"))?;
        let api_key = Zeroizing::new(mem::take(&mut message.api_key));
        let presented = Some(api_key.as_bytes()).filter(|key| !key.is_empty());
        let scopes: Vec<_> = message.required_scopes.iter().map(String::as_str).collect();
        let client_ip = authz::client_ip(&message.client_ip)?;
        let needs = needs::needs(&scopes, client_ip, &message.audience)?;
        let left =
            caller_timeout.map(|caller_timeout| caller_timeout.saturating_sub(began.elapsed()));
        let deadline = self.clock.monotonic() + self.admission.budget(left);
        tokio::select! {
            biased;
            explanation = self.explainer.explain(presented, needs, deadline) => {
                Ok(message::of(&explanation))
            }
            () = self.cut_off.cancelled() => Err(Unavailable::Draining.into()),
        }
    }

    async fn authorize(
        &self,
        headers: &HeaderMap,
        caller_timeout: Option<Duration>,
    ) -> Result<(), Refusal> {
        let needs = Needs { scopes: &[ADMIN_SCOPE], ..Needs::default() };
        let now = self.clock.moment();
        match self.admission.check(bearer(headers), needs, || caller_timeout, now).await? {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(denial) => Err(Refusal::from(&denial)),
        }
    }
}

#[tonic::async_trait]
impl<T: Tier, S: Lookups> Diagnostics for ControlService<T, S> {
    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<tonic::Response<ExplainResponse>, Status> {
        let response = self.outcomes.of(self.control.answer(request)).await;
        response.map(tonic::Response::new).map_err(Refusal::into_status)
    }
}

/// The key in `authorization: Bearer KEY`. Any other scheme counts as no key.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let key = proxied::token(headers.get(AUTHORIZATION)?.as_bytes(), "Bearer")?;
    Some(key).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_of_a_caller_is_taken_from_the_bearer_scheme_only() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(|key| String::from_utf8(key.to_vec()).unwrap())
        };
        for value in ["Bearer ks_live_1", "bearer ks_live_1", "BEARER  ks_live_1 "] {
            assert_eq!(of(value).as_deref(), Some("ks_live_1"), "{value}");
        }
        for value in ["", "Bearer", "Bearer ", "Basic ks_live_1", "ks_live_1", "Bearerks_live_1"] {
            assert_eq!(of(value), None, "{value}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
