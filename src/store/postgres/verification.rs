//! Verifies which server the URL leads to: repeatedly, each time over a new connection, while
//! the follower keeps its own.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    PostgresStore,
    dial::{Dialer, Driven},
    witness::{Server, Servers},
};
use crate::{tasks::Tasks, time::jittered};

/// Jitter that spreads the verifications of several instances.
const JITTER: f64 = 0.1;

/// Minimum interval between verifications, even on demand.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);

/// Result of a verification.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof {
    /// When the URL last led to the followed server, or to one that has not superseded it.
    pub(super) verified_at: Instant,
    /// Whether it leads to a different server.
    pub(super) is_other: bool,
    /// Whether that is a primary.
    pub(super) is_primary: bool,
}

/// Verifies for as long as its follower lives.
pub(super) struct Verification {
    dialer: Dialer,
    servers: Arc<Servers>,
    followed: Server,
    every: Duration,
    remedy: Arc<str>,
    tasks: Tasks,
    proof: watch::Sender<Proof>,
}

impl Verification {
    /// Starts for a follower whose connection was made at `dialled_at`.
    pub(super) fn begin(
        store: &PostgresStore,
        followed: Server,
        dialled_at: Instant,
    ) -> watch::Receiver<Proof> {
        let (proof, outcome) =
            watch::channel(Proof { verified_at: dialled_at, is_other: false, is_primary: false });
        let verification = Self {
            dialer: store.dialer.clone(),
            servers: Arc::clone(&store.servers),
            followed,
            every: store.max_lag / 2,
            remedy: Arc::clone(&store.remedy),
            tasks: store.tasks.clone(),
            proof,
        };
        store.tasks.spawn_until_stopped("verify", verification.run());
        outcome
    }

    async fn run(self) {
        loop {
            sleep(SHORTEST_PAUSE.min(self.every)).await;
            tokio::select! {
                () = self.proof.closed() => return,
                () = self.servers.recheck.notified() => {}
                () = sleep(jittered(self.every, JITTER).saturating_sub(SHORTEST_PAUSE)) => {}
            }
            tokio::select! {
                () = self.proof.closed() => return,
                () = self.verify() => {}
            }
        }
    }

    async fn verify(&self) {
        let queried_at = Instant::now();
        let drive = |connection: Driven| {
            self.tasks.spawn_until_stopped("verify", async move {
                let _ = connection.await;
            });
        };
        let registered = match self.dialer.dial(&self.remedy, drive).await {
            Ok((_, server)) => self.servers.register(server).map(|()| server),
            Err(error) => Err(error),
        };
        match registered {
            Ok(server) => {
                let is_other = server.process.started != self.followed.process.started;
                let is_primary = server.process.timeline.is_some();
                self.proof.send_replace(Proof { verified_at: queried_at, is_other, is_primary });
            }
            Err(error) => tracing::debug!(%error, "could not verify which server the URL leads to"),
        }
    }
}
