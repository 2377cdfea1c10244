//! What is not of the protocol of a listener.

use std::net::SocketAddr;

use ::http::Request;
use axum::body::Body;
use keystead::config::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{
    DEADLINE,
    admin::{checks_of, checks_total},
    app::{Service, presenting},
    backend::{Backend, Embedded},
    fixture::{Fixture, without_background},
    http,
    keys::{forged, of_acme},
    wire::{CHECK, Wire, endless, framed},
};

fn with_all_listeners(config: &mut Config) {
    config.listen.control = Some("127.0.0.1:0".parse().unwrap());
    config.listen.forward_auth = Some("127.0.0.1:0".parse().unwrap());
}

fn grpc_listeners(service: &Service) -> [SocketAddr; 2] {
    [service.grpc, service.control.unwrap()]
}

/// Sends bytes, and returns what is answered until the end of the connection.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let all = timeout(DEADLINE, stream.read_to_end(&mut said)).await;
    all.expect("it is still open").unwrap();
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn what_is_not_grpc_is_an_http_error_on_every_grpc_listener() {
    let Fixture { service, .. } = &Fixture::with(Embedded::start().await, with_all_listeners).await;
    for address in grpc_listeners(service) {
        let mut wire = Wire::connect(address).await;
        for path in [CHECK, "/auth?scopes=read", "/", "/grpc.health.v1.Health/Check"] {
            for (method, content_type, status) in [
                ("GET", None, 405),
                ("GET", Some("application/grpc"), 405),
                ("HEAD", None, 405),
                ("OPTIONS", Some("application/grpc"), 405),
                ("PUT", Some("application/json"), 405),
                ("POST", None, 415),
                ("POST", Some("application/json"), 415),
                ("POST", Some("application/grpc-web"), 415),
                ("POST", Some("application/grpcx"), 415),
            ] {
                let mut request =
                    Request::builder().method(method).uri(format!("http://keystead{path}"));
                if let Some(content_type) = content_type {
                    request = request.header("content-type", content_type);
                }
                let answer = wire.exchange(request.body(Body::empty()).unwrap()).await.unwrap();
                let asked = format!("{method} {path} {content_type:?}");
                assert_eq!(answer.http.as_u16(), status, "{asked}: {answer:?}");
                assert!(answer.status.is_none(), "{asked}: {answer:?}");
                let body = String::from_utf8(answer.body).unwrap();
                assert_eq!(body.contains("this port serves gRPC"), method != "HEAD", "{body}");
                let allowed = answer.headers.get("allow").map(|it| it.to_str().unwrap());
                assert_eq!(allowed, (status == 405).then_some("POST"), "{asked}");
            }
        }
    }
}

#[tokio::test]
async fn grpc_with_a_codec_or_a_parameter_is_grpc() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    let mut wire = Wire::connect(service.grpc).await;
    for content_type in ["application/grpc", "application/grpc+proto", "Application/gRPC; a=b"] {
        let message = prost::Message::encode_to_vec(&presenting(&key.text));
        let request = Request::post(format!("http://keystead{CHECK}"))
            .header("content-type", content_type)
            .body(framed(false, &message).into());
        let answer = wire.exchange(request.unwrap()).await.unwrap();
        assert_eq!(answer.status().code(), tonic::Code::Ok, "{content_type}");
    }
}

#[tokio::test]
async fn http1_on_a_grpc_listener_is_refused_in_words() {
    let Fixture { service, .. } = &Fixture::with(Embedded::start().await, with_all_listeners).await;
    for address in grpc_listeners(service) {
        for (request, status) in [
            ("GET /auth HTTP/1.1\r\nhost: x\r\n\r\n", 405),
            ("GET / HTTP/1.0\r\n\r\n", 405),
            (
                "POST /auth HTTP/1.1\r\nhost: x\r\ncontent-type: a/b\r\ncontent-length: 0\r\n\r\n",
                415,
            ),
            (
                "POST /keystead.v1.Authz/Check HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n",
                505,
            ),
            ("PRI * HTTP/1.1\r\nhost: x\r\n\r\n", 405),
        ] {
            let close = request.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
            let said = raw(address, &close).await;
            let version = if request.contains("1.0") { "1.0" } else { "1.1" };
            assert!(said.starts_with(&format!("HTTP/{version} {status} ")), "{request}: {said}");
            assert!(said.contains("this port serves gRPC"), "{said}");
        }
    }
}

