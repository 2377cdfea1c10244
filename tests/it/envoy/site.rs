//! A service behind Envoy, which asks one Keystead.

use http::{HeaderMap, Request};
use keystead::config::Config;
use serde_json::Value;

use crate::harness::{
    backend::{Backend, Embedded},
    envoy::{Envoy, EnvoyConfig, Version},
    fixture::Fixture,
    http::{Answer, get, send},
    keys::Key,
    upstream::{Received, Upstream},
};

/// Everything that one test needs.
pub(super) struct Site {
    pub(super) fixture: Fixture<Embedded>,
    pub(super) upstream: Upstream,
    pub(super) envoy: Envoy,
}

impl Site {
    pub(super) async fn new(version: Version) -> Self {
        Self::with(version, |_| (), |shown| shown).await
    }

    /// With settings of Keystead, and lines of Envoy's configuration.
    pub(super) async fn with(
        version: Version,
        tune: impl FnOnce(&mut Config),
        change: impl FnOnce(EnvoyConfig) -> EnvoyConfig,
    ) -> Self {
        let fixture = Fixture::with(Embedded::start().await, tune).await;
        let upstream = Upstream::start().await;
        let shown = EnvoyConfig::new(&[fixture.service.grpc], upstream.address).patient();
        let envoy = Envoy::start(version, &change(shown)).await;
        envoy.until_healthy(1).await;
        Self { fixture, upstream, envoy }
    }

    pub(super) async fn send(&self, request: Request<axum::body::Body>) -> Answer {
        send(self.envoy.address, request).await
    }

    pub(super) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(get(path, headers)).await
    }

    /// A GET that presents a key as most do.
    pub(super) async fn present(&self, path: &str, key: &str) -> Answer {
        self.get(path, &[("authorization", &bearer(key))]).await
    }

    /// The one request that has reached the service.
    pub(super) fn only_received(&self) -> Received {
        let mut received = self.upstream.received();
        assert_eq!(received.len(), 1, "{received:?}");
        received.remove(0)
    }

    /// What Envoy has counted, in the order of `ok`, `denied`, `error` and
    /// `failure_mode_allowed`.
    pub(super) async fn counted(&self) -> [u64; 4] {
        let stats = self.envoy.stats().await;
        ["ok", "denied", "error", "failure_mode_allowed"].map(|name| stats.ext_authz(name))
    }
}

pub(super) fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// Asserts that the refusal is complete and in JSON.
pub(super) fn refuses(answer: &Answer, (status, code, reason): (u16, &str, &str)) {
    assert_eq!(answer.status, status, "{answer:?}");
    let Value::Object(told) = answer.json() else { panic!("{answer:?}") };
    assert_eq!(told.keys().collect::<Vec<_>>(), ["error"], "{answer:?}");
    let error = &told["error"];
    assert_eq!((&error["code"], &error["reason"]), (&code.into(), &reason.into()), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    let message = error["message"].as_str().unwrap();
    let honest = "the key was not rejected";
    assert_eq!(message.contains(honest), status >= 500, "{answer:?}");
    assert_eq!(answer.header("retry-after").is_some(), status == 503, "{answer:?}");
    assert_eq!(answer.header("www-authenticate").is_some(), challenges(status, reason));
}

fn challenges(status: u16, reason: &str) -> bool {
    status == 401 || reason == "SCOPE_MISSING"
}

/// The identity that the upstream service receives.
pub(super) fn identity(headers: &HeaderMap) -> [Option<String>; 3] {
    ["x-keystead-key-id", "x-keystead-principal", "x-keystead-scopes"].map(|name| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap().to_owned());
        assert!(values.next().is_none(), "{name} is there twice: {headers:?}");
        value
    })
}

/// The identity of a key of acme.
pub(super) fn of_key(key: &Key, scopes: Option<&str>) -> [Option<String>; 3] {
    [Some(key.id.to_string()), Some("acme".to_owned()), scopes.map(str::to_owned)]
}
