//! What can be called here, as `grpcurl` finds out.

use futures::{StreamExt, stream};
use tonic::{Code, Status};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::harness::{
    app::Service,
    backend::{Backend, Embedded},
    bench::Bench,
};

async fn ask(service: &Service, request: MessageRequest) -> MessageResponse {
    answer(service, request).await.unwrap()
}

async fn answer(service: &Service, request: MessageRequest) -> Result<MessageResponse, Status> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut client = ServerReflectionClient::new(service.channel());
    let answers = client.server_reflection_info(stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().next().await.unwrap()?;
    Ok(answer.message_response.unwrap())
}

#[tokio::test]
async fn reflection_lists_every_service_that_is_offered() {
    let Bench { service, .. } = &Bench::new(Embedded::start().await).await;
    let answer = ask(service, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort_unstable();
    let reflection = "grpc.reflection.v1.ServerReflection".to_owned();
    names.retain(|name| !name.starts_with("grpc.reflection.v1alpha"));
    assert_eq!(
        names,
        ["grpc.health.v1.Health".to_owned(), reflection, "keystead.v1.Authz".to_owned()]
    );
}

#[tokio::test]
async fn reflection_describes_the_method_with_all_that_it_needs() {
    let Bench { service, .. } = &Bench::new(Embedded::start().await).await;
    for symbol in ["keystead.v1.Authz", "keystead.v1.Authz.Check", "keystead.v1.CheckResponse"] {
        let answer = ask(service, MessageRequest::FileContainingSymbol(symbol.to_owned())).await;
        let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("{answer:?}") };
        assert!(!files.file_descriptor_proto.is_empty(), "{symbol}");
    }
}

#[tokio::test]
async fn reflection_does_not_describe_our_part_of_envoys_messages_as_the_whole() {
    let Bench { service, .. } = &Bench::new(Embedded::start().await).await;
    for symbol in ["envoy.service.auth.v3.Authorization", "envoy.service.auth.v3.CheckRequest"] {
        let asked = answer(service, MessageRequest::FileContainingSymbol(symbol.to_owned()));
        assert_eq!(asked.await.unwrap_err().code(), Code::NotFound, "{symbol}");
    }
}
