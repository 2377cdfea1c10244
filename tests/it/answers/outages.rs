//! UNAVAILABLE: the store gave no answer, or we refuse for our own sake.

use std::{num::NonZeroUsize, time::Duration};

use futures::future::select_all;
use keystead::app::Stop;
use tonic::Code::Unavailable;

use super::{is_row, refused};
use crate::harness::{
    app::{Service, check_over, presenting},
    backend::{Backend, on_both_stores},
    beside, eventually,
    fixture::{Fixture, without_background},
    keys::of_acme,
    refusal::Refusal,
};

on_both_stores! {
    unreachable_store_is_unavailable_with_its_cause,
    store_without_its_table_is_unavailable_with_its_cause,
    store_timeout_is_unavailable_with_its_cause,
    check_without_a_permit_is_saturated_with_its_cause,
    check_beyond_those_that_may_wait_is_refused_at_once,
    lookup_beyond_those_that_may_queue_is_refused_at_once,
    check_waiting_when_the_drain_ends_is_draining,
}

const ONE: NonZeroUsize = NonZeroUsize::MIN;

const QUERIES: &str = "keystead_store_queries_total";

async fn unreachable_store_is_unavailable_with_its_cause(backend: impl Backend) {
    let mut fixture = Fixture::new(backend).await;
    let keys = fixture.keys.create_many(3).await;
    // There is an idle connection when it happens. What is read while the news
    // of its creation arrives is not kept.
    eventually("the key is in memory", async || {
        let before = fixture.service.admin.metric(QUERIES).await;
        fixture.service.check_key(&keys[0]).await.unwrap();
        (fixture.service.admin.metric(QUERIES).await < before + 0.5).then_some(())
    })
    .await;
    fixture.backend.vanish().await;
    let row = (Unavailable, "STORE_UNREACHABLE");
    for _ in 0..3 {
        let request = presenting(&keys[1].text);
        refused(&fixture.service, request, row, &[("cause", "unreachable")]).await;
    }
    fixture.service.check_key(&keys[0]).await.expect("it is in memory");
    fixture.backend.come_back().await;
    let answered = eventually("the store answers again", async || {
        fixture.service.check_key(&keys[1]).await.ok()
    });
    assert_eq!(answered.await.key_id, keys[1].id.as_str());
}

async fn store_without_its_table_is_unavailable_with_its_cause<B: Backend>(backend: B) {
    let fixture = Fixture::new(backend).await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.sql(&format!("ALTER TABLE {} RENAME TO elsewhere", B::API_KEYS)).await;
    let row = (Unavailable, "STORE_UNREACHABLE");
    refused(&fixture.service, presenting(&key.text), row, &[("cause", "schema")]).await;
}

async fn store_timeout_is_unavailable_with_its_cause(backend: impl Backend) {
    let mut fixture = Fixture::with(backend, |config| {
        config.store.guard.query_timeout = Duration::from_millis(300);
    })
    .await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.hang().await;
    let row = (Unavailable, "STORE_TIMEOUT");
    refused(&fixture.service, presenting(&key.text), row, &[("cause", "timeout")]).await;
}

async fn check_without_a_permit_is_saturated_with_its_cause(backend: impl Backend) {
    let mut fixture = Fixture::with(backend, |config| {
        without_background(config);
        config.store.guard.max_in_flight = ONE;
        config.check.timeout = Duration::from_millis(300);
    })
    .await;
    let keys = fixture.keys.create_many(2).await;
    fixture.backend.hang().await;
    fixture.service.occupy_the_store(&keys[0]).await;
    // The first check has reported its own reason by then.
    eventually("the first check has ended", async || {
        let waited = checks(&fixture.service, "STORE_TIMEOUT").await;
        (waited > 0.5).then_some(())
    })
    .await;
    let row = (Unavailable, "STORE_SATURATED");
    refused(&fixture.service, presenting(&keys[1].text), row, &[("cause", "saturated")]).await;
}

async fn checks(service: &Service, reason: &str) -> f64 {
    let series = crate::harness::admin::checks_total("UNAVAILABLE", reason);
    service.admin.metric(&series).await
}

async fn check_beyond_those_that_may_wait_is_refused_at_once(backend: impl Backend) {
    let mut fixture = Fixture::with(backend, |config| {
        without_background(config);
        config.check.max_waiting = ONE;
    })
    .await;
    let keys = fixture.keys.create_many(3).await;
    fixture.service.check_key(&keys[2]).await.unwrap();
    fixture.backend.hang().await;
    fixture.service.occupy_the_store(&keys[0]).await;
    for key in &keys[..2] {
        refused(&fixture.service, presenting(&key.text), (Unavailable, "OVERLOADED"), &[]).await;
    }
    fixture.service.check_key(&keys[2]).await.expect("what is in memory does not wait");
}

async fn lookup_beyond_those_that_may_queue_is_refused_at_once(backend: impl Backend) {
    let mut fixture = Fixture::with(backend, |config| {
        without_background(config);
        config.store.guard.max_in_flight = ONE;
        config.fill.max_queued = ONE;
    })
    .await;
    let keys = fixture.keys.create_many(4).await;
    fixture.service.check_key(&keys[2]).await.unwrap();
    fixture.backend.hang().await;
    fixture.service.occupy_the_store(&keys[0]).await;
    // One of them may wait, whichever comes first.
    let both = [&keys[1], &keys[3]].map(|key| Box::pin(fixture.service.check_key(key)));
    let (first, _, _) = select_all(both).await;
    is_row(&Refusal::of(&first.unwrap_err()), (Unavailable, "OVERLOADED"), &[]);
    fixture.service.check_key(&keys[2]).await.expect("what is in memory needs no lookup");
}

async fn check_waiting_when_the_drain_ends_is_draining(backend: impl Backend) {
    let mut fixture = Fixture::with(backend, |config| {
        without_background(config);
        config.drain.delay = Duration::from_millis(100);
        config.drain.timeout = Duration::from_millis(600);
    })
    .await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.hang().await;
    let waiting = beside(check_over(fixture.service.channel(), presenting(&key.text)));
    fixture.service.admin.until_metric("keystead_store_in_flight", 1.0).await;
    fixture.service.stop(Stop::AfterDelay);
    let status = waiting.await.unwrap().unwrap_err();
    is_row(&Refusal::of(&status), (Unavailable, "DRAINING"), &[]);
    fixture.service.ended().await;
}