#[tokio::test]
async fn http1_request_with_other_than_one_host_is_a_400() {
    let Fixture { service, keys, .. } =
        &Fixture::with(Embedded::start().await, with_all_listeners).await;
    let key = keys.create(of_acme()).await;
    for (hosts, version, status) in [
        ("host: a\r\n", "1.1", "200"),
        ("", "1.0", "200"),
        ("", "1.1", "400"),
        ("host: a\r\nhost: b\r\n", "1.1", "400"),
        ("host: a\r\nhost: a\r\n", "1.1", "400"),
        ("host: a\r\nhost: b\r\n", "1.0", "400"),
    ] {
        for (address, path) in [(service.auth, "/auth"), (service.admin.0, "/livez")] {
            let request = format!(
                "GET {path} HTTP/{version}\r\n{hosts}x-api-key: {}\r\nconnection: close\r\n\r\n",
                key.text
            );
            let said = raw(address, &request).await;
            assert!(said.starts_with(&format!("HTTP/{version} {status} ")), "{request}: {said}");
        }
    }
}

#[tokio::test]
async fn last_answer_of_an_http1_connection_says_that_it_closes() {
    let Fixture { service, .. } = &Fixture::with(Embedded::start().await, with_all_listeners).await;
    for address in [service.auth, service.admin.0] {
        for path in ["/auth", "/livez", "/nothing"] {
            for wish in ["close", "Close", "x, close"] {
                let request =
                    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: {wish}\r\n\r\n");
                let said = raw(address, &request).await;
                assert!(said.contains("\r\nconnection: close\r\n"), "{request}: {said}");
            }
        }
        // What is refused before it is a request.
        let head = "GET /livez HTTP/1.1\r\nhost: x\r\n";
        for (request, status) in [
            ("GET\r\n\r\n".to_owned(), 400),
            (format!("{head}a b: x\r\n\r\n"), 400),
            (format!("{head}a: {}\r\n\r\n", "x".repeat(100_000)), 431),
            (format!("{head}{}\r\n", "a: x\r\n".repeat(200)), 431),
        ] {
            let said = raw(address, &request).await;
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
            assert!(said.contains("\r\nconnection: close\r\n"), "{said}");
        }
    }
}

#[tokio::test]
async fn compressed_message_is_refused_with_the_accepted_encodings() {
    let Fixture { service, .. } = &Fixture::with(Embedded::start().await, with_all_listeners).await;
    for address in grpc_listeners(service) {
        let mut wire = Wire::connect(address).await;
        for path in [
            CHECK,
            "/keystead.v1.Diagnostics/Explain",
            "/envoy.service.auth.v3.Authorization/Check",
            "/grpc.health.v1.Health/Check",
        ] {
            let is_data = address == service.grpc;
            let is_served = is_data != path.starts_with("/keystead.v1.Diagnostics/");
            let answer =
                wire.call(path, &[("grpc-encoding", "gzip")], &presenting("x")).await.unwrap();
            let told = answer.headers.get("grpc-accept-encoding").cloned();
            assert_eq!(answer.status().code(), tonic::Code::Unimplemented, "{path}");
            assert_eq!(told.is_some_and(|it| it == "identity"), is_served, "{path}");
        }
    }
}

#[tokio::test]
async fn every_cancelled_call_is_counted() {
    const GIVEN_UP: usize = 10;
    let mut fixture = Fixture::with(Embedded::start().await, without_background).await;
    let keys = fixture.keys.create_many(GIVEN_UP).await;
    fixture.backend.hang().await;
    let mut wire = Wire::connect(fixture.service.grpc).await;
    let mut calls = Vec::new();
    for key in &keys {
        let message = prost::Message::encode_to_vec(&presenting(&key.text));
        calls.push(wire.begin(CHECK, framed(false, &message).into()).await);
        // One whose message never ends.
        calls.push(wire.begin(CHECK, endless()).await);
    }
    // Those that came before it have been looked at when this one is answered.
    let last = wire.call(CHECK, &[], &presenting("")).await.unwrap();
    assert_eq!(last.status().code(), tonic::Code::Unauthenticated);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    let series = checks_total("CANCELLED", "");
    fixture.service.admin.until_metric(&series, 2.0 * 10.0).await;
    fixture.backend.go_on().await;
}

