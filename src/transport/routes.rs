//! All services of the data listener and of the control listener, put together.

use std::sync::Arc;

use axum::Router;
use tower::util::MapResponseLayer;

use super::{Admission, AuthzService, Control, GrpcConfig, Health, descriptors, refused};
use crate::{store::Store, telemetry::Metrics, tier::Tier, time::Clock};

/// The descriptors of the services cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reflection cannot be set up: {0}")]
pub struct ReflectionError(#[from] tonic_reflection::server::Error);

/// `keystead.v1.Authz`, `grpc.health.v1.Health` and reflection.
///
/// Whatever is refused before it reaches a service, or by a service that is not
/// ours, carries a `google.rpc.ErrorInfo` too.
pub fn routes<T: Tier>(
    admission: Arc<Admission<T>>,
    metrics: Arc<Metrics>,
    health: &Health,
    config: GrpcConfig,
    clock: Clock,
) -> Result<Router, ReflectionError> {
    let services = AuthzService::routes(admission, metrics, clock, config.max_message_bytes.get())
        .add_service(health.service())
        .add_service(reflection("Explain")?.build_v1()?)
        .add_service(reflection("Explain")?.build_v1alpha()?);
    let completing = MapResponseLayer::new(refused::complete);
    Ok(services.prepare().into_axum_router().layer(completing))
}

/// `keystead.v1.Authz/Explain` and reflection, for the control listener.
pub fn control_routes<T: Tier, S: Store>(
    control: Control<T, S>,
    metrics: Arc<Metrics>,
    config: GrpcConfig,
) -> Result<Router, ReflectionError> {
    let services = control
        .routes(metrics, config.max_message_bytes.get())
        .add_service(reflection("Check")?.build_v1()?)
        .add_service(reflection("Check")?.build_v1alpha()?);
    let completing = MapResponseLayer::new(refused::complete);
    Ok(services.prepare().into_axum_router().layer(completing))
}

/// Both versions of the protocol are asked for: grpcurl and Postman speak the
/// older one too. What is not served here, `unserved` of `keystead.v1.Authz`, is
/// not described as if it were.
fn reflection(
    unserved: &str,
) -> Result<tonic_reflection::server::Builder<'static>, ReflectionError> {
    Ok(tonic_reflection::server::Builder::configure()
        .register_file_descriptor_set(descriptors::without(unserved)?)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // So that a client that knows nothing of us can read why it was refused.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET))
}
