//! Background tasks that maintain the snapshot and the journal.

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

/// Jitter that spreads the snapshots of several instances.
const WRITE_JITTER: f64 = 0.1;

/// Pause after each slice of writing, as a multiple of its duration: writing uses a twentieth
/// of a core. With a tenth, it delayed checks when they used 80 % of theirs.
const PAUSE_FACTOR: u32 = 19;

/// Maximum pause. A slice takes about ten microseconds, but may include time spent waiting for
/// a core.
const MAX_PAUSE: Duration = Duration::from_millis(1);

/// Poll interval for a first answer of a store without numbered changes.
const ANSWER_POLL: Duration = Duration::from_secs(1);

/// Maximum number of changes per disk flush.
const MAX_BATCH: usize = 64_000;

/// Journals changes and writes a snapshot periodically.
#[derive(Debug)]
pub struct Writer {
    pub(super) recorder: Recorder,
    pub(super) snapshots: Snapshots,
    pub(super) path: PathBuf,
}

impl Writer {
    /// Runs until `stop` is cancelled, then writes a last snapshot. Cancel-safe: the files on
    /// disk are always complete.
    pub async fn run(self, stop: CancellationToken) {
        let Self { recorder, mut snapshots, path } = self;
        let last_written = CancellationToken::new();
        tokio::join!(recorder.run(last_written.clone()), async {
            snapshots.run(&path, &stop).await;
            last_written.cancel();
        });
    }
}

/// Journals changes.
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
                _ = self.changes.recv_many(&mut changes, MAX_BATCH) => {}
                () = self.lost.notify.notified() => {}
                () = stop.cancelled() => break,
            }
            self.keep(changes).await;
        }
        self.changes.close();
        let mut changes = Vec::new();
        while self.changes.recv_many(&mut changes, MAX_BATCH).await > 0 {
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
                keeper.invalidate();
            }
            if changes.is_empty() {
                return;
            }
            if let Err(error) = keeper.note(&changes) {
                metrics.snapshot_changes_lost(changes.len());
                tracing::warn!(
                    %error,
                    "cannot write changes to the journal; the snapshot is removed; the next change retries"
                );
            }
        });
        if keeping.await.is_err() {
            // A panic, already logged: what was journaled is unknown.
            self.lost.flag.store(true, Ordering::Release);
            self.lost.notify.notify_one();
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
    /// Position restored at startup.
    pub(super) restored: Option<Position>,
    pub(super) numbered: bool,
    pub(super) every: Duration,
    pub(super) written: Arc<Written>,
    /// Whether the last write failed.
    pub(super) failing: bool,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
}

impl Snapshots {
    async fn run(&mut self, path: &std::path::Path, stop: &CancellationToken) {
        if self.restored.is_none() {
            // Without a restored snapshot, the first change invalidates the files on disk.
            tokio::select! {
                () = self.wait_for_position() => self.write(path, Some(stop)).await,
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

    /// Waits until there is a position to follow changes from.
    async fn wait_for_position(&mut self) {
        let gone = self.numbered && self.position.wait_for(Option::is_some).await.is_err();
        if gone {
            // The feed ended without a position.
            std::future::pending::<()>().await;
        }
        // Without a feed, an empty cache means that the store has not answered yet.
        while !self.numbered && self.memory.is_empty() {
            sleep(self.every.min(ANSWER_POLL)).await;
        }
    }

    /// Writes a snapshot and logs a failure. Writes nothing until the feed has a position, as a
    /// restart could not resume.
    async fn write(&mut self, path: &std::path::Path, until: Option<&CancellationToken>) {
        // Read first: the exported entries are at least this recent.
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
            let throttle = until.as_ref().map(Throttle::until);
            // Shutdown waits for the last snapshot, so it is written without pauses.
            let go_on = || throttle.as_ref().is_none_or(Throttle::pause);
            let written = draft.write(memory.export(), go_on);
            let mut keeper = locked(&keeper);
            let finished = written.and_then(|count| keeper.finish(&draft).map(|()| count));
            if finished.is_err() {
                keeper.discard();
            }
            finished
        });
        let outcome = writing.await.unwrap_or_else(|died| Err(io::Error::other(died)));
        self.log_outcome(path, &outcome, now.monotonic);
    }

    fn log_outcome(&mut self, path: &std::path::Path, outcome: &io::Result<u64>, began: Instant) {
        let path = path.display();
        match outcome {
            Ok(entries) => {
                let took = began.elapsed();
                if std::mem::take(&mut self.failing) {
                    tracing::info!(%path, entries, ?took, "snapshot is written again");
                } else {
                    tracing::debug!(%path, entries, ?took, "snapshot written");
                }
                self.written.now(began);
                self.metrics.snapshot_write(true);
            }
            // The last snapshot, at shutdown, replaces it.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                self.metrics.snapshot_write(false);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        %path, %error,
                        "cannot write the snapshot; fewer keys are warm after a restart during an outage; \
                         check the rights of its folder and the space on its disk; retrying"
                    );
                }
            }
        }
    }
}

/// Time when the snapshot on disk was written.
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

/// Throttles a blocking thread, so that others get the core.
struct Throttle<'a> {
    until: &'a CancellationToken,
    /// End of the last pause.
    since: Cell<Instant>,
}

impl<'a> Throttle<'a> {
    fn until(until: &'a CancellationToken) -> Self {
        Self { until, since: Cell::new(Instant::now()) }
    }

    /// Pauses; returns whether to continue.
    #[expect(clippy::disallowed_methods, reason = "runs on a blocking thread")]
    fn pause(&self) -> bool {
        thread::sleep((self.since.get().elapsed() * PAUSE_FACTOR).min(MAX_PAUSE));
        self.since.set(Instant::now());
        !self.until.is_cancelled()
    }
}

/// Ignores poisoning: a panic leaves the files complete, as a crash does.
fn locked(keeper: &Mutex<Keeper>) -> MutexGuard<'_, Keeper> {
    keeper.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