#[tokio::test]
async fn cancelled_forward_auth_request_is_counted() {
    let mut fixture = Fixture::with(Embedded::start().await, without_background).await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.hang().await;
    let mut stream = TcpStream::connect(fixture.service.auth).await.unwrap();
    let request = format!("GET /auth HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\r\n", key.text);
    stream.write_all(request.as_bytes()).await.unwrap();
    fixture.service.admin.until_metric("keystead_store_in_flight", 1.0).await;
    drop(stream);
    fixture.service.admin.until_metric(&checks_of("forward_auth", "CANCELLED", ""), 1.0).await;
    fixture.backend.go_on().await;
}

#[tokio::test]
async fn surfaces_agree_on_white_space_and_say_what_is_odd() {
    let fixture = Fixture::with(Embedded::start().await, |config| {
        with_all_listeners(config);
        let sources = ["authorization:Bearer", "header:x-api-key", "query:key", "cookie:key"];
        let sources = sources.map(str::to_owned).to_vec();
        config.credential.sources = sources.try_into().unwrap();
    });
    let Fixture { service, keys, .. } = &fixture.await;
    let key = keys.create(of_acme()).await.text;
    let encoded = |text: &str| text.replace('\n', "%0A").replace(' ', "%20").replace('"', "%22");
    let odd = [
        (format!("{key}\n"), "white space or a line break around it"),
        (format!("{key} {key}"), "white space in it"),
        (format!("Bearer {key}"), "begins with a scheme"),
        (key[..30].to_owned(), "a part of it is missing"),
        (format!("{key}x"), "letters too many"),
        (forged(&key), "a letter of it is wrong"),
    ];
    service.check(presenting(&key)).await.unwrap();
    let unknown = service.check(presenting(keys.draw().key.expose())).await.unwrap_err();
    assert_eq!(unknown.message(), "there is no such API key", "its tag is right");
    for (presented, told) in odd {
        let said = service.check(presenting(&presented)).await.unwrap_err();
        assert_eq!(said.code(), tonic::Code::Unauthenticated);
        assert!(said.message().contains(told), "{said:?}");
        let mut said = vec![said.message().to_owned()];
        let target = format!("/?key={}", encoded(&presented));
        let query = http::get("/auth", &[("x-forwarded-uri", target.as_str())]);
        said.push(http::send(service.auth, query).await.body);
        // HTTP has no line breaks in a header.
        if !presented.contains('\n') {
            let bearer = format!("Bearer {presented}");
            let cookie = format!("key={presented}");
            for header in
                [("x-api-key", presented.as_str()), ("authorization", &bearer), ("cookie", &cookie)]
            {
                let answer = http::send(service.auth, http::get("/auth", &[header])).await;
                assert_eq!(answer.status, 401);
                said.push(answer.body);
            }
        }
        for said in said {
            assert!(said.contains(told), "{said}");
            assert!(!said.contains(&key[8..24]), "{said}");
        }
    }
    let quoted = service.check(presenting(&format!("'{key}'"))).await.unwrap_err();
    assert!(quoted.message().contains("quotation marks around it"), "{quoted:?}");
    let bare = http::get("/auth", &[("authorization", &key), ("x-forwarded-uri", "/")]);
    let answer = http::send(service.auth, bare).await;
    assert_eq!((answer.status, answer.reason().as_str()), (401, "CREDENTIAL_MISSING"));
    assert!(answer.body.contains("names no scheme"), "{}", answer.body);
    let spaced = format!("  {key}\t");
    for header in [("x-api-key", spaced.as_str()), ("authorization", &format!("Bearer  {key} "))] {
        assert_eq!(http::send(service.auth, http::get("/auth", &[header])).await.status, 200);
    }
}
