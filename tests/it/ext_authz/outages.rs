//! Outages are reported as outages, in the configured form.

use std::time::{Duration, Instant};

use keystead::{app::Stop, config::Config, transport::OnOutage};
use tonic::Code::{self, Unavailable};

use super::{Ask, Verdict, counted_once, refused};
use crate::harness::{
    backend::{Backend, Embedded},
    beside,
    ext_authz::{CHECK, OlderResponse, call},
    fixture::{Fixture, without_background},
    keys::of_acme,
    refusal::Refusal,
    wire::{Wire, grpc_timeout},
};

async fn fixture(on_outage: OnOutage, tune: impl FnOnce(&mut Config)) -> Fixture<Embedded> {
    let fixture = Fixture::with(Embedded::start().await, |config| {
        config.ext_authz.on_outage = on_outage;
        tune(config);
    });
    fixture.await
}

const ROW: (Code, &str) = (Unavailable, "STORE_UNREACHABLE");

#[tokio::test]
async fn outage_as_an_error_is_a_503_for_newer_and_older_envoys() {
    let mut fixture = fixture(OnOutage::default(), |_| ()).await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.vanish().await;
    let ask = Ask::bearer(&key.text);
    let told = refused(&fixture.service, &ask, ROW).await;
    assert!(told.as_error, "{told:?}");
    told.is_json();
    assert!(told.body.contains("the key was not rejected"), "{told:?}");

    let older: OlderResponse = call(fixture.service.channel(), ask.message()).await.unwrap();
    assert_eq!(older.status.unwrap().code, Unavailable as i32);
    assert_eq!(older.ok_response, None);
    let denied = older.denied_response.unwrap();
    assert_eq!(denied.status.unwrap().code, 503);
    assert!(denied.body.contains("the key was not rejected"), "{denied:?}");
    assert!(denied.headers.iter().any(|it| it.header.as_ref().unwrap().key == "retry-after"));
}

#[tokio::test]
async fn outage_as_a_refusal_is_a_503_that_never_lets_a_request_through() {
    let mut fixture = fixture(OnOutage::DeniedResponse, |_| ()).await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.vanish().await;
    let told = refused(&fixture.service, &Ask::bearer(&key.text), ROW).await;
    assert!(!told.as_error, "{told:?}");
    told.is_json();
}

#[tokio::test]
async fn outage_as_a_failed_call_has_its_details_and_a_denial_is_none() {
    let mut fixture = fixture(OnOutage::GrpcStatus, |_| ()).await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.vanish().await;
    let before = fixture.service.admin.scrape().await;
    let status = Ask::bearer(&key.text).send(fixture.service.channel()).await.unwrap_err();
    counted_once(&before, &fixture.service.admin.scrape().await, ROW);
    let refusal = Refusal::of(&status);
    refusal.is_honest();
    assert_eq!((refusal.code, refusal.reason.as_str()), ROW);
    assert_eq!(refusal.facts["cause"], "unreachable");

    let denied = (Code::Unauthenticated, "CREDENTIAL_MISSING");
    assert!(!refused(&fixture.service, &Ask::new(), denied).await.as_error);
}

#[tokio::test]
async fn grpc_client_of_envoy_sees_an_outage_as_keystead_reports_it() {
    let mut fixture = fixture(OnOutage::default(), |_| ()).await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.vanish().await;
    let ask = Ask::bearer(&key.text).header("content-type", "application/grpc");
    let told = refused(&fixture.service, &ask, ROW).await.as_grpc();
    told.is_honest();
    assert_eq!((told.code, told.reason.as_str()), ROW);
}

#[tokio::test]
async fn check_is_cancelled_when_envoy_cancels_it() {
    // By itself it would be given up after half a minute.
    let mut fixture = fixture(OnOutage::GrpcStatus, without_background).await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.hang().await;
    let mut wire = Wire::connect(fixture.service.grpc).await;
    let patience = grpc_timeout(Duration::from_millis(300));
    let headers = [("grpc-timeout", patience.as_str())];
    let began = Instant::now();
    let answer = wire.call(CHECK, &headers, &Ask::bearer(&key.text).message()).await.unwrap();
    assert!(began.elapsed() < fixture.config.check.timeout / 2, "{:?}", began.elapsed());
    assert_eq!(Refusal::of(&answer.status()).code, Unavailable);
}

#[tokio::test]
async fn check_waiting_when_the_drain_ends_is_draining() {
    let mut fixture = fixture(OnOutage::default(), |config| {
        without_background(config);
        config.drain.delay = Duration::from_millis(100);
        config.drain.timeout = Duration::from_millis(600);
    })
    .await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.hang().await;
    let channel = fixture.service.channel();
    let waiting = beside(async move { Ask::bearer(&key.text).send(channel).await });
    fixture.service.admin.until_metric("keystead_store_in_flight", 1.0).await;
    fixture.service.stop(Stop::AfterDelay);
    let verdict = waiting.await.unwrap().unwrap();
    let Verdict::Refused(told) = verdict else { panic!("{verdict:?}") };
    told.is_row((Unavailable, "DRAINING"));
    fixture.service.ended().await;
}
