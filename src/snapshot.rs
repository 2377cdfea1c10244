//! What is in memory, kept on disk, so that a restart during an outage of the
//! store serves warm keys.
//!
//! There are three files. The *snapshot* holds every record in memory and what is
//! known of keys that have ended, and is replaced as a whole now and then. The
//! *changes* beside it hold, one by one, what the feed has brought since and which keys
//! rows said to have ended: an entry whose key has changed since the snapshot was
//! written is not read back, so that a key that was revoked before the restart is not
//! served. The *end* says how far the changes go, and which snapshot was the last. None
//! is any use without the others, and all are sealed with a key derived from the secrets.
//!
//! Nothing here is in the way of a check: the files are written by threads of
//! their own, from queues that never make anybody wait.

mod blocks;
mod config;
mod end;
mod entries;
mod files;
#[cfg(test)]
mod fixture;
pub mod format;
mod journal;
mod keeper;
mod landmark;
mod refusal;
mod seal;
mod writer;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    task::spawn_blocking,
    time::Instant,
};

pub use config::SnapshotConfig;
pub use refusal::Refusal;
pub use seal::{PURPOSE, Seals};
pub use writer::Writer;

use self::{keeper::Keeper, writer::Written};
use crate::{
    cache::{Coverage, Memory},
    store::{Change, Position, StoreIdentity},
    telemetry::{Metrics, SnapshotLoad},
    time::Clock,
};

/// How many changes may wait to be kept, about 10 MB. They wait for one flush of the
/// disk, a few milliseconds. At the bound a change is lost, and the snapshot with it.
const MAX_QUEUED: usize = 256_000;

/// Where the snapshot is, whose it is, and what may be read from it.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The file.
    pub path: PathBuf,
    /// How often it is written.
    pub every: Duration,
    /// The store that the memory is filled from.
    pub store: StoreIdentity,
    /// The keys of the seal.
    pub seals: Seals,
    /// Entries that are this old or older are not read: the longest time that a
    /// record may be served.
    pub max_age: Duration,
    /// Whether the store numbers its changes. One that does not (`store.relation`)
    /// has nothing to be replayed, and entries age by themselves.
    pub numbered: bool,
}

/// What was read from a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Up to where changes had been applied to the entries. Those after it are
    /// to be replayed before one of them counts as fresh.
    pub position: Position,
    /// Since when no change was missed, up to `position`.
    pub covered_since: Instant,
    /// How many entries are in memory.
    pub entries: usize,
    /// How long ago the snapshot was written.
    pub since_written: Duration,
}

/// A memory that was filled from disk, if there was something to fill it from.
#[derive(Debug)]
pub struct Loaded {
    /// The memory.
    pub memory: Arc<Memory>,
    /// What was read; `None` when the service starts without.
    pub restored: Option<Restored>,
    keeper: Keeper,
    setup: Setup,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// Reads the snapshot into a memory made by `empty`.
///
/// One that cannot be trusted is refused with a line in the log, and the memory
/// is empty. Reads on a thread of its own; a million entries take
/// one to two seconds on two cores that have much other work.
pub async fn load(
    setup: Setup,
    empty: impl Fn() -> Memory + Send + 'static,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Loaded {
    let now = clock.moment();
    let (path, store, seals) = (setup.path.clone(), setup.store, setup.seals.clone());
    let (max_age, logged) = (setup.max_age, metrics.clone());
    let reading = spawn_blocking(move || {
        let mut keeper = Keeper::new(path.clone(), store, seals);
        let memory = empty();
        let outcome = keeper.restore(&memory, max_age, now);
        tell(&path, &outcome, &logged);
        match outcome {
            Ok(restored) => (keeper, memory, restored),
            // What is known of keys that have ended.
            Err(_) if memory.is_empty() => (keeper, memory, None),
            Err(_) => (keeper, empty(), None),
        }
    });
    // It is never cancelled; a panic in it is one here.
    let (keeper, memory, restored) =
        reading.await.unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic()));
    Loaded { memory: Arc::new(memory), restored, keeper, setup, metrics, clock }
}

