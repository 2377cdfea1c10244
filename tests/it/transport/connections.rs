//! Bounds of a connection, and its age.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use super::traffic::Traffic;
use crate::harness::{
    app::{channel_to, check_over, presenting},
    backend::{Backend, Embedded},
    eventually,
    fixture::Fixture,
    keys::of_acme,
    wire::{CHECK, Wire},
};

#[tokio::test]
async fn headers_over_the_limit_are_refused_and_the_connection_goes_on() {
    let Fixture { service, keys, config, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    let limit = usize::try_from(config.grpc.max_header_bytes.get()).unwrap();
    let mut wire = Wire::connect(service.grpc).await;
    for (bytes, fits) in [(limit / 2, true), (limit + 1, false), (limit / 2, true)] {
        let padding = "x".repeat(bytes);
        let headers = [("x-padding", padding.as_str())];
        let answer = wire.call(CHECK, &headers, &presenting(&key.text)).await.unwrap();
        if fits {
            assert_eq!(answer.status().code(), tonic::Code::Ok);
        } else {
            assert_eq!(answer.http.as_u16(), 431, "{answer:?}");
        }
    }
    // Far beyond the limit a connection may be given up, but nothing else.
    let padding = "x".repeat(10 * limit);
    let headers = [("x-padding", padding.as_str())];
    let answer = wire.call(CHECK, &headers, &presenting(&key.text)).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.http.as_u16() == 431));
    service.check_key(&key).await.unwrap();
}

#[tokio::test]
async fn requests_over_the_limit_of_one_connection_wait_for_their_turn() {
    let fixture = Fixture::with(Embedded::start().await, |config| {
        config.grpc.max_concurrent_streams = NonZeroU32::new(2).unwrap();
    });
    let mut fixture = fixture.await;
    let keys = fixture.keys.create_many(8).await;
    fixture.backend.slow_down().await;
    let checks = keys.iter().map(|key| fixture.service.check_key(key));
    for answer in futures::future::join_all(checks).await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn connection_over_the_limit_is_closed_at_once_and_counted_and_others_go_on() {
    let fixture = Fixture::with(Embedded::start().await, |config| {
        // One is the test's own.
        config.grpc.max_connections = NonZeroUsize::new(2).unwrap();
    });
    let Fixture { service, keys, .. } = &fixture.await;
    let key = keys.create(of_acme()).await;
    service.check_key(&key).await.unwrap();
    let first = Wire::connect(service.grpc).await;
    eventually("it has a connection slot", async || {
        let mut third = TcpStream::connect(service.grpc).await.unwrap();
        // Closed, or reset.
        let closed = timeout(Duration::from_millis(50), third.read_u8()).await;
        closed.is_ok_and(|read| read.is_err()).then_some(())
    })
    .await;
    let refused = service.admin.scrape().await;
    let full = refused.get(r#"keystead_connections_ended_total{why="full"}"#);
    let share = refused.get(r#"keystead_connections_ended_total{why="share"}"#);
    assert!(full + share > 0.5);
    service.check_key(&key).await.unwrap();
    drop(first);
    eventually("its connection slot is free", async || {
        let (channel, _) = channel_to(service.grpc).await;
        check_over(channel, presenting(&key.text)).await.ok()
    })
    .await;
}

#[tokio::test]
async fn connections_are_renewed_at_their_age_and_no_request_fails() {
    let fixture = Fixture::with(Embedded::start().await, |config| {
        config.grpc.max_connection_age = Duration::from_millis(200);
    });
    let Fixture { service, keys, .. } = &fixture.await;
    let key = keys.create(of_acme()).await;
    let (channel, connects) = channel_to(service.grpc).await;
    let traffic = Traffic::over(&channel, &key);
    eventually("the channel has connected ten times", async || {
        (connects.count() >= 10).then_some(())
    })
    .await;
    let sent = traffic.ended().await;
    let failures: Vec<_> = sent.iter().filter_map(|sent| sent.failure.as_ref()).collect();
    assert!(failures.is_empty(), "{} of {}: {failures:?}", failures.len(), sent.len());

    // An idle connection is closed all the same.
    let idle = Wire::connect(service.grpc).await;
    idle.ended().await.unwrap();
    check_over(channel, presenting(&key.text)).await.unwrap();
}

#[tokio::test]
async fn silent_connection_is_closed_and_frees_its_slot() {
    let fixture = Fixture::with(Embedded::start().await, |config| {
        config.grpc.max_connection_age = Duration::from_millis(200);
    });
    let Fixture { service, .. } = &fixture.await;
    let silent = tokio::net::TcpStream::connect(service.grpc).await.unwrap();
    let ended = async {
        silent.readable().await.unwrap();
        silent.try_read(&mut [0; 64])
    };
    let ended = timeout(crate::harness::DEADLINE, ended).await.expect("it is still open");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}
