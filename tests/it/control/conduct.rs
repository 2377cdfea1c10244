//! What `Explain` does not do, and where it is served.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, future::join_all, stream};
use keystead::{app::Stop, key::Environment, transport::pb::ExplainRequest};
use tonic::{
    Code::{InvalidArgument, Unavailable, Unimplemented},
    transport::Channel,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::{Control, ask, decision, explain_over, memory};
use crate::harness::{
    app::{check_over, presenting},
    backend::{Backend, Embedded, Server, on_both_stores},
    beside, eventually,
    fixture::{Fixture, without_background},
    keys::of_acme,
    keystead::{Keystead, Ran},
    observer::Observer,
    refusal::Refusal,
};

on_both_stores! {
    explaining_changes_nothing,
    explanation_waiting_when_the_drain_ends_is_draining,
}

async fn explaining_changes_nothing(backend: impl Backend) {
    let control = Control::with(backend, without_background).await;
    let keys = control.fixture.keys.create_many(3).await;
    control.fixture.service.check_key(&keys[0]).await.unwrap();
    control.explain(presenting("")).await;
    let admin = control.fixture.service.admin;
    let before = admin.scrape().await;
    for _ in 0..3 {
        for key in &keys {
            control.explain_key(key).await;
        }
        let unknown = control.fixture.keys.draw().key.expose().to_owned();
        assert_eq!(decision(&control.explain(presenting(&unknown)).await).reason, "KEY_UNKNOWN");
    }
    let after = admin.scrape().await;
    let changes = |metric| after.changes_since(&before, metric);
    // The key of the caller is looked up like any other, and nothing else is.
    let fresh = r#"keystead_cache_lookups_total{result="fresh"}"#.to_owned();
    assert_eq!(changes("keystead_cache_lookups_total"), BTreeMap::from([(fresh, 12.0)]));
    let told = r#"keystead_checks_total{code="OK",reason="",surface="explain"}"#.to_owned();
    assert_eq!(changes("keystead_checks_total"), BTreeMap::from([(told, 12.0)]));
    for metric in [
        "keystead_cache_entries",
        "keystead_store_queries_total",
        "keystead_store_lookups_total",
        "keystead_check_duration_seconds_count",
        "keystead_breaker_transitions_total",
        "keystead_masked_failures_total",
    ] {
        assert_eq!(changes(metric), BTreeMap::new(), "{metric}");
    }
    for state in ["store", "control"] {
        let closed = format!(r#"keystead_breaker_state{{state="closed",tier="{state}"}}"#);
        assert!((after.get(&closed) - 1.0).abs() < 0.5);
    }
}

async fn explanation_waiting_when_the_drain_ends_is_draining(backend: impl Backend) {
    let mut control = Control::with(backend, |config| {
        without_background(config);
        config.drain.timeout = Duration::from_millis(600);
    })
    .await;
    let key = control.fixture.keys.create(of_acme()).await;
    control.explain(presenting("")).await;
    control.fixture.backend.hang().await;
    let (channel, admin) = (control.channel.clone(), control.admin.text.clone());
    let request = presenting(&key.text);
    let waiting = beside(async move { explain_over(channel, Some(&admin), request).await });
    // The key of the caller has been looked up by then.
    control
        .fixture
        .service
        .admin
        .until_metric(r#"keystead_cache_lookups_total{result="fresh"}"#, 1.0)
        .await;
    control.fixture.service.stop(Stop::AtOnce);
    let refusal = Refusal::of(&waiting.await.unwrap().unwrap_err());
    refusal.is_honest();
    assert_eq!((refusal.code, refusal.reason.as_str()), (Unavailable, "DRAINING"));
    control.fixture.service.ended().await;
}

#[tokio::test]
async fn each_method_is_served_on_one_listener_alone() {
    let control = &Control::new(Embedded::start().await).await;
    let (data, channel) = (control.fixture.service.channel(), control.channel.clone());
    let admin = Some(control.admin.text.as_str());
    let request = presenting(&control.admin.text);
    let on_data = explain_over(data.clone(), admin, request.clone()).await.unwrap_err();
    let on_control = check_over(channel.clone(), request).await.unwrap_err();
    for status in [on_data, on_control] {
        let refusal = Refusal::of(&status);
        refusal.is_honest();
        assert_eq!((refusal.code, refusal.reason.as_str()), (Unimplemented, "REQUEST_INVALID"));
    }
    let [check, explain] = ["keystead.v1.Authz.Check", "keystead.v1.Diagnostics.Explain"];
    assert!(is_described(&data, check).await && !is_described(&data, explain).await);
    assert!(is_described(&channel, explain).await);
}

async fn is_described(channel: &Channel, symbol: &str) -> bool {
    let message_request = Some(MessageRequest::FileContainingSymbol(symbol.to_owned()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let mut client = ServerReflectionClient::new(channel.clone());
    match client.server_reflection_info(stream::iter([request])).await {
        Ok(answers) => {
            let answer = answers.into_inner().next().await.unwrap();
            answer.is_ok_and(|answer| {
                matches!(answer.message_response, Some(MessageResponse::FileDescriptorResponse(_)))
            })
        }
        Err(_) => false,
    }
}

#[tokio::test]
async fn malformed_request_is_invalid_for_authorized_callers() {
    let control = Control::new(Embedded::start().await).await;
    let nothing = ExplainRequest { check: None };
    let asked = ask(control.channel.clone(), Some(&control.admin.text), nothing).await;
    let refusal = Refusal::of(&asked.unwrap_err());
    assert_eq!((refusal.code, refusal.message.as_str()), (InvalidArgument, "`check` is missing"));
    let mut request = presenting("");
    request.client_ip = "here".to_owned();
    let asked = control.explain_as(Some(&control.admin.text), request.clone()).await;
    let refusal = Refusal::of(&asked.unwrap_err());
    assert_eq!((refusal.code, refusal.reason.as_str()), (InvalidArgument, "REQUEST_INVALID"));
    let asked = control.explain_as(None, request).await;
    assert_eq!(Refusal::of(&asked.unwrap_err()).reason, "CREDENTIAL_MISSING");
}

#[tokio::test]
async fn there_is_no_control_listener_unless_it_is_configured() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    assert_eq!(service.control, None);
    let key = keys.create(of_acme()).await;
    let request = presenting(&key.text);
    let status = explain_over(service.channel(), None, request).await.unwrap_err();
    assert_eq!(status.code(), Unimplemented);
    let scrape = service.admin.scrape().await;
    assert!(!scrape.names().any(|name| name.contains("explain") || name.contains("control")));
}

#[tokio::test]
async fn explanations_take_two_connections_however_many_wait() {
    let mut control = Control::with(Server::start().await, without_background).await;
    let key = control.fixture.keys.create(of_acme()).await;
    control.fixture.service.check_key(&key).await.unwrap();
    control.explain(presenting("")).await;
    let before = control.fixture.backend.postgres.backends().await.len();
    control.fixture.backend.hang().await;
    let observer = Observer::of(&control.fixture.backend.postgres);
    let explanations = (0..20).map(|_| {
        let (channel, admin) = (control.channel.clone(), control.admin.text.clone());
        let request = presenting(&key.text);
        beside(async move { explain_over(channel, Some(&admin), request).await })
    });
    let explanations: Vec<_> = explanations.collect();
    eventually("two of them are at the server", async || {
        (observer.most().lookups == 2).then_some(())
    })
    .await;
    control.fixture.service.check_key(&key).await.expect("checks go on");
    control.fixture.backend.go_on().await;
    for explained in join_all(explanations).await {
        let explained = explained.unwrap().unwrap();
        assert_eq!(decision(&explained).code, "OK");
        assert!(memory(&explained).age.is_some());
    }
    let most = observer.most();
    assert_eq!((most.lookups, most.connections), (2, before + 2), "{most:?}");
}

#[tokio::test]
async fn grpcurl_explains_by_what_reflection_describes() {
    let folder = Keystead::new().configured_by(
        "keystead.toml",
        "[listen]\ncontrol = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n",
    );
    let create = ["keys", "create", "--json", "--principal", "ops", "--scope", "keystead.admin"];
    let made = folder.run(create).await.json();
    let key = made["key"].as_str().unwrap();
    assert_eq!(key.len(), format!("ks_{}_", Environment::Live).len() + 40);
    let server = folder.serve(&[]).await;
    let log = server.log();
    let serving = log.lines().find(|line| line.contains("serving")).unwrap();
    let serving: serde_json::Value = serde_json::from_str(serving).unwrap();
    let address = serving["control"].as_str().unwrap();

    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv/bin/grpcurl");
    assert!(std::path::Path::new(program).exists(), "make it with `scripts/test install`");
    let mut command = tokio::process::Command::new(program);
    command.args(["-plaintext", "-expand-headers", "-H", "authorization: Bearer ${ADMIN_KEY}"]);
    command.args(["-d", "@"]).env("ADMIN_KEY", key);
    command.args([address, "keystead.v1.Diagnostics/Explain"]);
    let asked = serde_json::json!({"check": {"api_key": key, "required_scopes": ["read"]}});
    let explained = Ran::of(command, asked.to_string()).await.json();
    assert_eq!(explained["decision"]["reason"], "SCOPE_MISSING");
    assert_eq!(explained["decision"]["rule"], "not granted is `read`; granted is `keystead.admin`");
    assert_eq!(explained["credential"]["kind"], "CREDENTIAL_KIND_OURS");
    assert_eq!(explained["memory"]["state"], "MEMORY_STATE_FRESH");
    assert_eq!(explained["store"]["agreement"], "AGREEMENT_SAME");
    assert!(!explained.to_string().contains(key) && !server.log().contains(key));
    assert!(server.stop().await.success());
}
