//! The services of the data listener and of the control listener.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use axum::Router;
use http::{Request, Response};
use tonic::{body::Body, service::Routes};
use tower::{Service, util::MapResponseLayer};

use super::{
    Admission, AuthzService, Control, CredentialSources, ExtAuthzConfig, ExtAuthzService,
    GrpcConfig, Health, health_pb, pb, reflection, rejection,
    server::RequestBody,
    unary::{ResponseFuture, UnaryService},
};
use crate::{store::Lookups, telemetry::Metrics, tier::Tier, time::Clock};

/// Configuration of the data listener's services.
#[derive(Debug, Clone)]
pub struct DataConfig {
    /// The limits of a connection.
    pub grpc: GrpcConfig,
    /// Where Envoy's requests carry their keys.
    pub sources: CredentialSources,
    /// Configuration of the surface for Envoy.
    pub ext_authz: ExtAuthzConfig,
}

/// The services of the data listener: the two methods that decide about keys, and
/// `grpc.health.v1.Health` and reflection. Clones share them.
///
/// The two methods are matched by path, without a router: every check goes through one of them.
pub struct DataService<T> {
    authz: UnaryService<AuthzService<T>>,
    envoy: UnaryService<ExtAuthzService<T>>,
    others: Router,
}

impl<T: Tier> DataService<T> {
    /// Creates the services. Refusals by the transport and by services from libraries carry a
    /// `google.rpc.ErrorInfo` too.
    pub fn new(
        admission: Arc<Admission<T>>,
        metrics: &Arc<Metrics>,
        health: &Health,
        config: DataConfig,
        clock: Clock,
    ) -> Result<Self, prost::DecodeError> {
        let DataConfig { grpc, sources, ext_authz } = config;
        let max_message_bytes = grpc.max_message_bytes.get();
        let envoy = ExtAuthzService::new(
            Arc::clone(&admission),
            metrics,
            clock.clone(),
            sources,
            ext_authz,
        )
        .serve(max_message_bytes);
        let authz = AuthzService::serve(admission, metrics, clock, max_message_bytes);
        let services = Routes::default().add_service(health.service(max_message_bytes));
        let described = [pb::AUTHZ_DESCRIPTORS, health_pb::DESCRIPTORS];
        let others = reflection::describe(
            services.prepare().into_axum_router(),
            &described,
            max_message_bytes,
        )?;
        let completing = MapResponseLayer::new(rejection::complete);
        Ok(Self { authz, envoy, others: others.layer(completing) })
    }
}

/// Path prefixes of the services of which one method is served here.
const AUTHZ: &str = "/keystead.v1.Authz/";
const ENVOY: &str = "/envoy.service.auth.v3.Authorization/";

const NO_SUCH_METHOD: &str = "there is no such method";

impl<T: Tier> Service<Request<RequestBody>> for DataService<T> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        match request.uri().path() {
            AuthzService::<T>::PATH => self.authz.call(request),
            ExtAuthzService::<T>::PATH => self.envoy.call(request),
            path if path.starts_with(AUTHZ) => self.authz.unimplemented(NO_SUCH_METHOD),
            path if path.starts_with(ENVOY) => self.envoy.unimplemented(NO_SUCH_METHOD),
            _ => {
                let response = self.others.call(request);
                Box::pin(async { Ok(response.await?.map(Body::new)) })
            }
        }
    }
}

impl<T> Clone for DataService<T> {
    fn clone(&self) -> Self {
        let Self { authz, envoy, others } = self;
        Self { authz: authz.clone(), envoy: envoy.clone(), others: others.clone() }
    }
}

impl<T> fmt::Debug for DataService<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataService").finish_non_exhaustive()
    }
}

/// The routes of the control listener: `keystead.v1.Diagnostics` and reflection.
pub fn control_routes<T: Tier, S: Lookups>(
    control: Control<T, S>,
    metrics: &Arc<Metrics>,
    config: GrpcConfig,
) -> Result<Router, prost::DecodeError> {
    let max_message_bytes = config.max_message_bytes.get();
    let services = control.routes(metrics, max_message_bytes);
    let router = services.prepare().into_axum_router();
    let described = [pb::DIAGNOSTICS_DESCRIPTORS];
    let router = reflection::describe(router, &described, max_message_bytes)?;
    Ok(router.layer(MapResponseLayer::new(rejection::complete)))
}
