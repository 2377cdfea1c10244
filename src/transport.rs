//! The network surfaces: gRPC (Keystead's own API and Envoy's), forward-auth over HTTP, health, the
//! admin HTTP listener, and the control listener.
//!
//! This module decodes requests and encodes responses; tonic, prost and axum types stay inside it.

mod admin;
mod admission;
mod authz;
mod config;
mod control;
mod ext_authz;
mod forward_auth;
mod health;
mod needs;
mod proxied;
mod reflection;
mod rejection;
mod routes;
mod server;
mod status;
mod surface;
mod unary;
mod wire;

pub use admin::{AdminState, Scrapes, admin_routes};
pub use admission::Admission;
pub use authz::AuthzService;
pub use config::{DrainConfig, GrpcConfig, ListenConfig};
pub use control::Control;
pub use ext_authz::ExtAuthzService;
pub use forward_auth::auth_routes;
pub use health::{Health, HealthNames};
pub use proxied::{
    CredentialConfig, CredentialSources, ExtAuthzConfig, ForwardAuthConfig, OnOutage, SourcesError,
};
pub use routes::{DataConfig, DataService, control_routes};
pub use server::{BodyError, Budget, Listener, Protocol, RequestBody, Serves, Workers};
pub(crate) use status::code_name;
pub use unary::UnaryService;

pub use generated::{envoy_pb, health_pb, pb};

/// The messages and services of `proto/`, as compiled by the build script.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the documentation is in proto/"
)]
mod generated {
    /// `keystead.v1`.
    pub mod pb {
        tonic::include_proto!("keystead.v1");

        /// File descriptor set of the service.
        pub const AUTHZ_DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("authz");
        pub const DIAGNOSTICS_DESCRIPTORS: &[u8] =
            tonic::include_file_descriptor_set!("diagnostics");
    }

    /// `grpc.health.v1`.
    pub mod health_pb {
        tonic::include_proto!("grpc.health.v1");

        /// File descriptor set of the service.
        pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("health");
    }

    /// The subset of Envoy's messages that Keystead reads and writes. Not offered by reflection,
    /// because Envoy's own definitions are larger.
    pub mod envoy_pb {
        tonic::include_proto!("envoy.service.auth.v3");
    }
}
