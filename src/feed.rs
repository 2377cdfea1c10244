//! Changes of the store, brought to the memory.
//!
//! Changes are numbered rows, in the order in which they become visible, so that
//! going on from the last number that was read misses nothing, however long the
//! store was away. Where the store announces changes, the announcement wakes the
//! feed; the table is the truth, and is looked at with every heartbeat whether
//! anything was announced or not.

mod canary;
mod config;
mod metrics;
mod pulse;
mod reader;
mod sweep;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use self::{
    canary::{Canary, CanaryParts, canary},
    pulse::Pulse,
    reader::{Found, Reader},
    sweep::{Sweep, sweep},
};
pub use self::{config::FeedConfig, metrics::observe};
use crate::{
    cache::{Coverage, Memory},
    fill::Fill,
    guard::Guarded,
    instance::{Dependency, Instance, TierWatch},
    store::{Changes, Follower, Lookups, Position, StoreError, Woken},
    telemetry::Metrics,
    time::{Clock, jittered},
};

/// How long after a failure the first reconnect is tried: enough for a server
/// that restarts, and no time for a person.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two tries. Twice as long each time until then.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a connection must stand, after one was lost, before the feed counts
/// as healthy and the next loss as the first: about a heartbeat.
const TRUSTED_AFTER: Duration = Duration::from_secs(1);

/// How far the reconnects of several instances are spread.
const PAUSE_JITTER: f64 = 0.5;

/// Follows the changes of a store, measures how soon they arrive, and asks for
/// keys again whose changes were missed.
#[derive(Debug)]
pub struct Feed<S> {
    link: Link<S>,
    canary: Canary<S>,
    sweep: Sweep<S>,
}

/// What a feed works with.
#[derive(Debug)]
pub struct FeedParts<S> {
    /// The store.
    pub store: Arc<Guarded<S>>,
    /// Takes the changes in.
    pub fill: Fill<S>,
    /// What is asked for again when changes were missed.
    pub memory: Arc<Memory>,
    /// Told how far the changes have been brought.
    pub coverage: Arc<Coverage>,
    /// Told the position, as of the last time that all changes were applied.
    pub told: watch::Sender<Option<Position>>,
    /// Told how the feed fares.
    pub instance: Instance,
    /// Told how long changes take.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

impl<S: Changes + Lookups> Feed<S> {
    /// A feed that goes on after `resume`, which is where the memory was when it
    /// was written down, or begins at the newest change.
    #[must_use]
    pub fn new(config: FeedConfig, resume: Option<Position>, parts: FeedParts<S>) -> Self {
        let FeedParts { store, fill, memory, coverage, told, instance, metrics, clock } = parts;
        let (sweeps, sweep) = sweep(memory, fill.clone(), config.revalidate_rate);
        let (canaries, canary) = canary(CanaryParts {
            store: Arc::clone(&store),
            every: config.canary_every,
            watch: TierWatch::new(Dependency::WritePath, instance.clone(), clock.clone()),
            applied: told.subscribe(),
            metrics,
            clock: clock.clone(),
        });
        let watch = TierWatch::new(Dependency::Feed, instance, clock.clone());
        let now = clock.monotonic();
        let pulse = Pulse::new(&config, now);
        let reader = Reader {
            fill,
            coverage,
            told,
            canaries,
            sweeps,
            clock: clock.clone(),
            max_replay: config.max_replay,
            position: resume,
            found: Found::Nothing,
        };
        let (pause, probation) = (FIRST_PAUSE, Duration::ZERO);
        let link = Link {
            store,
            reader,
            pulse,
            watch,
            clock,
            pause,
            probation,
            trusted_from: now,
            history: None,
        };
        Self { link, canary, sweep }
    }

    /// Follows for ever; failures of the store are waited out. Ends at once where
    /// the store has no changes to follow.
    pub async fn follow(self) {
        let Self { link, mut canary, sweep } = self;
        tokio::select! {
            () = link.run() => {}
            () = canary.run() => {}
            () = sweep.run() => {}
        }
        canary.absent();
    }
}

/// The connection over which changes are followed.
#[derive(Debug)]
struct Link<S> {
    store: Arc<Guarded<S>>,
    reader: Reader<S>,
    pulse: Pulse,
    watch: TierWatch,
    clock: Clock,
    /// How long to wait before the next try to connect.
    pause: Duration,
    /// How long the next connection must stand before it is trusted.
    probation: Duration,
    /// From when on this connection is.
    trusted_from: Instant,
    /// Of the server that was followed last.
    history: Option<u64>,
}

impl<S: Changes + Lookups> Link<S> {
    async fn run(mut self) {
        loop {
            let error = match self.store.follow().await {
                Ok(None) => return self.watch.absent(),
                Ok(Some(follower)) => self.follow(follower).await,
                Err(error) => error,
            };
            self.watch.observe(Err(error));
            self.probation = TRUSTED_AFTER;
            sleep(jittered(self.pause, PAUSE_JITTER)).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Follows until it fails. Whatever is announced from the beginning on is
    /// heard, so that nothing is between the first look and the first wait.
    async fn follow(&mut self, mut follower: S::Follower) -> StoreError {
        if let Err(error) = self.begin(&mut follower).await {
            return error;
        }
        loop {
            if let Err(error) = self.go_on(&mut follower).await {
                return error;
            }
        }
    }

    async fn begin(&mut self, follower: &mut S::Follower) -> Result<(), StoreError> {
        // What was read from a server says nothing of the changes of another.
        if self.history.replace(follower.history()).is_some_and(|old| old != follower.history()) {
            self.reader.coverage.new_history(self.clock.monotonic());
        }
        self.reader.recognise(follower).await?;
        self.trusted_from = self.clock.monotonic() + self.probation;
        self.catch_up(follower).await?;
        self.pulse.connected(self.clock.monotonic());
        self.reader.canaries.connected();
        Ok(())
    }

    async fn go_on(&mut self, follower: &mut S::Follower) -> Result<(), StoreError> {
        let now = self.clock.monotonic();
        let until = self.pulse.next(follower.announces(), now);
        let until = if now < self.trusted_from { until.min(self.trusted_from) } else { until };
        match follower.wait(until).await? {
            Woken::Beat => {
                self.pulse.answered();
                return Ok(());
            }
            Woken::Elapsed if follower.announces() && self.pulse.is_due(self.clock.monotonic()) => {
                follower.beat().await?;
                self.pulse.sent(self.clock.monotonic());
            }
            Woken::Elapsed | Woken::Announced => {}
            Woken::Renewal => return self.renew(follower).await,
            Woken::TakenOver => {
                let Some(new) = self.store.follow().await? else { return Ok(()) };
                *follower = new;
                return self.begin(follower).await;
            }
        }
        self.catch_up(follower).await
    }

    /// Follows over a new connection, before the one before is given up.
    async fn renew(&mut self, follower: &mut S::Follower) -> Result<(), StoreError> {
        match self.store.follow().await {
            Ok(Some(new)) => {
                *follower = new;
                self.begin(follower).await
            }
            Ok(None) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "the connection of the feed is kept longer than it should");
                self.catch_up(follower).await
            }
        }
    }

    async fn catch_up(&mut self, follower: &mut S::Follower) -> Result<(), StoreError> {
        self.reader.catch_up(follower).await?;
        if self.clock.monotonic() >= self.trusted_from {
            self.pause = FIRST_PAUSE;
            self.watch.observe(Ok(()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
