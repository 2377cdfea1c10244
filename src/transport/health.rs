//! `grpc.health.v1`, for Kubernetes, Envoy and gRPC clients.

use std::collections::BTreeMap;

use super::health_pb::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
    health_check_response::ServingStatus,
    health_server::{self, HealthServer},
};
use crate::{instance::Instance, tasks::Tasks};
use futures::{StreamExt, stream, stream::BoxStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// The service names of the health service.
#[derive(Debug, Clone, Copy)]
pub struct HealthNames;

impl HealthNames {
    /// Names that are SERVING while this instance can give correct and useful answers: the server
    /// as a whole, and its check services.
    pub const READY: [&str; 3] = ["", "keystead.v1.Authz", "envoy.service.auth.v3.Authorization"];
    /// SERVING while the process can make progress.
    pub const LIVENESS: &str = "liveness";
    /// SERVING while the store answers. For dashboards, not for routing.
    pub const STORE: &str = "store";
}

/// The status of each name.
type Statuses = BTreeMap<&'static str, ServingStatus>;

/// Publishes the state of the instance through the health service.
#[derive(Debug)]
pub struct Health {
    statuses: watch::Sender<Statuses>,
    instance: Instance,
    tasks: Tasks,
}

impl Health {
    /// A health service for `instance`; the process is live as long as no loop of `tasks` has died.
    /// The statuses are correct from the start.
    #[must_use]
    pub fn new(instance: Instance, tasks: Tasks) -> Self {
        let health = Self { statuses: watch::Sender::default(), instance, tasks };
        health.report();
        health
    }

    /// The gRPC service, which reads messages of at most `max_message_bytes`.
    pub(super) fn service(&self, max_message_bytes: usize) -> HealthServer<HealthService> {
        let service = HealthService(self.statuses.subscribe());
        HealthServer::new(service).max_decoding_message_size(max_message_bytes)
    }

    /// Publishes every change until `draining` is cancelled.
    ///
    /// The watch streams then end: a watcher never leaves by itself, and a drain would wait for it.
    pub async fn follow(self, draining: CancellationToken) {
        let mut updates = self.instance.subscribe();
        loop {
            updates.mark_unchanged();
            self.report();
            tokio::select! {
                // Publish changes before draining ends the watch streams.
                biased;
                changed = updates.changed() => if changed.is_err() {
                    return;
                },
                () = self.tasks.broken(), if !self.tasks.is_broken() => {}
                () = draining.cancelled() => return,
            }
        }
    }

    /// Publishes the current statuses. Watchers wake up only when one has changed.
    fn report(&self) {
        let standing = self.instance.standing();
        let others = [
            (HealthNames::LIVENESS, !self.tasks.is_broken()),
            (HealthNames::STORE, standing.store_is_well()),
        ];
        let ready = HealthNames::READY.map(|name| (name, standing.state.serves()));
        let current = ready.into_iter().chain(others).map(|(name, serves)| {
            let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
            (name, status)
        });
        let current: Statuses = current.collect();
        self.statuses.send_if_modified(|statuses| {
            let changed = *statuses != current;
            *statuses = current;
            changed
        });
    }
}

/// `grpc.health.v1.Health`. A watch of an unknown name receives `SERVICE_UNKNOWN` and stays open, as
/// the protocol requires.
#[derive(Debug, Clone)]
pub(super) struct HealthService(watch::Receiver<Statuses>);

#[tonic::async_trait]
impl health_server::Health for HealthService {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = self.0.borrow().get(request.get_ref().service.as_str()).copied();
        let status = status.ok_or_else(|| Status::not_found("service not registered"))?;
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let statuses = self.0.borrow().clone().into_iter();
        let statuses = statuses
            .map(|(name, status)| (name.to_owned(), HealthCheckResponse { status: status.into() }));
        Ok(Response::new(HealthListResponse { statuses: statuses.collect() }))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let name = request.into_inner().service;
        let start = (self.0.clone(), None, name);
        let responses = stream::unfold(start, async |(mut statuses, sent, name)| {
            let is_new = |statuses: &Statuses| sent != Some(of(statuses, &name));
            let status = of(&*statuses.wait_for(is_new).await.ok()?, &name);
            let response = HealthCheckResponse { status: status.into() };
            Some((Ok(response), (statuses, Some(status), name)))
        });
        Ok(Response::new(responses.boxed()))
    }
}

fn of(statuses: &Statuses, name: &str) -> ServingStatus {
    statuses.get(name).copied().unwrap_or(ServingStatus::ServiceUnknown)
}
