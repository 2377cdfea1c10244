//! Whether a revocation can be written, and how long it takes to be felt, measured
//! all the time: a change that changes no key is written, and comes back the way
//! of all others.

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

/// How far the canaries of several instances are spread.
const JITTER: f64 = 0.1;

/// The longest pause after a canary that was not written, so that two of them tell
/// a blip from a state soon.
const RETRY: Duration = Duration::from_secs(1);

/// How long a canary waits for its turn at the store. Lookups of a busy instance
/// wait for a fraction of a second.
const TURN: Duration = Duration::from_secs(5);

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
    /// Told whether changes can be written.
    watch: TierWatch,
    /// How far changes have been applied here.
    applied: watch::Receiver<Option<Position>>,
}

/// What a canary works with.
#[derive(Debug)]
pub(super) struct CanaryParts<S> {
    pub(super) store: Arc<Guarded<S>>,
    pub(super) every: Duration,
    pub(super) watch: TierWatch,
    pub(super) applied: watch::Receiver<Option<Position>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
}

/// A canary every now and then, and where the feed tells that it has seen it.
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

impl<S: Changes> Canary<S> {
    /// Measures for ever, from the first connection of the feed on. Where
    /// canaries are not to be written, it is tried again when the feed connects
    /// anew: it may be to another server.
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

    /// No canaries are to be written.
    pub(super) fn absent(&mut self) {
        self.watch.absent();
    }

    fn read_only(&mut self, detail: &str) {
        self.absent();
        tracing::info!(
            detail,
            "canaries are not written here, so that it is not measured how soon a revocation is \
             felt, nor whether one can be written; revocations work all the same"
        );
    }

    /// `applied` is how far changes had been applied when the last canary was over.
    /// Whoever is in the way of this one lets others through if there are any since:
    /// many are writing, and nobody is stuck.
    fn failed(&mut self, error: StoreError, applied: Option<Position>) {
        let others_came_through = *self.applied.borrow() != applied;
        let is_stuck = error.kind() != StoreErrorKind::Blocked || !others_came_through;
        self.watch.observe(if is_stuck { Err(error) } else { Ok(()) });
    }

    /// Writes one, and waits until it is back.
    async fn measure(&mut self, permit: Permit<'_, S>) -> Result<(), CanaryError> {
        let token = random_token()?;
        self.flight.send_replace(Flight { token: Some(token), back: None });
        let sent = self.clock.monotonic();
        match permit.aside(async |store: &S| store.canary(&token).await).await {
            // It may have been written all the same, and then comes back.
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
                tracing::warn!(%after, "a change that was written has not reached this instance");
            }
            (Some(took), true) => {
                let took = rounded(took);
                tracing::info!(%took, "changes that are written reach this instance again");
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
