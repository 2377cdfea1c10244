use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, timeout},
};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(30);

async fn pair() -> (Lingering, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (Lingering::new(server), client)
}

#[tokio::test]
async fn client_that_is_still_sending_gets_the_response() {
    for _ in 0..20 {
        let (mut server, mut client) = pair().await;
        client.write_all(&vec![b'x'; 60_000]).await.unwrap();
        let responding = async move {
            server.write_all(b"no").await.unwrap();
            server.shutdown().await.unwrap();
        };
        let reading = async move {
            // More than had arrived when the response was sent.
            client.write_all(&vec![b'x'; 60_000]).await.unwrap();
            let mut response = Vec::new();
            client.read_to_end(&mut response).await.unwrap();
            assert_eq!(response, b"no");
        };
        timeout(TIMEOUT, async { tokio::join!(responding, reading) }).await.unwrap();
    }
}

#[tokio::test]
async fn client_that_sends_for_ever_is_disconnected() {
    let (mut server, mut client) = pair().await;
    let closing = async move {
        let began = Instant::now();
        server.shutdown().await.unwrap();
        assert!(began.elapsed() >= LINGER);
    };
    let sending = async move { while client.write_all(&[b'x'; 1_000]).await.is_ok() {} };
    timeout(TIMEOUT, async { tokio::join!(closing, sending) }).await.unwrap();
}

#[tokio::test]
async fn closed_connection_does_not_linger() {
    let (mut server, client) = pair().await;
    drop(client);
    let began = Instant::now();
    timeout(TIMEOUT, server.shutdown()).await.unwrap().unwrap();
    assert!(began.elapsed() < LINGER);
}
