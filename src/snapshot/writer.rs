//! What keeps the files while the service runs.

use std::{
    cell::Cell,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread,
    time::Duration,
};

use tokio::{
    sync::{mpsc::Receiver, watch},
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Lost, keeper::Keeper};
use crate::{
    cache::{Coverage, Memory},
    key::Revision,
    store::{Change, Position},
    telemetry::Metrics,
    time::{Clock, jittered},
};

/// How far the writings of several instances are spread.
const WRITE_JITTER: f64 = 0.1;

/// How many times as long as it has worked the writing of a snapshot rests: it takes a
/// twentieth of a core. A tenth made checks wait where they took 80 % of theirs.
const REST: u32 = 19;

/// How long it rests at most. What it works for is some ten microseconds, but it may have
/// had to wait for its core as well.
const LONGEST_REST: Duration = Duration::from_millis(1);

/// How often it is looked whether a store without changes has answered.
const ANSWER_POLL: Duration = Duration::from_secs(1);

/// How many changes are kept with one flush of the disk.
const AT_ONCE: usize = 64_000;

/// Keeps the changes as they come, and writes a snapshot now and then.
#[derive(Debug)]
pub struct Writer {
    pub(super) recorder: Recorder,
    pub(super) snapshots: Snapshots,
    pub(super) path: PathBuf,
}

impl Writer {
    /// Writes until `stop` is cancelled, and then a last snapshot. May be
    /// dropped at any point: what is on disk is whole.
    pub async fn run(self, stop: CancellationToken) {
        let Self { recorder, mut snapshots, path } = self;
        let last_written = CancellationToken::new();
        tokio::join!(recorder.run(last_written.clone()), async {
            snapshots.run(&path, &stop).await;
            last_written.cancel();
        });
    }
}

/// Keeps changes.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) keeper: Arc<Mutex<Keeper>>,
    pub(super) changes: Receiver<Change>,
    pub(super) lost: Arc<Lost>,
    pub(super) metrics: Arc<Metrics>,
}

impl Recorder {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let mut changes = Vec::new();
            tokio::select! {
                _ = self.changes.recv_many(&mut changes, AT_ONCE) => {}
                () = self.lost.bell.notified() => {}
                () = stop.cancelled() => break,
            }
            self.keep(changes).await;
        }
        self.changes.close();
        let mut changes = Vec::new();
        while self.changes.recv_many(&mut changes, AT_ONCE).await > 0 {
            self.keep(std::mem::take(&mut changes)).await;
        }
        if self.lost.flag.load(Ordering::Acquire) {
            self.keep(Vec::new()).await;
        }
    }

    async fn keep(&self, changes: Vec<Change>) {
        let lost = self.lost.flag.swap(false, Ordering::AcqRel);
        let (keeper, metrics) = (Arc::clone(&self.keeper), Arc::clone(&self.metrics));
        let keeping = spawn_blocking(move || {
            let mut keeper = locked(&keeper);
            if lost {
                keeper.distrust();
            }
            if changes.is_empty() {
                return;
            }
            if let Err(error) = keeper.note(&changes) {
                metrics.snapshot_changes_lost(changes.len());
                tracing::warn!(
                    %error,
                    "changes cannot be kept on disk, so that the snapshot is removed; it is tried again with the next one"
                );
            }
        });
        if keeping.await.is_err() {
            // A panic, which has been logged: nobody knows what was kept.
            self.lost.flag.store(true, Ordering::Release);
            self.lost.bell.notify_one();
        }
    }
}

/// Writes snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    pub(super) keeper: Arc<Mutex<Keeper>>,
    pub(super) memory: Arc<Memory>,
    pub(super) coverage: Arc<Coverage>,
    pub(super) position: watch::Receiver<Option<Position>>,
    /// The position that was read at the start.
    pub(super) restored: Option<Position>,
    pub(super) numbered: bool,
    pub(super) every: Duration,
    pub(super) written: Arc<Written>,
    /// Whether the last one could not be written.
    pub(super) failing: bool,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
}

