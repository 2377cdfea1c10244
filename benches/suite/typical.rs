//! A typical key, and what is asked and answered about it.

use std::{error::Error, time::Duration};

use jiff::Timestamp;
use keystead::{
    key::{KeyId, Rights},
    time::Clock,
    transport::pb::{CheckRequest, CheckResponse, Evidence, Freshness},
};

/// What a typical request needs; a typical key has it among others.
const SCOPE: &str = "orders:read";

/// What stands in the captured request in the place of a key, as long as one.
pub(crate) const PLACEHOLDER: &str = "ks_live_0000000000000000000000000000000000000000";

/// A `CheckRequest` as Envoy 1.40.0 sent it; `benches/data/README.md` says how it
/// was captured.
const CAPTURED: &[u8] = include_bytes!("../data/envoy-1.40.0-check.bin");

/// Three scopes, two pieces of metadata, 90 days.
pub(crate) fn rights() -> Rights {
    Rights {
        principal: "customer-4711".to_owned(),
        name: "backend of the web shop".to_owned(),
        scopes: [SCOPE, "orders:write", "invoices:read"].map(str::to_owned).into(),
        metadata: [("plan", "business"), ("region", "eu-west-1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        expires_at: Some(Clock::System.wall() + Duration::from_hours(24 * 90)),
        ..Rights::default()
    }
}

/// With one scope that is needed.
pub(crate) fn request(key: &str) -> CheckRequest {
    CheckRequest {
        api_key: key.to_owned(),
        required_scopes: vec![SCOPE.to_owned()],
        ..CheckRequest::default()
    }
}

/// What Keystead would answer.
pub(crate) fn answer() -> Result<CheckResponse, Box<dyn Error + Send + Sync>> {
    let rights = rights();
    let seconds = rights.expires_at.map(Timestamp::as_second);
    Ok(CheckResponse {
        key_id: KeyId::generate()?.to_string(),
        principal: rights.principal,
        scopes: rights.scopes,
        metadata: rights.metadata.into_iter().collect(),
        expires_at: seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
        evidence: Some(Evidence {
            freshness: Freshness::Fresh.into(),
            age: prost_types::Duration::try_from(Duration::from_millis(1500)).ok(),
            revision: 4711,
        }),
    })
}

/// The request of a real Envoy with this key, which is as long as any of
/// Keystead; it needs the same scope.
pub(crate) fn envoy_request(key: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let holder = PLACEHOLDER.as_bytes();
    if key.len() != holder.len() {
        return Err("the key is not as long as the one that was captured".into());
    }
    let mut request = CAPTURED.to_vec();
    let places: Vec<_> =
        (0..request.len()).filter(|&at| request[at..].starts_with(holder)).collect();
    let [at] = places[..] else { return Err("the captured request must have one key".into()) };
    request[at..at + key.len()].copy_from_slice(key.as_bytes());
    Ok(request)
}

/// A key of the right form with a wrong tag.
pub(crate) fn forged(key: &str) -> String {
    let (rest, last) = key.split_at(key.len() - 1);
    format!("{rest}{}", if last == "0" { "1" } else { "0" })
}
