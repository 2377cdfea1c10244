//! Many callers of one key, callers in a hurry, and callers who have gone.

use std::{
    num::NonZeroUsize,
    pin::pin,
    time::{Duration, Instant},
};

use futures::{future::join_all, poll};
use tonic::Code;

use crate::harness::{
    app::{check_over, presenting},
    backend::{Backend, on_both_stores},
    beside,
    fixture::{Fixture, without_background},
    keys::of_acme,
    refusal::Refusal,
    wire::{CHECK, Wire, grpc_timeout},
};

on_both_stores! {
    many_checks_of_one_unseen_key_make_one_query,
    caller_with_a_short_deadline_is_answered_before_it_passes,
    lookup_whose_callers_have_gone_never_reaches_the_store,
    lookup_is_finished_for_the_next_caller_when_its_own_has_gone,
}

const QUERIES: &str = "keystead_store_queries_total";

async fn many_checks_of_one_unseen_key_make_one_query(backend: impl Backend) {
    let mut fixture = Fixture::with(backend, without_background).await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.slow_down().await;
    let before = fixture.service.admin.metric(QUERIES).await;
    let answers = join_all((0..200).map(|_| fixture.service.check_key(&key))).await;
    for answer in answers {
        assert_eq!(answer.unwrap().key_id, key.id.as_str());
    }
    fixture.service.admin.until_metric(QUERIES, before + 1.0).await;
    let misses = r#"keystead_cache_lookups_total{result="miss"}"#;
    let misses = fixture.service.admin.metric(misses).await;
    assert!(misses > 100.0, "only {misses} came before the answer");
}

async fn caller_with_a_short_deadline_is_answered_before_it_passes(backend: impl Backend) {
    const PATIENCE: Duration = Duration::from_millis(50);
    let mut fixture = Fixture::with(backend, without_background).await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.hang().await;
    let mut wire = Wire::connect(fixture.service.grpc).await;
    let timeout = grpc_timeout(PATIENCE);
    let mut in_time = 0;
    for _ in 0..40 {
        let asked = Instant::now();
        let headers = [("grpc-timeout", timeout.as_str())];
        let answer = wire.call(CHECK, &headers, &presenting(&key.text)).await;
        let status = answer.unwrap().status();
        let took = asked.elapsed();
        let refusal = Refusal::of(&status);
        refusal.is_honest();
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "STORE_TIMEOUT"));
        assert!(took >= PATIENCE * 8 / 10, "given up too early: {took:?}");
        in_time += usize::from(took < PATIENCE);
    }
    // A busy machine may be late now and then. A service that waited for as
    // long as its caller does would be late always.
    assert!(in_time > 0, "not once in time");
}

async fn lookup_whose_callers_have_gone_never_reaches_the_store(backend: impl Backend) {
    let mut fixture = Fixture::with(backend, |config| {
        without_background(config);
        config.store.guard.max_in_flight = NonZeroUsize::MIN;
        // Ends the query that hangs where letting go does not.
        config.store.guard.query_timeout = Duration::from_secs(3);
    })
    .await;
    let keys = fixture.keys.create_many(3).await;
    fixture.backend.hang().await;
    let service = &fixture.service;
    let before = service.admin.metric(QUERIES).await;
    let first = beside(check_over(service.channel(), presenting(&keys[0].text)));
    service.admin.until_metric("keystead_store_in_flight", 1.0).await;

    // The second comes to wait behind it, and goes.
    let misses = r#"keystead_cache_lookups_total{result="miss"}"#;
    let passed_by = service.admin.metric(misses).await;
    {
        let mut second = pin!(service.check_key(&keys[1]));
        while service.admin.metric(misses).await < passed_by + 0.5 {
            assert!(poll!(second.as_mut()).is_pending());
        }
    }
    // The third comes on the same connection, so that it is read later.
    let third = beside(check_over(service.channel(), presenting(&keys[2].text)));
    service.admin.until_metric(misses, passed_by + 2.0).await;
    fixture.backend.go_on().await;

    assert_eq!(third.await.unwrap().unwrap().key_id, keys[2].id.as_str());
    drop(first.await.unwrap());
    assert_eq!(fixture.service.admin.metric(QUERIES).await.to_bits(), (before + 2.0).to_bits());
}

async fn lookup_is_finished_for_the_next_caller_when_its_own_has_gone(backend: impl Backend) {
    let mut fixture = Fixture::with(backend, without_background).await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.slow_down().await;
    let before = fixture.service.admin.metric(QUERIES).await;
    let gone = beside(check_over(fixture.service.channel(), presenting(&key.text)));
    fixture.service.admin.until_metric("keystead_store_in_flight", 1.0).await;
    gone.abort();
    fixture.service.admin.until_metric("keystead_cache_entries", 1.0).await;
    fixture.service.check_key(&key).await.unwrap();
    assert_eq!(fixture.service.admin.metric(QUERIES).await.to_bits(), (before + 1.0).to_bits());
}