impl Snapshots {
    async fn run(&mut self, path: &std::path::Path, stop: &CancellationToken) {
        if self.restored.is_none() {
            // What is there belongs to somebody else from the first change on.
            tokio::select! {
                () = self.until_placed() => self.write(path, Some(stop)).await,
                () = stop.cancelled() => {}
            }
        }
        while !stop.is_cancelled() {
            tokio::select! {
                () = sleep(jittered(self.every, WRITE_JITTER)) => self.write(path, Some(stop)).await,
                () = stop.cancelled() => {}
            }
        }
        self.write(path, None).await;
    }

    /// Waits until changes can be followed from somewhere.
    async fn until_placed(&mut self) {
        let gone = self.numbered && self.position.wait_for(Option::is_some).await.is_err();
        if gone {
            // The feed has ended, and never spoke.
            std::future::pending::<()>().await;
        }
        // Where there is no feed, an empty memory says that the store has not answered.
        while !self.numbered && self.memory.is_empty() {
            sleep(self.every.min(ANSWER_POLL)).await;
        }
    }

    /// Writes a snapshot, or says why not. Before the feed has spoken there is
    /// nothing to go on from after a restart, and nothing is written.
    async fn write(&mut self, path: &std::path::Path, until: Option<&CancellationToken>) {
        // Before anything else is looked at: what is written is at least so new.
        let fed = *self.position.borrow();
        let has_answered = self.restored.is_some() || !self.memory.is_empty();
        let unnumbered = (!self.numbered && has_answered)
            .then_some(Position { revision: Revision(0), landmark: None });
        let Some(position) = unnumbered.or(fed).or(self.restored) else {
            return;
        };
        let now = self.clock.moment();
        let covered_since = self.coverage.since().map(|since| now.wall_at(since));
        let (keeper, memory) = (Arc::clone(&self.keeper), Arc::clone(&self.memory));
        let until = until.cloned();
        let writing = spawn_blocking(move || {
            let draft = locked(&keeper).begin(position, covered_since, now)?;
            let pauses = until.as_ref().map(Pauses::until);
            // The process waits for the end of the last one, which does not rest.
            let go_on = || pauses.as_ref().is_none_or(Pauses::rested);
            let written = draft.write(memory.export(), go_on);
            let mut keeper = locked(&keeper);
            let finished = written.and_then(|count| keeper.finish(&draft).map(|()| count));
            if finished.is_err() {
                keeper.discard();
            }
            finished
        });
        let outcome = writing.await.unwrap_or_else(|died| Err(io::Error::other(died)));
        self.tell(path, &outcome, now.monotonic);
    }

    fn tell(&mut self, path: &std::path::Path, outcome: &io::Result<u64>, began: Instant) {
        let path = path.display();
        match outcome {
            Ok(entries) => {
                let took = began.elapsed();
                if std::mem::take(&mut self.failing) {
                    tracing::info!(%path, entries, ?took, "the snapshot is written again");
                } else {
                    tracing::debug!(%path, entries, ?took, "wrote the snapshot");
                }
                self.written.now(began);
                self.metrics.snapshot_write(true);
            }
            // The last one is written instead.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                self.metrics.snapshot_write(false);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        %path, %error,
                        "the snapshot cannot be written, so that fewer keys are warm after a restart during an outage; \
                         check the rights of its folder and the space on its disk; it is tried again"
                    );
                }
            }
        }
    }
}

/// When the snapshot on disk was written.
#[derive(Debug)]
pub(super) struct Written(Mutex<Instant>);

impl Written {
    pub(super) const fn at(instant: Instant) -> Self {
        Self(Mutex::new(instant))
    }

    pub(super) fn age(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn now(&self, instant: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = instant;
    }
}

/// What lets others have the core, in a thread for work that blocks.
struct Pauses<'a> {
    until: &'a CancellationToken,
    /// When the last one ended.
    since: Cell<Instant>,
}

impl<'a> Pauses<'a> {
    fn until(until: &'a CancellationToken) -> Self {
        Self { until, since: Cell::new(Instant::now()) }
    }

    /// Rests, and says whether to go on.
    #[expect(clippy::disallowed_methods, reason = "in a thread for work that blocks")]
    fn rested(&self) -> bool {
        thread::sleep((self.since.get().elapsed() * REST).min(LONGEST_REST));
        self.since.set(Instant::now());
        !self.until.is_cancelled()
    }
}

/// A panic over the files leaves them whole, as a crash does.
fn locked(keeper: &Mutex<Keeper>) -> MutexGuard<'_, Keeper> {
    keeper.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
