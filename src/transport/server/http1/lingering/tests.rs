use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, timeout},
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

async fn pair() -> (Lingering, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (Lingering::new(server), client)
}

#[tokio::test]
async fn client_that_still_sends_gets_its_answer() {
    for _ in 0..20 {
        let (mut server, mut client) = pair().await;
        client.write_all(&vec![b'x'; 60_000]).await.unwrap();
        let answering = async move {
            server.write_all(b"no").await.unwrap();
            server.shutdown().await.unwrap();
        };
        let asking = async move {
            // More than was there when the answer was sent.
            client.write_all(&vec![b'x'; 60_000]).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"no");
        };
        timeout(PATIENCE, async { tokio::join!(answering, asking) }).await.unwrap();
    }
}

#[tokio::test]
async fn client_that_sends_for_ever_is_left() {
    let (mut server, mut client) = pair().await;
    let closing = async move {
        let began = Instant::now();
        server.shutdown().await.unwrap();
        assert!(began.elapsed() >= LINGER);
    };
    let sending = async move { while client.write_all(&[b'x'; 1_000]).await.is_ok() {} };
    timeout(PATIENCE, async { tokio::join!(closing, sending) }).await.unwrap();
}

#[tokio::test]
async fn client_that_closes_is_not_waited_for() {
    let (mut server, client) = pair().await;
    drop(client);
    let began = Instant::now();
    timeout(PATIENCE, server.shutdown()).await.unwrap().unwrap();
    assert!(began.elapsed() < LINGER);
}
