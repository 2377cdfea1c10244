//! All services of the data listener and of the control listener, put together.

use std::sync::Arc;

use axum::Router;
use tower::util::MapResponseLayer;

use super::{
    Admission, AuthzService, Control, CredentialSources, ExtAuthzConfig, ExtAuthzService,
    GrpcConfig, Health, descriptors, refused,
};
use crate::{store::Store, telemetry::Metrics, tier::Tier, time::Clock};

/// The descriptors of the services cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reflection cannot be set up: {0}")]
pub struct ReflectionError(#[from] tonic_reflection::server::Error);

/// How the services of the data listener are set up.
#[derive(Debug, Clone)]
pub struct DataConfig {
    /// The bounds of a connection.
    pub grpc: GrpcConfig,
    /// Where Envoy's requests carry their keys.
    pub sources: CredentialSources,
    /// How Envoy is answered.
    pub ext_authz: ExtAuthzConfig,
}

/// `keystead.v1.Authz`, `envoy.service.auth.v3.Authorization`,
/// `grpc.health.v1.Health` and reflection.
///
/// Whatever is refused before it reaches a service, or by a service that is not
/// ours, carries a `google.rpc.ErrorInfo` too.
pub fn routes<T: Tier>(
    admission: Arc<Admission<T>>,
    metrics: Arc<Metrics>,
    health: &Health,
    config: DataConfig,
    clock: Clock,
) -> Result<Router, ReflectionError> {
    let DataConfig { grpc, sources, ext_authz } = config;
    let max_message_bytes = grpc.max_message_bytes.get();
    let envoy = ExtAuthzService::new(
        Arc::clone(&admission),
        Arc::clone(&metrics),
        clock.clone(),
        sources,
        ext_authz,
    );
    let services = AuthzService::routes(admission, metrics, clock, max_message_bytes);
    let services = envoy
        .join(services, max_message_bytes)
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