fn tell(path: &std::path::Path, outcome: &Result<Option<Restored>, Refusal>, metrics: &Metrics) {
    let path = path.display();
    match outcome {
        Ok(Some(Restored { entries, position, since_written, .. })) => {
            let age = humantime::format_duration(Duration::from_secs(since_written.as_secs()));
            let position = position.revision;
            tracing::info!(%path, entries, %position, %age, "read the snapshot");
            metrics.snapshot_load(SnapshotLoad::Restored);
        }
        Ok(None) => {
            tracing::info!(%path, "there is no snapshot yet; starting with an empty memory");
            metrics.snapshot_load(SnapshotLoad::None);
        }
        Err(reason) => {
            tracing::warn!(
                %path, %reason,
                "the snapshot is not used; starting with an empty memory, and writing a new one when the store has answered"
            );
            metrics.snapshot_load(SnapshotLoad::Refused);
        }
    }
}

impl Loaded {
    /// What keeps the files from now on.
    ///
    /// `position` says up to where changes have been applied to the memory;
    /// `coverage` since when none has been missed. Whoever writes both, when
    /// changes were missed, begins the coverage anew first.
    #[must_use]
    pub fn keep(
        self,
        coverage: Arc<Coverage>,
        position: watch::Receiver<Option<Position>>,
    ) -> (Journal, Writer) {
        let Self { memory, restored, keeper, setup, metrics, clock } = self;
        let (sender, changes) = mpsc::channel(MAX_QUEUED);
        let lost = Arc::new(Lost::default());
        let queue = Queue { sender, lost: Arc::clone(&lost), metrics: Arc::clone(&metrics) };
        let keeper = Arc::new(Mutex::new(keeper));
        let now = clock.monotonic();
        let written_at = restored.and_then(|it| now.checked_sub(it.since_written)).unwrap_or(now);
        let written = Arc::new(Written::at(written_at));
        let shown = Arc::clone(&written);
        metrics.observe_snapshot_age(move || shown.age().as_secs_f64());
        let recorder = writer::Recorder {
            keeper: Arc::clone(&keeper),
            changes,
            lost,
            metrics: Arc::clone(&metrics),
        };
        let snapshots = writer::Snapshots {
            keeper,
            memory,
            coverage,
            position,
            restored: restored.map(|it| it.position),
            numbered: setup.numbered,
            every: setup.every,
            written,
            failing: false,
            metrics,
            clock,
        };
        (Journal(Some(Arc::new(queue))), Writer { recorder, snapshots, path: setup.path })
    }
}

/// Where changes are noted, so that they outlive the process. Clones share it;
/// the default keeps nothing.
#[derive(Debug, Clone, Default)]
pub struct Journal(Option<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<Change>,
    lost: Arc<Lost>,
    metrics: Arc<Metrics>,
}

/// That a change could not be queued.
#[derive(Debug, Default)]
struct Lost {
    flag: AtomicBool,
    bell: Notify,
}

impl Journal {
    /// Notes changes. Never waits: they are on disk a few milliseconds later.
    ///
    /// To be called when they have been applied to the memory and before the position,
    /// or a caller, is told: what is noted by then may be left out of the changes
    /// beside the next snapshot, and what is past the position may not.
    pub fn note(&self, changes: &[Change]) {
        let Some(queue) = self.0.as_deref().filter(|_| !changes.is_empty()) else {
            return;
        };
        if let Ok(permits) = queue.sender.try_reserve_many(changes.len()) {
            permits.zip(changes).for_each(|(permit, change)| permit.send(change.clone()));
        } else {
            queue.metrics.snapshot_changes_lost(changes.len());
            if !queue.lost.flag.swap(true, Ordering::AcqRel) {
                tracing::warn!(
                    "changes come faster than they can be kept on disk; the snapshot is removed, and written anew"
                );
            }
            queue.lost.bell.notify_one();
        }
    }
}
