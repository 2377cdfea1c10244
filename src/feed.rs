//! The feed: applies changes of the store to the cache.
//!
//! Changes are numbered rows, in the order in which they become visible, so resuming after the
//! last number read misses none, however long the store was unreachable. Announcements, where
//! the store supports them, only wake the feed; it also reads the table with every heartbeat,
//! as the table is authoritative.

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

/// Pause before the first reconnect: enough for a server restart, too short for a person to
/// notice.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Maximum pause between reconnects. The pause doubles up to it.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Time that a connection must last, after one was lost, before the feed counts as healthy and
/// the pause is reset: about a heartbeat.
const TRUSTED_AFTER: Duration = Duration::from_secs(1);

/// Jitter that spreads the reconnects of several instances.
const PAUSE_JITTER: f64 = 0.5;

/// Follows the changes of a store, measures propagation delay, and revalidates the cache after
/// missed changes.
#[derive(Debug)]
pub struct Feed<S> {
    link: Link<S>,
    canary: Canary<S>,
    sweep: Sweep<S>,
}

/// Dependencies of a feed.
#[derive(Debug)]
pub struct FeedParts<S> {
    /// The store.
    pub store: Arc<Guarded<S>>,
    /// Applies changes to the cache.
    pub fill: Fill<S>,
    /// The cache to revalidate after missed changes.
    pub memory: Arc<Memory>,
    /// Coverage that each catch-up confirms.
    pub coverage: Arc<Coverage>,
    /// Publishes the position after all changes up to it have been applied.
    pub published: watch::Sender<Option<Position>>,
    /// Receives the health of the feed.
    pub instance: Instance,
    /// Receives the propagation delay.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Clock,
}

impl<S: Changes + Lookups> Feed<S> {
    /// Creates a feed that resumes after `resume`, the position of a restored snapshot, or
    /// starts at the newest change.
    #[must_use]
    pub fn new(config: FeedConfig, resume: Option<Position>, parts: FeedParts<S>) -> Self {
        let FeedParts { store, fill, memory, coverage, published, instance, metrics, clock } =
            parts;
        let (sweeps, sweep) = sweep(memory, fill.clone(), config.revalidate_rate);
        let (canaries, canary) = canary(CanaryParts {
            store: Arc::clone(&store),
            every: config.canary_every,
            watch: TierWatch::new(Dependency::WritePath, instance.clone(), clock.clone()),
            applied: published.subscribe(),
            metrics,
            clock: clock.clone(),
        });
        let watch = TierWatch::new(Dependency::Feed, instance, clock.clone());
        let now = clock.monotonic();
        let pulse = Pulse::new(&config, now);
        let reader = Reader {
            fill,
            coverage,
            published,
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

    /// Follows changes until cancelled, retrying failures of the store. Returns if the store
    /// has no changes to follow.
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

/// Connection over which changes are followed.
#[derive(Debug)]
struct Link<S> {
    store: Arc<Guarded<S>>,
    reader: Reader<S>,
    pulse: Pulse,
    watch: TierWatch,
    clock: Clock,
    /// Pause before the next reconnect.
    pause: Duration,
    /// How long the next connection must last to be trusted.
    probation: Duration,
    /// When this connection becomes trusted.
    trusted_from: Instant,
    /// History of the last server followed.
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

    /// Follows until an error. Announcements are received from the start of the connection, so
    /// none is lost between the first read and the first wait.
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
        // Data read from one server says nothing about the changes of another.
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

    /// Switches to a new connection, keeping the old one until it is established.
    async fn renew(&mut self, follower: &mut S::Follower) -> Result<(), StoreError> {
        match self.store.follow().await {
            Ok(Some(new)) => {
                *follower = new;
                self.begin(follower).await
            }
            Ok(None) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "cannot renew the feed connection; keeping it beyond its maximum age");
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
