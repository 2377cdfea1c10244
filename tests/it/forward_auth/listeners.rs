//! Where `/auth` is served: bounds, age and end of its connections.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    time::{Duration, Instant},
};

use keystead::{app::Stop, config::Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{ask, on_its_own};
use crate::harness::{
    DEADLINE,
    backend::{Backend, Embedded},
    beside, eventually,
    fixture::{Fixture, without_background},
    http::{Connection, get, send},
    keys::{Key, of_acme},
};

/// The two listeners that can serve forward auth.
const PLACES: [fn(&mut Config); 2] = [|_| (), on_its_own];

fn presenting(key: &Key) -> axum::http::Request<axum::body::Body> {
    get("/auth", &[("x-api-key", &key.text)])
}

#[tokio::test]
async fn auth_is_on_the_admin_listener_or_on_one_of_its_own_and_never_on_both() {
    let fixture = Fixture::new(Embedded::start().await).await;
    assert_eq!(fixture.service.auth, fixture.service.admin.0);
    assert_eq!(ask(&fixture.service, "/auth", "ks_live_1").await.status, 401);

    let fixture = Fixture::with(Embedded::start().await, on_its_own).await;
    assert_ne!(fixture.service.auth, fixture.service.admin.0);
    assert_eq!(ask(&fixture.service, "/auth", "ks_live_1").await.status, 401);
    assert_eq!(fixture.service.admin.get("/auth").await.status, 404);
    for path in ["/metrics", "/livez", "/readyz", "/status", "/"] {
        assert_eq!(send(fixture.service.auth, get(path, &[])).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn connection_over_the_limit_is_closed_at_once_and_others_go_on() {
    let fixture = Fixture::with(Embedded::start().await, |config| {
        on_its_own(config);
        // The data listener has as many of its own.
        config.grpc.max_connections = NonZeroUsize::new(2).unwrap();
    });
    let Fixture { service, keys, .. } = &fixture.await;
    let key = keys.create(of_acme()).await;
    let (first, mut second) =
        (Connection::open(service.auth).await, Connection::open(service.auth).await);
    assert_eq!(second.send(presenting(&key)).await.unwrap().status, 200);
    let mut third = TcpStream::connect(service.auth).await.unwrap();
    assert!(third.read_u8().await.is_err(), "it is closed, or reset");
    assert_eq!(second.send(presenting(&key)).await.unwrap().status, 200);
    drop(first);
    eventually("a connection slot is free", async || {
        let mut next = Connection::open(service.auth).await;
        next.send(presenting(&key)).await.ok().filter(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test]
async fn connection_is_closed_at_its_maximum_age_and_no_request_fails() {
    for place in PLACES {
        let fixture = Fixture::with(Embedded::start().await, |config| {
            place(config);
            config.grpc.max_connection_age = Duration::from_millis(200);
        });
        let Fixture { service, keys, .. } = &fixture.await;
        let key = keys.create(of_acme()).await;
        for _ in 0..3 {
            let mut connection = Connection::open(service.auth).await;
            let opened = Instant::now();
            loop {
                let answer = connection.send(presenting(&key)).await.unwrap();
                assert_eq!(answer.status, 200);
                if answer.header("connection") == Some("close") {
                    break;
                }
                assert!(opened.elapsed() < DEADLINE, "it goes on for ever");
            }
            assert!(opened.elapsed() >= Duration::from_millis(180), "{:?}", opened.elapsed());
            connection.ended().await.unwrap();
        }
    }
}

#[tokio::test]
async fn client_that_does_not_finish_its_headers_is_let_go() {
    let fixture = Fixture::with(Embedded::start().await, on_its_own).await;
    let mut slow = TcpStream::connect(fixture.service.auth).await.unwrap();
    slow.write_all(b"GET /auth HTTP/1.1\r\nhost: x\r\nx-api-key: ").await.unwrap();
    let mut said = Vec::new();
    let ended = timeout(DEADLINE, slow.read_to_end(&mut said)).await.expect("it is still open");
    assert!(!String::from_utf8_lossy(&said).contains("200 OK"), "{ended:?}");
}

/// Sends a request of this number of bytes, and returns what is answered until the end of
/// the connection.
async fn of_bytes(address: SocketAddr, key: &Key, bytes: u32) -> String {
    let start = format!(
        "GET /auth HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {}\r\nx-padding: ",
        key.text
    );
    let end = "\r\n\r\n";
    let padding = usize::try_from(bytes).unwrap() - start.len() - end.len();
    let request = format!("{start}{}{end}", "x".repeat(padding));
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut said = String::new();
    let all = timeout(DEADLINE, connection.read_to_string(&mut said)).await;
    all.expect("it is still open").unwrap();
    said
}

#[tokio::test]
async fn request_of_more_bytes_than_allowed_is_a_431_and_one_of_as_many_is_answered() {
    for (place, bytes) in PLACES.into_iter().zip([4096, 16 * 1024]) {
        let fixture = Fixture::with(Embedded::start().await, |config| {
            place(config);
            config.grpc.max_header_bytes = NonZeroU32::new(bytes).unwrap();
        });
        let Fixture { service, keys, .. } = &fixture.await;
        let key = keys.create(of_acme()).await;
        // The last one is more than the sockets hold: most is sent after it is refused.
        let sent = [bytes, bytes + 1, bytes + 4096, bytes + (8 << 20)];
        for (bytes, status) in sent.into_iter().zip(["200", "431", "431", "431"]) {
            let answer = of_bytes(service.auth, &key, bytes).await;
            let line = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&line), "{bytes}: {answer}");
        }
    }
}

#[tokio::test]
async fn requests_are_answered_for_the_whole_delay_and_to_their_end() {
    for place in PLACES {
        let mut fixture = Fixture::with(Embedded::start().await, |config| {
            place(config);
            config.drain.delay = Duration::from_secs(1);
        })
        .await;
        let keys = fixture.keys.create_many(2).await;
        let mut connection = Connection::open(fixture.service.auth).await;
        assert_eq!(connection.send(presenting(&keys[0])).await.unwrap().status, 200);
        let mut silent = TcpStream::connect(fixture.service.auth).await.unwrap();
        let told = Instant::now();
        fixture.service.stop(Stop::AfterDelay);
        eventually("it is draining", async || {
            (fixture.service.admin.get("/readyz").await.status == 503).then_some(())
        })
        .await;
        assert_eq!(connection.send(presenting(&keys[0])).await.unwrap().status, 200);
        assert_eq!(ask(&fixture.service, "/auth", &keys[1].text).await.status, 200);
        assert!(told.elapsed() < Duration::from_secs(1), "the test is too slow to tell");
        // Idle connections are closed, also one that never sent anything.
        connection.ended().await.unwrap();
        assert_eq!(silent.read(&mut [0; 64]).await.unwrap(), 0);
        fixture.service.ended().await;
        assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
        let refused = TcpStream::connect(fixture.service.auth).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

#[tokio::test]
async fn request_that_waits_for_the_store_is_answered_before_the_end() {
    for place in PLACES {
        let mut fixture = Fixture::with(Embedded::start().await, place).await;
        let key = fixture.keys.create(of_acme()).await;
        fixture.backend.slow_down().await;
        let waiting = begin(fixture.service.auth, &key);
        fixture.service.admin.until_metric("keystead_store_in_flight", 1.0).await;
        fixture.service.stop(Stop::AtOnce);
        assert_eq!(waiting.await.unwrap().status, 200);
        fixture.service.ended().await;
    }
}

#[tokio::test]
async fn request_waiting_when_the_drain_ends_is_draining() {
    for place in PLACES {
        let mut fixture = Fixture::with(Embedded::start().await, |config| {
            place(config);
            without_background(config);
            config.drain.timeout = Duration::from_millis(600);
        })
        .await;
        let key = fixture.keys.create(of_acme()).await;
        fixture.backend.hang().await;
        let waiting = begin(fixture.service.auth, &key);
        fixture.service.admin.until_metric("keystead_store_in_flight", 1.0).await;
        fixture.service.stop(Stop::AtOnce);
        let answer = waiting.await.unwrap();
        assert_eq!((answer.status, answer.reason().as_str()), (503, "DRAINING"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
        fixture.service.ended().await;
    }
}

fn begin(address: SocketAddr, key: &Key) -> tokio::task::JoinHandle<crate::harness::http::Answer> {
    let request = presenting(key);
    beside(async move { send(address, request).await })
}
