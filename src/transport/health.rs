//! `grpc.health.v1`, as seen by Kubernetes, Envoy and gRPC clients.

use std::collections::HashMap;
use tokio_util::sync::CancellationToken;

use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use crate::{ladder::Ladder, tasks::Tasks};

/// The names that the health service knows.
#[derive(Debug, Clone, Copy)]
pub struct HealthNames;

impl HealthNames {
    /// Names that are SERVING while this instance can answer honestly and
    /// usefully: the server as a whole, and its check services.
    pub const READY: [&str; 3] = ["", "keystead.v1.Authz", "envoy.service.auth.v3.Authorization"];
    /// SERVING while the process can make progress.
    pub const LIVENESS: &str = "liveness";
    /// SERVING while the store answers. For dashboards, not for routing.
    pub const STORE: &str = "store";
}

/// Keeps the health service true to the ladder.
#[derive(Debug)]
pub struct Health {
    reporter: HealthReporter,
    ladder: Ladder,
    tasks: Tasks,
    /// What was said last of each name.
    told: HashMap<&'static str, bool>,
}

impl Health {
    /// A health service that says how `ladder` stands, and that the process is
    /// alive as long as no loop of `tasks` has died. True from the first call.
    pub async fn new(ladder: Ladder, tasks: Tasks) -> Self {
        let mut health =
            Self { reporter: HealthReporter::new(), ladder, tasks, told: HashMap::new() };
        health.report().await;
        health
    }

    /// The service, which reads messages of at most so many bytes.
    pub(super) fn service(&self, max_message_bytes: usize) -> HealthServer<HealthService> {
        let service = HealthService::from_health_reporter(self.reporter.clone());
        HealthServer::new(service).max_decoding_message_size(max_message_bytes)
    }

    /// Follows every change until connections are asked to end.
    ///
    /// Then every name is forgotten, which ends the streams of those who watch
    /// one: a watcher never goes by itself, and a drain would wait for it.
    pub async fn follow(mut self, goodbye: CancellationToken) {
        let mut standings = self.ladder.subscribe();
        loop {
            standings.mark_unchanged();
            self.report().await;
            tokio::select! {
                // What has changed is told first.
                biased;
                changed = standings.changed() => if changed.is_err() {
                    return;
                },
                () = self.tasks.broken(), if !self.tasks.is_broken() => {}
                () = goodbye.cancelled() => break,
            }
        }
        let names = [HealthNames::LIVENESS, HealthNames::STORE];
        for name in HealthNames::READY.into_iter().chain(names) {
            self.reporter.clear_service_status(name).await;
        }
    }

    async fn report(&mut self) {
        let standing = self.ladder.standing();
        self.tell(HealthNames::LIVENESS, !self.tasks.is_broken()).await;
        self.tell(HealthNames::STORE, standing.store_is_well()).await;
        for name in HealthNames::READY {
            self.tell(name, standing.rung.serves()).await;
        }
    }

    /// Watchers are told of changes, and not again of what they know.
    async fn tell(&mut self, name: &'static str, serving: bool) {
        if self.told.insert(name, serving) != Some(serving) {
            let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
            self.reporter.set_service_status(name, status).await;
        }
    }
}
