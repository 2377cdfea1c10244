//! How long a revocation takes to be felt, measured all the time: a change that
//! changes no key is written, and comes back the way of all others.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    guard::Guarded,
    key::Digest,
    store::{Store, StoreError, StoreErrorKind},
    telemetry::Metrics,
    time::{Clock, jittered},
};

/// How far the canaries of several instances are spread.
const JITTER: f64 = 0.1;

/// How long a canary is waited for. Healthy is some milliseconds; what takes
/// longer than this is a feed that does not work.
const PATIENCE: Duration = Duration::from_secs(5);

/// As how long a canary counts that was not back by then: the greatest bound of
/// the histogram.
const LOST: Duration = Duration::from_mins(1);

/// The canary that is out.
#[derive(Debug, Clone, Copy, Default)]
struct Flight {
    token: Option<Digest>,
    /// When it was seen and all changes before it had been applied.
    back: Option<Instant>,
}

/// Where the feed tells what it has seen.
#[derive(Debug)]
pub(super) struct CanaryWatch {
    flight: watch::Sender<Flight>,
    connections: watch::Sender<u64>,
    clock: Clock,
}

/// Writes canaries and measures how long they take.
#[derive(Debug)]
pub(super) struct Canary<S> {
    store: Arc<Guarded<S>>,
    every: Duration,
    metrics: Arc<Metrics>,
    clock: Clock,
    flight: watch::Sender<Flight>,
    back: watch::Receiver<Flight>,
    connections: watch::Receiver<u64>,
    /// Whether the last one was lost, which has been told.
    lost: bool,
}

/// A canary every now and then, and where the feed tells that it has seen it.
pub(super) fn canary<S>(
    store: Arc<Guarded<S>>,
    every: Duration,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> (CanaryWatch, Canary<S>) {
    let (flight, back) = watch::channel(Flight::default());
    let (connections, connected) = watch::channel(0);
    let seen = CanaryWatch { flight: flight.clone(), connections, clock: clock.clone() };
    let connections = connected;
    (seen, Canary { store, every, metrics, clock, flight, back, connections, lost: false })
}

impl CanaryWatch {
    /// The feed has connected.
    pub(super) fn connected(&self) {
        self.connections.send_modify(|count| *count += 1);
    }

    /// These canaries were seen, and all changes before them have been applied.
    pub(super) fn seen(&self, tokens: &[Digest]) {
        self.flight.send_if_modified(|flight| {
            let ours = flight.token.is_some_and(|token| tokens.contains(&token));
            if ours {
                *flight = Flight { token: None, back: Some(self.clock.monotonic()) };
            }
            ours
        });
    }
}

impl<S: Store> Canary<S> {
    /// Measures for ever, from the first connection of the feed on. Where
    /// canaries cannot be written, it is tried again when the feed connects anew:
    /// it may be to another server.
    pub(super) async fn run(mut self) {
        while self.connections.wait_for(|count| *count > 0).await.is_ok() {
            sleep(jittered(self.every, JITTER)).await;
            self.connections.mark_unchanged();
            let Err(error) = self.measure().await else { continue };
            if is_refusal(error.kind()) {
                let (cause, detail) = (error.kind(), error.detail());
                tracing::info!(
                    %cause, detail,
                    "canaries cannot be written, so that it is not measured how soon a revocation \
                     is felt; revocations work all the same"
                );
                if self.connections.changed().await.is_err() {
                    return;
                }
            } else {
                tracing::debug!(%error, "a canary was not written");
            }
        }
    }

    /// Writes one, and waits until it is back. Passed over while the store is
    /// busy: misses come first.
    async fn measure(&mut self) -> Result<(), StoreError> {
        let Some(place) = self.store.try_enter() else { return Ok(()) };
        let token = random_token()?;
        self.flight.send_replace(Flight { token: Some(token), back: None });
        let sent = self.clock.monotonic();
        let written = place.run(async |store: &S| store.canary(&token).await).await;
        match written {
            // It may have been written all the same, and then comes back.
            Err(error) if error.kind() == StoreErrorKind::Timeout => {
                if let Some(back) = self.back(sent).await {
                    self.metrics.revocation_took(back - sent);
                }
                Err(error)
            }
            Err(error) => Err(error),
            Ok(()) => {
                let back = self.back(sent).await;
                self.note(back.map(|back| back - sent));
                Ok(())
            }
        }
    }

    async fn back(&mut self, sent: Instant) -> Option<Instant> {
        let back = self.back.wait_for(|flight| flight.back.is_some());
        timeout_at(sent + PATIENCE, back).await.ok()?.ok()?.back
    }

    fn note(&mut self, took: Option<Duration>) {
        self.metrics.revocation_took(took.unwrap_or(LOST));
        match (took, self.lost) {
            (None, false) => {
                let after = humantime::format_duration(PATIENCE);
                tracing::warn!(%after, "a change that was written has not reached this instance");
            }
            (Some(took), true) => {
                let took = humantime::format_duration(took);
                tracing::info!(%took, "changes that are written reach this instance again");
            }
            (None, true) | (Some(_), false) => {}
        }
        self.lost = took.is_none();
    }
}

/// Whether trying again is no use: a right or the function is missing, or the
/// server takes no changes at all.
const fn is_refusal(kind: StoreErrorKind) -> bool {
    match kind {
        StoreErrorKind::Forbidden | StoreErrorKind::Schema => true,
        StoreErrorKind::Unreachable
        | StoreErrorKind::Timeout
        | StoreErrorKind::Saturated
        | StoreErrorKind::Unreadable
        | StoreErrorKind::Lagging
        | StoreErrorKind::Blocked => false,
    }
}

fn random_token() -> Result<Digest, StoreError> {
    let mut token = [0; Digest::LEN];
    getrandom::fill(&mut token).map_err(|reason| {
        StoreError::new(StoreErrorKind::Unreachable, format!("no random numbers: {reason}"))
    })?;
    Ok(Digest::from_bytes(token))
}
