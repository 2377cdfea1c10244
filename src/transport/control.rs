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

/// The label of this surface in the metrics: what callers of Explain were told,
/// not what was explained to them.
const SURFACE: &str = "explain";

/// The scope that the key of a caller must have been granted.
const ADMIN_SCOPE: &str = "keystead.admin";

/// Answers what the control listener serves.
#[derive(Debug)]
pub struct Control<T, S> {
    /// Decides about the keys of callers, as about any other.
    pub admission: Arc<Admission<T>>,
    /// Explains.
    pub explainer: Explainer<S>,
    /// When it is cancelled, whatever still waits is told that the instance is
    /// draining.
    pub cut_off: CancellationToken,
    /// For deadlines.
    pub clock: Clock,
}

/// The control listener as a gRPC service.
struct ControlService<T, S> {
    control: Control<T, S>,
    outcomes: Outcomes,
}

impl<T: Tier, S: Lookups> Control<T, S> {
    /// The service behind its transport, which refuses as that of the data
    /// listener does.
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

    /// First who asks, then what is asked: a caller without the right learns
    /// nothing, not even whether its request makes sense.
    async fn answer(&self, request: Request<ExplainRequest>) -> Result<ExplainResponse, Refusal> {
        let began = self.clock.monotonic();
        let (metadata, _, message) = request.into_parts();
        let patience = authz::patience(metadata.as_ref());
        self.authorize(metadata.as_ref(), patience).await?;

        let mut message = message.check.ok_or_else(|| Refusal::invalid("`check` is missing"))?;
        let api_key = Zeroizing::new(mem::take(&mut message.api_key));
        let presented = Some(api_key.as_bytes()).filter(|key| !key.is_empty());
        let scopes: Vec<_> = message.required_scopes.iter().map(String::as_str).collect();
        let client_ip = authz::client_ip(&message.client_ip)?;
        let needs = needs::needs(&scopes, client_ip, &message.audience)?;
        let left = patience.map(|patience| patience.saturating_sub(began.elapsed()));
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
        patience: Option<Duration>,
    ) -> Result<(), Refusal> {
        let needs = Needs { scopes: &[ADMIN_SCOPE], ..Needs::default() };
        let now = self.clock.moment();
        match self.admission.check(bearer(headers), needs, || patience, now).await? {
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
        let answered = self.outcomes.of(self.control.answer(request)).await;
        answered.map(tonic::Response::new).map_err(Refusal::into_status)
    }
}

/// The key in `authorization: Bearer KEY`. Another scheme presents no key.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let key = proxied::token(headers.get(AUTHORIZATION)?.as_bytes(), "Bearer")?;
    Some(key).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_caller_is_read_from_the_bearer_scheme_alone() {
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
