//! What the network sees: gRPC, health, the admin HTTP listener, and the control
//! listener.
//!
//! Requests are decoded and answers encoded here; tonic, prost and axum types
//! go no further.

mod admin;
mod admission;
mod authz;
mod config;
mod control;
mod descriptors;
mod health;
mod refused;
mod routes;
mod server;
mod status;

pub use admin::{AdminState, admin_routes};
pub use admission::Admission;
pub use authz::AuthzService;
pub use config::{DrainConfig, GrpcConfig, ListenConfig};
pub use control::Control;
pub use health::{Health, HealthNames};
pub use routes::{ReflectionError, control_routes, routes};
pub use server::{Listener, Protocol};
pub(crate) use status::code_name;

/// The messages and services of `proto/`, as compiled by the build script.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the documentation is in proto/"
)]
pub mod pb {
    tonic::include_proto!("keystead.v1");

    /// All descriptors, for reflection.
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("keystead.v1");
}
