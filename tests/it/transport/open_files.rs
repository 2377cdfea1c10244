//! Connections leave descriptors to probes and to the store, however low the limit of
//! open files is.

use std::{io::ErrorKind, net::SocketAddr};

use futures::future::join_all;
use keystead::{config::Config, store::StoreUrl};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{
    admin::Admin,
    app::{channel_to, check_over, presenting},
    eventually,
    keys::Keys,
    keystead::{Keystead, Ran},
};

async fn connect_from(peer: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{peer}:0").parse().unwrap()).unwrap();
    socket.connect(address).await.unwrap()
}

/// Opens 400 connections that send nothing, from two peers.
async fn idle(address: SocketAddr) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for peer in ["127.0.0.2", "127.0.0.3"] {
        for _ in 0..200 {
            connections.push(connect_from(peer, address).await);
        }
    }
    connections
}

/// Whether the server has not closed it.
fn is_open(connection: &TcpStream) -> bool {
    let read = connection.try_read(&mut [0]);
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[tokio::test]
async fn connections_beyond_a_low_limit_of_open_files_stop_no_probe_no_check_and_no_lookup() {
    let keystead = Keystead::new();
    let server = keystead.serve_limited("ulimit -n 256").await;
    let mut config = Config::default();
    config.store.url = StoreUrl::Sqlite { path: keystead.path("keystead.db") };
    let keys = Keys::open(&config).await;
    let warm = keys.create_many(1).await.remove(0);
    let (channel, _) = channel_to(server.grpc).await;
    let is_ok = async |text: &str| check_over(channel.clone(), presenting(text)).await.is_ok();
    eventually("the key is known", async || is_ok(&warm.text).await.then_some(())).await;

    let kept = idle(server.grpc).await;
    eventually("those that there is no room for are refused", async || {
        let open = kept.iter().filter(|connection| is_open(connection)).count();
        (100..256).contains(&open).then_some(())
    })
    .await;
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(Admin(server.admin).get(path).await.status, 200, "{path}");
    }
    assert!(is_ok(&warm.text).await, "a key that is known");
    let new = keys.create_many(100).await;
    let found = join_all(new.iter().map(|key| is_ok(&key.text))).await;
    assert!(found.iter().all(|found| *found), "keys that nobody has asked for: {found:?}");

    let log = server.log();
    assert!(!log.contains("cannot accept connections"), "{log}");
    let said: Vec<_> = log.lines().filter(|line| line.contains("so fewer are admitted")).collect();
    let [line] = said[..] else { panic!("one line: {log}") };
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["level"], &line["open_files"]), (&"WARN".into(), &256.into()));
    assert_eq!(line["configured"], 10_000);
    assert!(line["message"].as_str().unwrap().contains("LimitNOFILE"), "{line}");
    let admitted = format!(r#""max_connections":{}"#, line["admitted"]);
    assert!(log.contains(&admitted), "{admitted} in the line `serving`: {log}");
    drop(kept);
}

#[tokio::test]
async fn limit_of_open_files_that_is_too_low_to_serve_ends_the_start_with_the_remedy() {
    let keystead = Keystead::new();
    let error = Ran::of(keystead.limited("ulimit -n 40"), "").await.failed(1);
    assert!(error.contains("the limit of open files is 40, and at least "), "{error}");
    assert!(error.contains("LimitNOFILE"), "{error}");
    assert!(!keystead.path("keystead.db").exists(), "no store is made");
}
