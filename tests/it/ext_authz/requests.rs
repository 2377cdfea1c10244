//! Requests that make no sense.

use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse,
    attribute_context::{HttpRequest, Request},
};
use prost::Message;
use tonic::Code::{InvalidArgument, Unauthenticated, Unimplemented};

use super::{Ask, Verdict, counted_once, refused};
use crate::harness::{
    backend::{Backend, Embedded},
    ext_authz::{CHECK, call},
    fixture::Fixture,
    keys::of_acme,
    refusal::Refusal,
    wire::{Wire, framed},
};

const ROW: (tonic::Code, &str) = (InvalidArgument, "REQUEST_INVALID");

#[tokio::test]
async fn route_that_needs_nonsense_is_invalid_whatever_the_key() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    let long = "x".repeat(257);
    for (name, value) in [
        ("keystead.scopes", long.as_str()),
        ("keystead.scopes", &"read ".repeat(65)),
        ("keystead.audience", &long),
        // A slip, which would otherwise need nothing.
        ("keystead.scope", "read"),
        ("keystead.", ""),
        ("Keystead.scopes", "read"),
        ("keystead_scopes", "read"),
        ("keystead", "read"),
        ("keystead.scopes", ""),
        ("keystead.scopes", " \t"),
        ("keystead.scopes", "read,write"),
        ("keystead.audience", ""),
    ] {
        for ask in [Ask::bearer(&key.text), Ask::new()] {
            let told = refused(service, &ask.extension(name, value), ROW).await;
            assert!(!told.as_error, "{told:?}");
            told.is_json();
        }
    }
    Ask::bearer(&key.text).extension("tier", "keystead.scopes").allowed(service.channel()).await;
}

#[tokio::test]
async fn message_without_an_http_request_is_invalid_and_one_without_headers_presents_nothing() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    let request = Some(Request::default());
    let attributes = AttributeContext { request, ..AttributeContext::default() };
    for message in [
        CheckRequest::default(),
        CheckRequest { attributes: Some(AttributeContext::default()) },
        CheckRequest { attributes: Some(attributes.clone()) },
    ] {
        let before = service.admin.scrape().await;
        let answer: CheckResponse = call(service.channel(), message).await.unwrap();
        counted_once(&before, &service.admin.scrape().await, ROW);
        assert_eq!(answer.status.unwrap().code, InvalidArgument as i32);
    }
    let mut empty = attributes;
    empty.request.as_mut().unwrap().http = Some(HttpRequest::default());
    let message = CheckRequest { attributes: Some(empty) };
    let answer: CheckResponse = call(service.channel(), message).await.unwrap();
    assert_eq!(answer.status.unwrap().code, Unauthenticated as i32);
}

#[tokio::test]
async fn request_as_large_as_envoy_allows_is_read_and_a_larger_one_is_refused_as_such() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    Ask::bearer(&key.text).header("x", "x".repeat(60_000)).allowed(service.channel()).await;
    for kib in [40, 59] {
        // Told twice, which is more than other messages may have.
        let path = format!("/{}", "x".repeat(kib * 1024));
        Ask::bearer(&key.text).path(&path).allowed(service.channel()).await;
        refused(service, &Ask::new().path(path), (Unauthenticated, "CREDENTIAL_MISSING")).await;
    }
    for ask in [Ask::bearer(&key.text), Ask::new().header("accept", "text/plain")] {
        let told = refused(service, &ask.path("x".repeat(128 * 1024)), ROW).await;
        assert!(!told.as_error, "{told:?}");
        assert_eq!(told.http, 431);
        told.is_json();
    }
}

#[tokio::test]
async fn bytes_that_are_no_request_are_answered_as_a_refusal_and_never_fail_the_call() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    for body in [
        framed(false, &[0x0a, 9, b'x']),
        framed(false, &[0xff; 32]),
        framed(true, b"x"),
        Vec::new(),
    ] {
        let before = service.admin.scrape().await;
        let mut wire = Wire::connect(service.grpc).await;
        let answer = wire.send(CHECK, &[], body.into()).await.unwrap();
        counted_once(&before, &service.admin.scrape().await, ROW);
        let verdict = Verdict::of(CheckResponse::decode(answer.message()).unwrap());
        let Verdict::Refused(told) = verdict else { panic!("{verdict:?}") };
        assert!(!told.as_error, "{told:?}");
        told.is_row(ROW);
        assert_eq!(told.http, 400);
        told.is_json();
    }
}

#[tokio::test]
async fn method_that_is_not_there_is_refused_by_the_transport_and_counted_here() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    let row = (Unimplemented, "REQUEST_INVALID");
    let before = service.admin.scrape().await;
    let mut wire = Wire::connect(service.grpc).await;
    let path = CHECK.replace("Check", "Guess");
    let answer = wire.send(&path, &[], framed(false, b"").into()).await.unwrap();
    counted_once(&before, &service.admin.scrape().await, row);
    let refusal = Refusal::of(&answer.status());
    assert_eq!((refusal.code, refusal.reason.as_str()), row);
}

#[tokio::test]
async fn request_without_a_path_is_invalid_where_its_query_is_a_key_source() {
    let fixture = Fixture::with(Embedded::start().await, |config| {
        let sources = ["authorization:Bearer", "query:key"].map(str::to_owned);
        config.credential.sources = sources.to_vec().try_into().unwrap();
    })
    .await;
    let key = fixture.keys.create(of_acme()).await;
    refused(&fixture.service, &Ask::new().path(""), ROW).await.is_json();
    Ask::bearer(&key.text).path("").allowed(fixture.service.channel()).await;
    let row = (Unauthenticated, "CREDENTIAL_MISSING");
    refused(&fixture.service, &Ask::new().path("/"), row).await;
}

#[tokio::test]
async fn durations_are_measured_under_the_name_of_the_surface() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    Ask::bearer(&key.text).allowed(service.channel()).await;
    refused(service, &Ask::new(), (Unauthenticated, "CREDENTIAL_MISSING")).await;
    let series = r#"keystead_check_duration_seconds_count{surface="ext_authz"}"#;
    assert_eq!(service.admin.metric(series).await.to_bits(), 2_f64.to_bits());
}

#[tokio::test]
async fn uses_are_noted_as_by_any_other_check() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    Ask::bearer(&key.text).allowed(service.channel()).await;
    crate::harness::eventually("its use is stored", async || {
        keys.record(&key).await.last_used_at.map(|_| ())
    })
    .await;
}
