//! Requests that make no sense.

use keystead::transport::pb::CheckRequest;
use tonic::{
    Code::{InvalidArgument, Unimplemented},
    Status,
};

use super::{counted_once, is_row, refused};
use crate::harness::{
    app::{Service, presenting},
    backend::{Backend, Embedded},
    fixture::Fixture,
    keys::of_acme,
    refusal::Refusal,
    wire::{CHECK, Wire, framed},
};

/// Sends bytes as the body of a call.
async fn send(service: &Service, path: &str, encoding: &str, bytes: Vec<u8>) -> Status {
    let mut wire = Wire::connect(service.grpc).await;
    wire.send(path, &[("grpc-encoding", encoding)], bytes.into()).await.unwrap().status()
}

#[tokio::test]
async fn malformed_request_is_invalid_whatever_the_key() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    let valid = presenting(&key.text);
    let scopes = |scopes: Vec<String>| CheckRequest { required_scopes: scopes, ..valid.clone() };
    let client_ip = |ip: &str| CheckRequest { client_ip: ip.to_owned(), ..valid.clone() };
    let nonsense = [
        client_ip("10.1.2.3:80"),
        client_ip("10.1.2"),
        client_ip("localhost"),
        client_ip("[::1]"),
        client_ip(" "),
        scopes(vec!["read".to_owned(); 65]),
        scopes(vec![String::new()]),
        scopes(vec!["x".repeat(257)]),
        CheckRequest { audience: "x".repeat(257), ..valid.clone() },
        CheckRequest { client_ip: "x".to_owned(), ..CheckRequest::default() },
    ];
    for request in nonsense {
        refused(service, request, (InvalidArgument, "REQUEST_INVALID"), &[]).await;
    }
    service.check(valid).await.unwrap();
}

#[tokio::test]
async fn message_over_the_limit_is_invalid_and_one_at_the_limit_is_not() {
    let Fixture { service, config, .. } = &Fixture::new(Embedded::start().await).await;
    let limit = config.grpc.max_message_bytes.get();
    assert_eq!(limit, 64 * 1024);
    // A field of this length has a header of four bytes.
    let of_length = |bytes: usize| presenting(&"x".repeat(bytes - 4));
    let at_limit = (tonic::Code::Unauthenticated, "CREDENTIAL_MALFORMED");
    refused(service, of_length(limit), at_limit, &[]).await;
    for bytes in [limit + 1, 10 * limit] {
        refused(service, of_length(bytes), (InvalidArgument, "REQUEST_INVALID"), &[]).await;
    }
}

#[tokio::test]
async fn bytes_that_are_no_request_are_invalid() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    let bodies = [
        // A text that ends before its length says, a number where a text
        // belongs, a text that is not UTF-8, and noise.
        framed(false, &[0x0a, 9, b'x']),
        framed(false, &[0x08, 1]),
        framed(false, &[0x0a, 1, 0xff]),
        framed(false, &[0xff; 32]),
        // A frame that says it is compressed, and one that is cut off.
        framed(true, &[0x0a, 1, b'x']),
        framed(false, &[0x0a, 1, b'x'])[..6].to_vec(),
        // No message at all.
        Vec::new(),
    ];
    for body in bodies {
        let before = service.admin.scrape().await;
        let refusal = Refusal::of(&send(service, CHECK, "identity", body).await);
        is_row(&refusal, (InvalidArgument, "REQUEST_INVALID"), &[]);
        let after = service.admin.scrape().await;
        counted_once(&before, &after, (InvalidArgument, "REQUEST_INVALID"));
    }
}

#[tokio::test]
async fn unknown_service_or_method_is_unimplemented_with_details() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    let calls = [("/keystead.v1.Authz/Guess", "identity"), (CHECK, "gzip")];
    for (path, encoding) in calls {
        let before = service.admin.scrape().await;
        let status = send(service, path, encoding, framed(true, b"x")).await;
        let row = (Unimplemented, "REQUEST_INVALID");
        is_row(&Refusal::of(&status), row, &[]);
        counted_once(&before, &service.admin.scrape().await, row);
    }
}
