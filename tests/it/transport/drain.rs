//! Stopping, with requests under way and connections that would stay.

use std::time::{Duration, Instant};

use keystead::transport::health_pb::health_check_response::ServingStatus::NotServing;
use keystead::{app::Stop, config::Config};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::traffic::Traffic;
use crate::harness::{
    app::{channel_to, check_over, presenting},
    backend::{Backend, Embedded, on_both_stores},
    beside, eventually,
    fixture::Fixture,
    keys::of_acme,
    wire::{CHECK, Wire, endless},
};

on_both_stores! {
    request_that_waits_for_the_store_is_answered_before_the_end,
}

/// How long background work may take when all requests have ended, and what a
/// busy machine adds to any time.
const AFTERWARDS: Duration = Duration::from_secs(4);

const DELAY: Duration = Duration::from_secs(1);

fn with_delay(config: &mut Config) {
    config.drain.delay = DELAY;
    config.drain.timeout = Duration::from_secs(30);
}

/// A connection whose server says at once that it will end, loses no request;
/// one that comes after the end finds nobody.
///
/// Held of every request of a client with one connection: it is answered OK if
/// it was begun before the delay was over. One that was begun later is
/// answered, or fails in the client, which has to make a new connection
/// and finds nobody listening; the service itself refuses none.
#[tokio::test]
async fn requests_are_answered_for_the_whole_delay_while_health_says_not_serving() {
    let mut fixture = Fixture::with(Embedded::start().await, with_delay).await;
    let key = fixture.keys.create(of_acme()).await;
    let (channel, _) = channel_to(fixture.service.grpc).await;
    let traffic = Traffic::over(&channel, &key);
    traffic.goes_on(50).await;

    let told = Instant::now();
    fixture.service.stop(Stop::AfterDelay);
    eventually("health says NOT_SERVING", async || {
        (fixture.service.health("").await.unwrap() == NotServing).then_some(())
    })
    .await;
    let readiness = fixture.service.admin.get("/readyz").await;
    assert_eq!((readiness.status, readiness.body.as_str()), (503, "draining\n"));
    assert_eq!(fixture.service.admin.get("/livez").await.status, 200);
    assert_eq!(fixture.service.admin.status().await["state"], "draining");
    assert!(told.elapsed() < DELAY, "NOT_SERVING came only with the end");
    // New connections are still taken.
    let (late, _) = channel_to(fixture.service.grpc).await;
    check_over(late, presenting(&key.text)).await.unwrap();
    traffic.goes_on(50).await;

    fixture.service.ended().await;
    assert!(told.elapsed() >= DELAY);
    assert!(told.elapsed() < DELAY + AFTERWARDS, "{:?}", told.elapsed());
    for sent in traffic.ended().await {
        if let Some(status) = &sent.failure {
            assert!(sent.at >= told + DELAY, "{:?} before: {status:?}", told + DELAY - sent.at);
            assert!(status.details().is_empty(), "the service refused it: {status:?}");
        }
    }
    let refused = TcpStream::connect(fixture.service.grpc).await;
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

async fn request_that_waits_for_the_store_is_answered_before_the_end(backend: impl Backend) {
    let mut fixture = Fixture::new(backend).await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.slow_down().await;
    let waiting = beside(check_over(fixture.service.channel(), presenting(&key.text)));
    fixture.service.admin.until_metric("keystead_store_in_flight", 1.0).await;
    fixture.service.stop(Stop::AtOnce);
    assert_eq!(waiting.await.unwrap().unwrap().key_id, key.id.as_str());
    fixture.service.ended().await;
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_exit() {
    let mut fixture = Fixture::with(Embedded::start().await, with_delay).await;
    // One that has never said anything, one that has begun to, one that has
    // asked nothing, and one that has been answered.
    let silent = TcpStream::connect(fixture.service.grpc).await.unwrap();
    let halting = TcpStream::connect(fixture.service.grpc).await.unwrap();
    halting.writable().await.unwrap();
    assert_eq!(halting.try_write(b"PRI * HTTP/2").unwrap(), 12);
    let idle = Wire::connect(fixture.service.grpc).await;
    let key = fixture.keys.create(of_acme()).await;
    let mut answered = Wire::connect(fixture.service.grpc).await;
    answered.call(CHECK, &[], &presenting(&key.text)).await.unwrap();
    assert!(idle.is_open() && answered.is_open());

    fixture.service.stop(Stop::AtOnce);
    let told = Instant::now();
    fixture.service.ended().await;
    assert!(told.elapsed() < AFTERWARDS, "{:?}", told.elapsed());
    idle.ended().await.unwrap();
    answered.ended().await.unwrap();
    drop((silent, halting));
}

#[tokio::test]
async fn client_that_does_not_read_does_not_delay_the_exit() {
    let mut fixture = Fixture::with(Embedded::start().await, |config| {
        config.drain.timeout = Duration::from_secs(30);
    })
    .await;
    let mut deaf = TcpStream::connect(fixture.service.admin.0).await.unwrap();
    // Until it takes no more requests, as its answers are not taken.
    let asking = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    while let Ok(sent) = timeout(Duration::from_secs(1), deaf.write_all(asking.as_bytes())).await {
        sent.unwrap();
    }
    fixture.service.stop(Stop::AtOnce);
    let told = Instant::now();
    fixture.service.ended().await;
    assert!(told.elapsed() < AFTERWARDS, "{:?}", told.elapsed());
    drop(deaf);
}

#[tokio::test]
async fn request_that_never_ends_is_cut_at_the_hard_limit() {
    const LIMIT: Duration = Duration::from_millis(1500);
    let mut fixture = Fixture::with(Embedded::start().await, |config| {
        config.drain.timeout = LIMIT;
    })
    .await;
    let key = fixture.keys.create(of_acme()).await;
    let mut wire = Wire::connect(fixture.service.grpc).await;
    let stuck = wire.begin(CHECK, endless()).await;
    // What comes later on the same connection is read later.
    wire.call(CHECK, &[], &presenting(&key.text)).await.unwrap();

    fixture.service.stop(Stop::AtOnce);
    let told = Instant::now();
    fixture.service.ended().await;
    let took = told.elapsed();
    assert!(took >= LIMIT, "it was not waited for: {took:?}");
    assert!(took < LIMIT + AFTERWARDS, "the limit was not kept: {took:?}");
    stuck.abort();
}
