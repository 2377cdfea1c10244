//! Other protocols over HTTP/1.1, such as `WebSocket`: the check comes before the upgrade.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::site::bearer;
use crate::harness::{
    DEADLINE,
    backend::{Backend, Embedded},
    beside,
    envoy::{Envoy, EnvoyConfig, Version, on_both_envoys},
    fixture::Fixture,
    keys::of_acme,
};

on_both_envoys! {
    websocket_is_opened_with_a_key_and_refused_without,
}

/// What a client sends, what it is answered, and a text frame from either side:
/// those of RFC 6455, 1.3 and 5.7.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const HELLO_MASKED: [u8; 11] = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
const HELLO: [u8; 7] = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];

async fn websocket_is_opened_with_a_key_and_refused_without(version: Version) {
    let fixture = Fixture::new(Embedded::start().await).await;
    let key = fixture.keys.create(of_acme()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config =
        EnvoyConfig::new(&[fixture.service.grpc], listener.local_addr().unwrap()).patient();
    let serving = beside(serve_one(listener));
    let envoy = Envoy::start(version, &config).await;
    envoy.until_healthy(1).await;

    let (mut refused, head) = shake(&envoy, "").await;
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    assert!(head.contains("www-authenticate"), "{head}");
    let mut body = [0; 2];
    refused.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"{\"");

    let presented = format!("authorization: {}\r\n", bearer(&key.text));
    let (mut opened, head) = shake(&envoy, &presented).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains(&format!("sec-websocket-accept: {ACCEPT}")), "{head}");
    opened.write_all(&HELLO_MASKED).await.unwrap();
    let mut frame = [0; HELLO.len()];
    timeout(DEADLINE, opened.read_exact(&mut frame)).await.unwrap().unwrap();
    assert_eq!(frame, HELLO);
    // The one that was refused has not come here.
    let told = serving.await.unwrap();
    assert!(told.contains("x-keystead-principal: acme"), "{told}");
}

/// Asks for a WebSocket, and reads the head of the answer.
async fn shake(envoy: &Envoy, more: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(envoy.address).await.unwrap();
    let request = format!(
        "GET /chat HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-key: {KEY}\r\nsec-websocket-version: 13\r\n{more}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = timeout(DEADLINE, head(&mut stream)).await.unwrap();
    (stream, head)
}

/// Opens a WebSocket for whoever comes first, and answers one frame. Returns
/// what it was asked.
async fn serve_one(listener: TcpListener) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let asked = head(&mut stream).await;
    let opened = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(opened.as_bytes()).await.unwrap();
    let mut frame = [0; HELLO_MASKED.len()];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame, HELLO_MASKED);
    stream.write_all(&HELLO).await.unwrap();
    asked
}

/// Up to the empty line, and no byte further.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
