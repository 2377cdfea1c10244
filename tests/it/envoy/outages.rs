//! An outage in each form in which Envoy can receive it.

use std::{num::NonZeroUsize, time::Duration};

use keystead::{
    app::Stop,
    config::Config,
    transport::OnOutage::{self, DeniedResponse, ErrorResponse, GrpcStatus},
};

use super::site::{Site, bearer, refuses};
use crate::harness::{
    app::{check_over, presenting},
    backend::Backend,
    beside,
    envoy::{Version, on_both_envoys},
    fixture::without_background,
    http::{Answer, get, send},
    keys::of_acme,
};

on_both_envoys! {
    outage_sent_as_an_error_is_a_503,
    outage_sent_as_a_denial_is_a_503_and_never_lets_a_request_through,
    outage_sent_as_a_failed_call_is_the_status_configured_in_envoy,
    outage_lets_requests_through_where_envoy_fails_open_and_understands_it,
    reason_of_an_outage_reaches_the_client,
    saturated_store_is_unavailable_with_its_cause,
    replica_that_is_not_serving_gets_checks_where_there_is_no_other,
    instance_that_stops_says_that_it_drains,
}

const STORE_DOWN: (u16, &str, &str) = (503, "UNAVAILABLE", "STORE_UNREACHABLE");

/// How many seconds the shortest and the longest jittered hint are, rounded up.
const HINTS: [&str; 2] = ["1", "2"];

fn telling(on_outage: OnOutage) -> impl FnOnce(&mut Config) {
    move |config| config.ext_authz.on_outage = on_outage
}

/// One request while the store is down, and what Envoy counts.
async fn during_an_outage(version: Version, told: OnOutage, open: bool) -> (Answer, [u64; 4]) {
    let mut site = Site::with(version, telling(told), |shown| {
        shown.with("failure_mode_allow: false", &format!("failure_mode_allow: {open}"))
    })
    .await;
    let key = site.fixture.keys.create(of_acme()).await;
    site.fixture.backend.vanish().await;
    let answer = site.present("/", &key.text).await;
    let reached = site.upstream.received();
    assert_eq!(reached.len(), usize::from(answer.status == 200));
    if let Some(request) = reached.first() {
        assert_eq!(super::site::identity(&request.headers), [None, None, None]);
    }
    (answer, site.counted().await)
}

fn is_honest(answer: &Answer) {
    refuses(answer, STORE_DOWN);
    assert!(HINTS.contains(&answer.header("retry-after").unwrap()), "{answer:?}");
}

/// One counts it as an error, the other as a denial.
async fn outage_sent_as_an_error_is_a_503(version: Version) {
    let (answer, counted) = during_an_outage(version, ErrorResponse, false).await;
    is_honest(&answer);
    let expected = match version {
        Version::V1_40 => [0, 0, 1, 0],
        Version::V1_36 => [0, 1, 0, 0],
    };
    assert_eq!(counted, expected);
}

async fn outage_sent_as_a_denial_is_a_503_and_never_lets_a_request_through(version: Version) {
    for open in [false, true] {
        let (answer, counted) = during_an_outage(version, DeniedResponse, open).await;
        is_honest(&answer);
        assert_eq!(counted, [0, 1, 0, 0]);
    }
}

async fn outage_sent_as_a_failed_call_is_the_status_configured_in_envoy(version: Version) {
    let (answer, counted) = during_an_outage(version, GrpcStatus, false).await;
    assert_eq!((answer.status, answer.body.as_str()), (503, ""), "{answer:?}");
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(counted, [0, 0, 1, 0]);
    let (answer, counted) = during_an_outage(version, GrpcStatus, true).await;
    assert_eq!((answer.status, counted), (200, [0, 0, 1, 1]));
}

