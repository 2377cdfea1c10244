//! Canaries: continuous measurement of whether a revocation can be written and how long it
//! takes to propagate. A canary is a change of no key that takes the same path as every other
//! change.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    guard::{Guarded, Permit},
    instance::TierWatch,
    key::Digest,
    store::{CanaryError, Changes, Position, StoreError, StoreErrorKind},
    telemetry::Metrics,
    time::{Clock, jittered, rounded},
};

/// Jitter that spreads the canaries of several instances.
const JITTER: f64 = 0.1;

/// Maximum pause after a failed write, so that a second canary soon distinguishes a brief
/// failure from a lasting one.
const RETRY: Duration = Duration::from_secs(1);

/// Maximum wait for a permit. Lookups of a busy instance wait for a fraction of a second.
const TURN: Duration = Duration::from_secs(5);

/// Maximum wait for a canary to arrive. Healthy is a few milliseconds; beyond this, the feed
/// does not work.
const PATIENCE: Duration = Duration::from_secs(5);

/// Duration recorded for a lost canary: the highest bound of the histogram.
const LOST: Duration = Duration::from_mins(1);

/// The canary in flight.
#[derive(Debug, Clone, Copy, Default)]
struct Flight {
    token: Option<Digest>,
    /// When it arrived, with all earlier changes applied.
    back: Option<Instant>,
}

/// Receives what the feed has seen.
#[derive(Debug)]
pub(super) struct CanaryWatch {
    flight: watch::Sender<Flight>,
    connections: watch::Sender<u64>,
    clock: Clock,
}

/// Writes canaries and measures their propagation delay.
#[derive(Debug)]
pub(super) struct Canary<S> {
    store: Arc<Guarded<S>>,
    every: Duration,
    metrics: Arc<Metrics>,
    clock: Clock,
    flight: watch::Sender<Flight>,
    back: watch::Receiver<Flight>,
    connections: watch::Receiver<u64>,
    /// Whether the last one was lost, which has been logged.
    lost: bool,
    /// Health of the write path.
    watch: TierWatch,
    /// Position up to which this instance has applied changes.
    applied: watch::Receiver<Option<Position>>,
}

/// Dependencies of the canary.
#[derive(Debug)]
pub(super) struct CanaryParts<S> {
    pub(super) store: Arc<Guarded<S>>,
    pub(super) every: Duration,
    pub(super) watch: TierWatch,
    pub(super) applied: watch::Receiver<Option<Position>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
}

/// Creates a periodic canary and the handle with which the feed reports arrivals.
pub(super) fn canary<S>(parts: CanaryParts<S>) -> (CanaryWatch, Canary<S>) {
    let CanaryParts { store, every, watch, applied, metrics, clock } = parts;
    let (flight, back) = watch::channel(Flight::default());
    let (connections, connected) = watch::channel(0);
    let seen = CanaryWatch { flight: flight.clone(), connections, clock: clock.clone() };
    let connections = connected;
    let lost = false;
    let canary =
        Canary { store, every, metrics, clock, flight, back, connections, lost, watch, applied };
    (seen, canary)
}

impl CanaryWatch {
    /// Reports that the feed has connected.
    pub(super) fn connected(&self) {
        self.connections.send_modify(|count| *count += 1);
    }

    /// Reports these canaries as arrived, with all earlier changes applied.
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

impl<S: Changes> Canary<S> {
    /// Measures until cancelled, from the first connection of the feed on. After `ReadOnly`,
    /// waits until the feed reconnects, perhaps to another server.
    pub(super) async fn run(&mut self) {
        let (store, retry) = (Arc::clone(&self.store), RETRY.min(self.every));
        let mut pause = self.every;
        while self.connections.wait_for(|count| *count > 0).await.is_ok() {
            let applied = *self.applied.borrow();
            sleep(jittered(pause, JITTER)).await;
            self.connections.mark_unchanged();
            pause = retry;
            let turn = self.clock.monotonic() + TURN;
            let Ok(permit) = store.acquire(turn).await else { continue };
            match self.measure(permit).await {
                Ok(()) => pause = self.every,
                Err(CanaryError::Failed(error)) => self.failed(error, applied),
                Err(CanaryError::ReadOnly(detail)) => {
                    self.read_only(&detail);
                    pause = self.every;
                    if self.connections.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Marks the write path as absent.
    pub(super) fn absent(&mut self) {
        self.watch.absent();
    }

    fn read_only(&mut self, detail: &str) {
        self.absent();
        tracing::info!(
            detail,
            "canaries are not written here; neither the delay of revocations nor whether one can be \
             written is measured; revocations work all the same"
        );
    }

    /// `applied` is the position after the last canary. If changes have been applied since,
    /// whoever blocks this canary lets others through: the store is busy with writes and not
    /// stuck.
    fn failed(&mut self, error: StoreError, applied: Option<Position>) {
        let others_succeed = *self.applied.borrow() != applied;
        let is_stuck = error.kind() != StoreErrorKind::Blocked || !others_succeed;
        self.watch.observe(if is_stuck { Err(error) } else { Ok(()) });
    }

    /// Writes a canary and waits for it to arrive.
    async fn measure(&mut self, permit: Permit<'_, S>) -> Result<(), CanaryError> {
        let token = random_token()?;
        self.flight.send_replace(Flight { token: Some(token), back: None });
        let sent = self.clock.monotonic();
        match permit.aside(async |store: &S| store.canary(&token).await).await {
            // It may have been written, and may still arrive.
            Err(CanaryError::Failed(error)) if error.kind() == StoreErrorKind::Timeout => {
                let Some(back) = self.back(sent + RETRY).await else { return Err(error.into()) };
                self.watch.observe(Ok(()));
                self.metrics.revocation_took(back - sent);
            }
            Err(error) => return Err(error),
            Ok(()) => {
                self.watch.observe(Ok(()));
                let back = self.back(sent + PATIENCE).await;
                self.note(back.map(|back| back - sent));
            }
        }
        Ok(())
    }

    async fn back(&mut self, until: Instant) -> Option<Instant> {
        let back = self.back.wait_for(|flight| flight.back.is_some());
        timeout_at(until, back).await.ok()?.ok()?.back
    }

    fn note(&mut self, took: Option<Duration>) {
        self.metrics.revocation_took(took.unwrap_or(LOST));
        match (took, self.lost) {
            (None, false) => {
                let after = humantime::format_duration(PATIENCE);
                tracing::warn!(%after, "a canary was written but did not reach this instance");
            }
            (Some(took), true) => {
                let took = rounded(took);
                tracing::info!(%took, "canaries reach this instance again");
            }
            (None, true) | (Some(_), false) => {}
        }
        self.lost = took.is_none();
    }
}

fn random_token() -> Result<Digest, StoreError> {
    let mut token = [0; Digest::LEN];
    getrandom::fill(&mut token).map_err(|reason| {
        StoreError::new(StoreErrorKind::Unreachable, format!("no random numbers: {reason}"))
    })?;
    Ok(Digest::from_bytes(token))
}
