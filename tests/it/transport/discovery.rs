//! What can be called here, as `grpcurl` finds out.

use futures::{StreamExt, stream};
use prost::Message;
use prost_types::FileDescriptorProto;
use tonic::Code::{self, InvalidArgument, NotFound};
use tonic_reflection::pb::{
    v1::{
        ErrorResponse, ExtensionRequest, ServerReflectionRequest,
        server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    },
    v1alpha,
};

use crate::harness::{
    app::Service,
    backend::{Backend, Embedded},
    fixture::Fixture,
};

/// Asks in one stream, and holds that each is answered.
async fn ask_all<const N: usize>(
    service: &Service,
    requests: [Option<MessageRequest>; N],
) -> [MessageResponse; N] {
    let requests = requests.map(|message_request| ServerReflectionRequest {
        host: "here".to_owned(),
        message_request,
    });
    let mut client = ServerReflectionClient::new(service.channel());
    let answers = client.server_reflection_info(stream::iter(requests.clone())).await.unwrap();
    let answers: Vec<_> = answers.into_inner().map(Result::unwrap).collect().await;
    let answers = answers.into_iter().zip(requests).map(|(answer, request)| {
        assert_eq!(answer.valid_host, "here");
        assert_eq!(answer.original_request, Some(request));
        answer.message_response.unwrap()
    });
    answers.collect::<Vec<_>>().try_into().unwrap()
}

async fn ask(service: &Service, request: MessageRequest) -> MessageResponse {
    let [answer] = ask_all(service, [Some(request)]).await;
    answer
}

/// The file that an answer holds.
fn file(answer: &MessageResponse) -> FileDescriptorProto {
    let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("{answer:?}") };
    let [file] = &files.file_descriptor_proto[..] else { panic!("{files:?}") };
    FileDescriptorProto::decode(&file[..]).unwrap()
}

fn symbol(name: &str) -> MessageRequest {
    MessageRequest::FileContainingSymbol(name.to_owned())
}

#[tokio::test]
async fn reflection_lists_every_service_that_is_offered() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    let answer = ask(service, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort_unstable();
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "keystead.v1.Authz",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn reflection_describes_every_kind_of_symbol_and_every_file_that_one_needs() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    let symbols = [
        ("keystead.v1.Authz", "keystead/v1/authz.proto"),
        ("keystead.v1.Authz.Check", "keystead/v1/authz.proto"),
        ("keystead.v1.CheckResponse", "keystead/v1/authz.proto"),
        ("keystead.v1.CheckResponse.key_id", "keystead/v1/authz.proto"),
        ("keystead.v1.CheckResponse.MetadataEntry", "keystead/v1/authz.proto"),
        ("keystead.v1.Freshness", "keystead/v1/authz.proto"),
        ("keystead.v1.FRESHNESS_FRESH", "keystead/v1/authz.proto"),
        ("grpc.health.v1.Health.List", "grpc/health/v1/health.proto"),
        ("grpc.health.v1.HealthCheckResponse.SERVING", "grpc/health/v1/health.proto"),
        ("google.rpc.ErrorInfo", "error_details.proto"),
    ];
    for (name, expected) in symbols {
        let file = file(&ask(service, symbol(name)).await);
        assert!(file.name().ends_with(expected), "{name} is in {}", file.name());
        for needed in file.dependency {
            let answer = ask(service, MessageRequest::FileByFilename(needed.clone())).await;
            assert_eq!(self::file(&answer).name(), needed);
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_answered_in_a_reflection_stream_that_goes_on() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    let message = "keystead.v1.CheckRequest".to_owned();
    let extension = ExtensionRequest { containing_type: message.clone(), extension_number: 1 };
    let answers = ask_all(
        service,
        [
            Some(symbol("keystead.v1.Nothing")),
            Some(MessageRequest::FileByFilename("nothing.proto".to_owned())),
            Some(MessageRequest::FileContainingExtension(extension)),
            Some(MessageRequest::AllExtensionNumbersOfType("keystead.v1.Nothing".to_owned())),
            None,
            // There is more to Envoy's own than what is read of it here.
            Some(symbol("envoy.service.auth.v3.Authorization")),
            Some(MessageRequest::AllExtensionNumbersOfType(message)),
            Some(symbol("keystead.v1.Authz")),
        ],
    )
    .await;
    let [.., no_extensions, authz] = &answers;
    assert_eq!(file(authz).name(), "keystead/v1/authz.proto");
    assert!(matches!(no_extensions, MessageResponse::AllExtensionNumbersResponse(_)));
    let codes = answers[..6].iter().map(|answer| {
        let MessageResponse::ErrorResponse(ErrorResponse { error_code, .. }) = answer else {
            panic!("{answer:?}")
        };
        Code::from_i32(*error_code)
    });
    let expected = [NotFound, NotFound, NotFound, NotFound, InvalidArgument, NotFound];
    assert!(codes.eq(expected));
}

#[tokio::test]
async fn older_version_of_reflection_answers_alike() {
    use v1alpha::{
        server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    let message_request =
        Some(MessageRequest::FileContainingSymbol("keystead.v1.Authz".to_owned()));
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request };
    let mut client = ServerReflectionClient::new(service.channel());
    let answers = client.server_reflection_info(stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().next().await.unwrap().unwrap();
    let Some(MessageResponse::FileDescriptorResponse(files)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let file = FileDescriptorProto::decode(&files.file_descriptor_proto[0][..]).unwrap();
    assert_eq!(file.name(), "keystead/v1/authz.proto");
}
