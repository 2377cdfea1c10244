//! `keystead.v1.Authz`: the surface for services that call Keystead directly.

mod answer;
mod request;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response};
use tonic::{Status, body::Body};

use self::request::CheckRequestView;
pub(super) use self::{
    answer::{as_message, timestamp},
    request::client_ip,
};
use super::{
    Admission, needs,
    pb::CheckRequest,
    rejection::Rejection,
    status::Refusal,
    surface::{Pending, Surface},
    unary::{EncodedMessage, UnaryMethod, UnaryService},
};
use crate::{
    check::{Decision, Grant},
    telemetry::Metrics,
    tier::Tier,
    time::{Clock, Moment},
};

/// The label of this surface in the metrics.
const SURFACE: &str = "authz";

/// Serves `keystead.v1.Authz/Check`.
#[derive(Debug)]
pub struct AuthzService<T> {
    surface: Surface<T>,
}

impl<T: Tier> AuthzService<T> {
    /// The path of the method.
    pub const PATH: &str = "/keystead.v1.Authz/Check";

    /// Wraps the service in its transport: messages have at most `max_message_bytes`, and every
    /// refusal, those of the transport included, carries its `google.rpc.ErrorInfo`.
    pub fn serve(
        admission: Arc<Admission<T>>,
        metrics: &Arc<Metrics>,
        clock: Clock,
        max_message_bytes: usize,
    ) -> UnaryService<Self> {
        let surface = Surface::new(SURFACE, admission, metrics, clock);
        UnaryService::new(Self { surface }, max_message_bytes)
    }

    async fn decide(
        &self,
        headers: &HeaderMap,
        message: &[u8],
        now: Moment,
    ) -> Result<Decision, Refusal> {
        let request = CheckRequestView::read(message)?;
        let client_ip = client_ip(request.client_ip)?;
        let needs = needs::needs(&request.required_scopes, client_ip, request.audience)?;
        let presented = Some(request.api_key.as_bytes()).filter(|key| !key.is_empty());
        let caller_timeout = || grpc_timeout(headers);
        Ok(self.surface.admission().check(presented, needs, caller_timeout, now).await?)
    }
}

impl<T: Tier> UnaryMethod for AuthzService<T> {
    async fn call(&self, headers: &HeaderMap, message: Bytes) -> Result<EncodedMessage, Status> {
        let now = self.surface.now();
        let decision = self.decide(headers, &message, now);
        let granted = |grant: Grant| EncodedMessage::of(|to| answer::write(&grant, to));
        self.surface.answer(now, decision, granted).await.map_err(Refusal::into_status)
    }

    fn begin(&self) -> Pending<'_> {
        self.surface.outcomes().begin()
    }

    fn refuse(&self, rejection: Rejection) -> Response<Body> {
        self.surface.outcomes().refused(&rejection);
        rejection.into_http()
    }
}

/// Omits the key.
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

/// The caller's time-out from `grpc-timeout`: up to eight digits and a unit. `None` if the header
/// is missing or malformed.
pub(super) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout_of(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", text.parse().unwrap());
        grpc_timeout(&headers)
    }

    #[test]
    fn debug_of_a_request_omits_the_key() {
        let request = CheckRequest { api_key: "ks_live_secret".into(), ..CheckRequest::default() };
        assert!(!format!("{request:?}").contains("secret"));
    }

    #[test]
    fn every_unit_of_grpc_timeout_is_parsed() {
        assert_eq!(timeout_of("2H"), Some(Duration::from_hours(2)));
        assert_eq!(timeout_of("3M"), Some(Duration::from_mins(3)));
        assert_eq!(timeout_of("4S"), Some(Duration::from_secs(4)));
        assert_eq!(timeout_of("5m"), Some(Duration::from_millis(5)));
        assert_eq!(timeout_of("6u"), Some(Duration::from_micros(6)));
        assert_eq!(timeout_of("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(grpc_timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn malformed_grpc_timeout_is_ignored() {
        for bad in ["", "m", "5", "5x", "-5m", "123456789m", "5 m", "\u{e9}"] {
            assert_eq!(timeout_of(bad), None, "{bad}");
        }
    }
}
