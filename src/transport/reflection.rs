//! `grpc.reflection.v1.ServerReflection` and its older version, for `grpcurl`, Postman and similar
//! clients. A request for something unknown gets an error response, and the stream goes on.
//! <https://github.com/grpc/grpc/blob/master/doc/server-reflection.md>

use std::{collections::HashMap, sync::Arc};

use axum::Router;
use futures::{StreamExt, stream::BoxStream};
use http::Uri;
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::{
    v1::{
        self, ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
        ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
        server_reflection_request::MessageRequest,
        server_reflection_response::MessageResponse,
        server_reflection_server::{ServerReflection, ServerReflectionServer},
    },
    v1alpha,
};
use tower::ServiceExt;

/// Paths of the only method. Both versions have the same wire format.
const V1: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const V1ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

/// Adds reflection to `router`. It describes `sets`, each an encoded `FileDescriptorSet`, and
/// itself. Reads messages of at most `max_message_bytes`.
pub(super) fn describe(
    router: Router,
    sets: &[&[u8]],
    max_message_bytes: usize,
) -> Result<Router, prost::DecodeError> {
    let mut descriptors = Descriptors::default();
    // Describe error details too, so that generic clients can decode them.
    let own = [v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET];
    for set in sets.iter().chain(&own).chain([&tonic_types::pb::FILE_DESCRIPTOR_SET]) {
        for file in FileDescriptorSet::decode(*set)?.file {
            descriptors.add(&file);
        }
    }
    let v1 = ServerReflectionServer::new(Reflection(Arc::new(descriptors)))
        .max_decoding_message_size(max_message_bytes);
    let v1alpha = v1.clone().map_request(|mut request: http::Request<_>| {
        *request.uri_mut() = Uri::from_static(V1);
        request
    });
    Ok(router.route_service(V1, v1).route_service(V1ALPHA, v1alpha))
}

/// All symbols and the files that define them.
#[derive(Debug, Default)]
struct Descriptors {
    services: Vec<String>,
    /// Encoded files, by name.
    files: HashMap<String, Vec<u8>>,
    /// The name of the defining file, by full symbol name.
    symbols: HashMap<String, String>,
}

impl Descriptors {
    /// Adds a file. The first of two files with the same name is kept.
    fn add(&mut self, file: &FileDescriptorProto) {
        if self.files.contains_key(file.name()) {
            return;
        }
        self.files.insert(file.name().to_owned(), file.encode_to_vec());
        let mut symbols = Symbols { file: file.name(), descriptors: self };
        for message in &file.message_type {
            symbols.message(file.package(), message);
        }
        for enumeration in &file.enum_type {
            symbols.enumeration(file.package(), enumeration);
        }
        for service in &file.service {
            let name = symbols.name(file.package(), service.name());
            for method in &service.method {
                symbols.name(&name, method.name());
            }
            symbols.descriptors.services.push(name);
        }
    }

    fn answer(&self, request: Option<&MessageRequest>) -> MessageResponse {
        let described = |file: Option<&Vec<u8>>, what, name| match file {
            Some(file) => MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                file_descriptor_proto: vec![file.clone()],
            }),
            None => error(Code::NotFound, format!("there is no {what} `{name}`")),
        };
        match request {
            Some(MessageRequest::FileByFilename(name)) => {
                described(self.files.get(name), "file", name)
            }
            Some(MessageRequest::FileContainingSymbol(name)) => {
                let file = self.symbols.get(name).and_then(|file| self.files.get(file));
                described(file, "symbol", name)
            }
            Some(MessageRequest::FileContainingExtension(extension)) => {
                described(None, "extension of", &extension.containing_type)
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => {
                if !self.symbols.contains_key(name) {
                    return described(None, "type", name);
                }
                MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                    base_type_name: name.clone(),
                    extension_number: Vec::new(),
                })
            }
            Some(MessageRequest::ListServices(_)) => {
                let services = self.services.iter().cloned();
                MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: services.map(|name| ServiceResponse { name }).collect(),
                })
            }
            None => error(Code::InvalidArgument, "`message_request` is missing".to_owned()),
        }
    }
}

fn error(code: Code, error_message: String) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse { error_code: code.into(), error_message })
}

/// Registers the symbols of one file.
struct Symbols<'a> {
    file: &'a str,
    descriptors: &'a mut Descriptors,
}

impl Symbols<'_> {
    /// Registers `name` in `scope`, a package or an enclosing symbol. Returns its full name.
    fn name(&mut self, scope: &str, name: &str) -> String {
        let full = if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") };
        self.descriptors.symbols.insert(full.clone(), self.file.to_owned());
        full
    }

    fn message(&mut self, scope: &str, message: &DescriptorProto) {
        let scope = self.name(scope, message.name());
        for field in &message.field {
            self.name(&scope, field.name());
        }
        for oneof in &message.oneof_decl {
            self.name(&scope, oneof.name());
        }
        for enumeration in &message.enum_type {
            self.enumeration(&scope, enumeration);
        }
        for nested in &message.nested_type {
            self.message(&scope, nested);
        }
    }

    /// Registers an enum. Its values are siblings of the enum.
    fn enumeration(&mut self, scope: &str, enumeration: &EnumDescriptorProto) {
        self.name(scope, enumeration.name());
        for value in &enumeration.value {
            self.name(scope, value.name());
        }
    }
}

#[derive(Debug, Clone)]
struct Reflection(Arc<Descriptors>);

#[tonic::async_trait]
impl ServerReflection for Reflection {
    type ServerReflectionInfoStream = BoxStream<'static, Result<ServerReflectionResponse, Status>>;

    async fn server_reflection_info(
        &self,
        requests: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let descriptors = Arc::clone(&self.0);
        let responses = requests.into_inner().map(move |request| {
            let request = request?;
            Ok(ServerReflectionResponse {
                valid_host: request.host.clone(),
                message_response: Some(descriptors.answer(request.message_request.as_ref())),
                original_request: Some(request),
            })
        });
        Ok(Response::new(responses.boxed()))
    }
}
