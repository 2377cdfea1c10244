//! `keystead.v1.Authz`: the surface for services that ask for themselves.

use std::{fmt, mem, net::IpAddr, sync::Arc, time::Duration};

use http::HeaderMap;
use prost_types::Timestamp;
use tonic::{
    Request, Status,
    service::{LayerExt, Routes},
};
use tower::util::MapResponseLayer;
use zeroize::Zeroizing;

use super::{
    Admission, needs,
    pb::{
        self, CheckRequest, CheckResponse, ExplainResponse,
        authz_server::{Authz, AuthzServer},
    },
    refused::Early,
    status::Refusal,
    surface::Surface,
};
use crate::{
    check::{Decision, Grant, Needs},
    telemetry::Metrics,
    tier::{Freshness, Tier},
    time::Clock,
};

/// The label of this surface in the metrics.
const SURFACE: &str = "authz";

/// Answers `keystead.v1.Authz`.
#[derive(Debug)]
pub struct AuthzService<T> {
    surface: Surface<T>,
}

impl<T: Tier> AuthzService<T> {
    /// The service behind its transport: a message of at most
    /// `max_message_bytes`, and every refusal with its `google.rpc.ErrorInfo`,
    /// those of the transport too.
    pub fn routes(
        admission: Arc<Admission<T>>,
        metrics: Arc<Metrics>,
        clock: Clock,
        max_message_bytes: usize,
    ) -> Routes {
        let surface = Surface::new(SURFACE, admission, metrics, clock);
        let completing = MapResponseLayer::new(surface.outcomes().completing(Early::into_http));
        let server =
            AuthzServer::new(Self { surface }).max_decoding_message_size(max_message_bytes);
        Routes::new(completing.named_layer(server))
    }

    async fn decide(&self, request: Request<CheckRequest>) -> Result<Decision, Refusal> {
        let patience = patience(request.metadata().as_ref());
        let mut message = request.into_inner();
        let api_key = Zeroizing::new(mem::take(&mut message.api_key));
        let presented = Some(api_key.as_bytes()).filter(|key| !key.is_empty());
        let needs = needs(&message)?;
        Ok(self.surface.admission().check(presented, needs, patience).await?)
    }
}

#[tonic::async_trait]
impl<T: Tier> Authz for AuthzService<T> {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, Status> {
        let answered = self.surface.answer(self.decide(request), answer).await;
        answered.map(tonic::Response::new).map_err(Refusal::into_status)
    }

    async fn explain(
        &self,
        _: Request<CheckRequest>,
    ) -> Result<tonic::Response<ExplainResponse>, Status> {
        Err(Status::unimplemented("Explain is served on the control listener, `listen.control`"))
    }
}

/// Leaves the key out.
impl fmt::Debug for CheckRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { api_key: _, required_scopes, client_ip, audience } = self;
        f.debug_struct("CheckRequest")
            .field("required_scopes", required_scopes)
            .field("client_ip", client_ip)
            .field("audience", audience)
            .finish_non_exhaustive()
    }
}

/// What the request needs, or why it makes no sense.
pub(super) fn needs(message: &CheckRequest) -> Result<Needs<'_>, Refusal> {
    let client_ip = Some(message.client_ip.as_str())
        .filter(|text| !text.is_empty())
        .map(str::parse::<IpAddr>)
        .transpose()
        .map_err(|_| Refusal::invalid("client_ip is not an IPv4 or IPv6 address without a port"))?;
    needs::needs(&message.required_scopes, client_ip, &message.audience)
}

/// How long the caller waits, from `grpc-timeout`: up to eight digits and a
/// unit. What cannot be read is taken as not said.
pub(super) fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// A time as protobuf has it.
pub(super) fn timestamp(time: jiff::Timestamp) -> Timestamp {
    Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

pub(super) fn answer(grant: &Grant) -> CheckResponse {
    let record = &grant.record;
    let rights = &record.rights;
    let metadata = rights.metadata.iter().map(|(name, value)| (name.clone(), value.clone()));
    let freshness = match grant.freshness {
        Freshness::Fresh => pb::Freshness::Fresh,
        Freshness::Revalidating => pb::Freshness::Revalidating,
        Freshness::StaleIfError => pb::Freshness::StaleIfError,
    };
    CheckResponse {
        key_id: record.id.to_string(),
        principal: rights.principal.clone(),
        scopes: rights.scopes.clone(),
        metadata: metadata.collect(),
        expires_at: rights.expires_at.map(timestamp),
        evidence: Some(pb::Evidence {
            freshness: freshness.into(),
            age: prost_types::Duration::try_from(grant.age).ok(),
            revision: record.revision.0,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience_of(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", text.parse().unwrap());
        patience(&headers)
    }

    #[test]
    fn debug_of_a_request_leaves_the_key_out() {
        let request = CheckRequest { api_key: "ks_live_secret".into(), ..CheckRequest::default() };
        assert!(!format!("{request:?}").contains("secret"));
    }

    #[test]
    fn every_unit_of_grpc_timeout_is_read() {
        assert_eq!(patience_of("2H"), Some(Duration::from_hours(2)));
        assert_eq!(patience_of("3M"), Some(Duration::from_mins(3)));
        assert_eq!(patience_of("4S"), Some(Duration::from_secs(4)));
        assert_eq!(patience_of("5m"), Some(Duration::from_millis(5)));
        assert_eq!(patience_of("6u"), Some(Duration::from_micros(6)));
        assert_eq!(patience_of("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(patience(&HeaderMap::new()), None);
    }

    #[test]
    fn a_grpc_timeout_that_cannot_be_read_counts_as_not_said() {
        for bad in ["", "m", "5", "5x", "-5m", "123456789m", "5 m", "\u{e9}"] {
            assert_eq!(patience_of(bad), None, "{bad}");
        }
    }
}
