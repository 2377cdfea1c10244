//! Outages: a 503 that says when to come back and that the key was not rejected.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use super::{ask, counted};
use crate::harness::{
    app::Service,
    backend::{Backend, Embedded},
    eventually,
    fixture::{Fixture, without_background},
    http::Answer,
    keys::Key,
};

const ONE: NonZeroUsize = NonZeroUsize::MIN;

/// Asserts that an answer is an honest outage.
fn is_outage(answer: &Answer, reason: &str) {
    assert_eq!((answer.status, answer.reason().as_str()), (503, reason), "{answer:?}");
    let error = &answer.json()["error"];
    assert_eq!(error["code"], "UNAVAILABLE");
    assert!(error["message"].as_str().unwrap().contains("the key was not rejected"), "{answer:?}");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{answer:?}");
    assert_eq!(answer.header("www-authenticate"), None);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-keystead-error"), Some(answer.body.as_str()));
}

/// Asks, and holds that it is an outage which was counted once.
async fn is_out(service: &Service, key: &Key, reason: &str) {
    let before = service.admin.scrape().await;
    is_outage(&ask(service, "/auth", &key.text).await, reason);
    let after = service.admin.scrape().await;
    let changes = after.changes_since(&before, "keystead_checks_total");
    assert_eq!(changes, [(counted("UNAVAILABLE", reason), 1.0)].into());
}

/// Asks until the key is in memory: what is read while the news of its creation
/// arrives is not kept.
async fn warm(service: &Service, key: &Key) {
    let queries = "keystead_store_queries_total";
    eventually("the key is in memory", async || {
        let before = service.admin.metric(queries).await;
        assert_eq!(ask(service, "/auth", &key.text).await.status, 200);
        (service.admin.metric(queries).await < before + 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn store_that_cannot_be_reached_is_a_503_and_a_warm_key_is_answered() {
    let mut fixture = Fixture::new(Embedded::start().await).await;
    let keys = fixture.keys.create_many(2).await;
    warm(&fixture.service, &keys[0]).await;
    fixture.backend.vanish().await;
    is_out(&fixture.service, &keys[1], "STORE_UNREACHABLE").await;
    assert_eq!(ask(&fixture.service, "/auth", &keys[0].text).await.status, 200);
    fixture.backend.come_back().await;
    eventually("the store answers again", async || {
        (ask(&fixture.service, "/auth", &keys[1].text).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn store_that_does_not_answer_in_time_is_a_503() {
    let mut fixture = Fixture::with(Embedded::start().await, |config| {
        config.store.guard.query_timeout = Duration::from_millis(300);
    })
    .await;
    let key = fixture.keys.create_many(1).await.remove(0);
    fixture.backend.hang().await;
    is_out(&fixture.service, &key, "STORE_TIMEOUT").await;
}

#[tokio::test]
async fn request_without_a_permit_is_a_503() {
    let mut fixture = Fixture::with(Embedded::start().await, |config| {
        without_background(config);
        config.store.guard.max_in_flight = ONE;
        config.check.timeout = Duration::from_millis(300);
    })
    .await;
    let keys = fixture.keys.create_many(2).await;
    fixture.backend.hang().await;
    fixture.service.occupy_the_store(&keys[0]).await;
    let timed_out = crate::harness::admin::checks_total("UNAVAILABLE", "STORE_TIMEOUT");
    fixture.service.admin.until_metric(&timed_out, 1.0).await;
    is_out(&fixture.service, &keys[1], "STORE_SATURATED").await;
}

#[tokio::test]
async fn request_beyond_those_that_may_wait_on_any_surface_is_a_503_at_once() {
    let mut fixture = Fixture::with(Embedded::start().await, |config| {
        without_background(config);
        config.check.max_waiting = ONE;
    })
    .await;
    let keys = fixture.keys.create_many(2).await;
    fixture.backend.hang().await;
    fixture.service.occupy_the_store(&keys[0]).await;
    is_out(&fixture.service, &keys[1], "OVERLOADED").await;
}

#[tokio::test]
async fn open_breaker_is_a_503() {
    let mut fixture = Fixture::with(Embedded::start().await, |config| {
        config.store.guard.breaker.min_calls = NonZeroU32::MIN;
        config.store.guard.breaker.open_for = Duration::from_mins(1);
        config.store.guard.breaker.max_open_for = Duration::from_mins(1);
    })
    .await;
    let key = fixture.keys.create_many(1).await.remove(0);
    fixture.backend.vanish().await;
    eventually("the breaker opens", async || {
        let answer = ask(&fixture.service, "/auth", &key.text).await;
        (answer.reason() == "BREAKER_OPEN").then_some(())
    })
    .await;
    is_out(&fixture.service, &key, "BREAKER_OPEN").await;
}

#[tokio::test]
async fn store_that_lost_known_keys_is_a_503_for_others() {
    let fixture = Fixture::with(Embedded::start().await, |config| {
        config.cache.fresh_for = Duration::from_millis(500);
        config.cache.feed_fresh_for = Duration::from_millis(500);
    })
    .await;
    let keys = fixture.keys.create_many(20).await;
    let (known, others) = keys.split_at(10);
    for key in known {
        warm(&fixture.service, key).await;
    }
    fixture.backend.sql("DROP TRIGGER api_keys_deleted; DELETE FROM api_keys;").await;
    eventually("the store is suspect", async || {
        for key in known {
            assert_eq!(ask(&fixture.service, "/auth", &key.text).await.status, 200);
        }
        (fixture.service.admin.metric("keystead_store_suspect").await > 0.5).then_some(())
    })
    .await;
    is_out(&fixture.service, &others[0], "STORE_SUSPECT").await;
}