async fn outage_lets_requests_through_where_envoy_fails_open_and_understands_it(version: Version) {
    let (answer, counted) = during_an_outage(version, ErrorResponse, true).await;
    match version {
        Version::V1_40 => assert_eq!((answer.status, counted), (200, [0, 0, 1, 1])),
        Version::V1_36 => {
            is_honest(&answer);
            assert_eq!(counted, [0, 1, 0, 0]);
        }
    }
}

async fn reason_of_an_outage_reaches_the_client(version: Version) {
    let mut site = Site::with(
        version,
        |config| {
            without_background(config);
            config.check.max_waiting = NonZeroUsize::MIN;
            config.store.guard.max_in_flight = NonZeroUsize::MIN;
            config.store.guard.query_timeout = Duration::from_millis(800);
        },
        |shown| shown,
    )
    .await;
    let keys = site.fixture.keys.create_many(3).await;
    assert_eq!(site.present("/", &keys[2].text).await.status, 200);
    site.fixture.backend.hang().await;
    let address = site.envoy.address;
    let waiting = bearer(&keys[0].text);
    let waiting =
        beside(async move { send(address, get("/", &[("authorization", &waiting)])).await });
    site.fixture.service.admin.until_metric("keystead_store_in_flight", 1.0).await;
    let refused = site.present("/", &keys[1].text).await;
    refuses(&refused, (503, "UNAVAILABLE", "OVERLOADED"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    refuses(&waiting.await.unwrap(), (503, "UNAVAILABLE", "STORE_TIMEOUT"));
    assert_eq!(site.present("/", &keys[2].text).await.status, 200, "it is in memory");
}

async fn saturated_store_is_unavailable_with_its_cause(version: Version) {
    let mut site = Site::with(
        version,
        |config| {
            without_background(config);
            config.check.timeout = Duration::from_millis(300);
            config.store.guard.max_in_flight = NonZeroUsize::MIN;
        },
        |shown| shown,
    )
    .await;
    let keys = site.fixture.keys.create_many(2).await;
    site.fixture.backend.hang().await;
    // The first keeps its permit.
    for (key, reason) in keys.iter().zip(["STORE_TIMEOUT", "STORE_SATURATED"]) {
        refuses(&site.present("/", &key.text).await, (503, "UNAVAILABLE", reason));
    }
}

/// One that is about to stop, or cold, still knows some keys.
async fn replica_that_is_not_serving_gets_checks_where_there_is_no_other(version: Version) {
    let long = |config: &mut Config| {
        config.drain.delay = Duration::from_mins(1);
        config.drain.timeout = Duration::from_mins(2);
    };
    let mut site = Site::with(version, long, |shown| shown).await;
    let key = site.fixture.keys.create(of_acme()).await;
    site.fixture.service.stop(Stop::AfterDelay);
    site.envoy.until_healthy(0).await;
    assert_eq!(site.present("/", &key.text).await.status, 200);
}

/// Health keeps new requests away; one that still waits at the end gets the reason.
async fn instance_that_stops_says_that_it_drains(version: Version) {
    let mut site = Site::with(
        version,
        |config| {
            without_background(config);
            config.drain.timeout = Duration::from_millis(1500);
        },
        |shown| shown,
    )
    .await;
    let key = site.fixture.keys.create(of_acme()).await;
    site.fixture.backend.hang().await;
    let address = site.envoy.address;
    let presented = bearer(&key.text);
    let waiting =
        beside(async move { send(address, get("/", &[("authorization", &presented)])).await });
    site.fixture.service.admin.until_metric("keystead_store_in_flight", 1.0).await;
    site.fixture.service.stop(Stop::AtOnce);
    refuses(&waiting.await.unwrap(), (503, "UNAVAILABLE", "DRAINING"));
    site.fixture.service.ended().await;
    // Nobody is there any more.
    let checked = check_over(site.fixture.service.channel(), presenting(&key.text)).await;
    checked.unwrap_err();
    assert_eq!(site.present("/", &key.text).await.status, 503);
}
