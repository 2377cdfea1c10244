//! Who answers behind the name in the URL: asked again and again, over a new
//! connection each time, while the one of a follower lives on.

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

/// How far the questions of several instances are spread.
const JITTER: f64 = 0.1;

/// The shortest pause between two questions, also when somebody has doubts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);

/// What has come of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof {
    /// When the name was last known to lead to the server that is followed, or to
    /// another one that has not taken over from it.
    pub(super) verified_at: Instant,
    /// Another server than the one that is followed answers there.
    pub(super) is_other: bool,
    /// A primary does.
    pub(super) is_primary: bool,
}

/// Asks for as long as its follower lives.
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
    /// Begins for a follower whose connection was made at `dialled_at`.
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
                () = self.servers.doubted.notified() => {}
                () = sleep(jittered(self.every, JITTER).saturating_sub(SHORTEST_PAUSE)) => {}
            }
            tokio::select! {
                () = self.proof.closed() => return,
                () = self.ask() => {}
            }
        }
    }

    async fn ask(&self) {
        let asked_at = Instant::now();
        let drive = |connection: Driven| {
            self.tasks.spawn_until_stopped("verify", async move {
                let _ = connection.await;
            });
        };
        let met = match self.dialer.dial(&self.remedy, drive).await {
            Ok((_, server)) => self.servers.meet(server).map(|()| server),
            Err(error) => Err(error),
        };
        match met {
            Ok(server) => {
                let is_other = server.process.started != self.followed.process.started;
                let is_primary = server.process.timeline.is_some();
                self.proof.send_replace(Proof { verified_at: asked_at, is_other, is_primary });
            }
            Err(error) => tracing::debug!(%error, "who answers behind the name was not told"),
        }
    }
}
