//! Snapshot and journal: the cache on disk, so that a restart during a store outage serves warm
//! keys.
//!
//! There are three files. The *snapshot* holds every cached record and every tombstone (a key
//! known to be revoked or deleted); it is periodically replaced as a whole. The *journal*
//! beside it holds each change that the feed has applied since, and each key that a lookup
//! found ended. A restart skips entries whose key changed after the snapshot was written, so a
//! key revoked before the restart is not served. The *end file* holds the length of the journal
//! and the serial of the last snapshot. Each file is useless without the other two, and each is
//! sealed with a key derived from the secrets.
//!
//! Checks never wait for any of this: separate threads write the files, from queues whose senders
//! never wait.

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

/// Capacity of the journal queue in changes, about 10 MB. It drains with one disk flush, within
/// a few milliseconds. A change that finds it full is lost, and the snapshot is removed with
/// it.
const MAX_QUEUED: usize = 256_000;

/// Configuration of the snapshot files and limits on what is restored.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Path of the snapshot.
    pub path: PathBuf,
    /// Interval between snapshots.
    pub every: Duration,
    /// Store that fills the cache.
    pub store: StoreIdentity,
    /// Seal keys.
    pub seals: Seals,
    /// Entries of this age or older are not restored: the longest time a record may be served.
    pub max_age: Duration,
    /// Whether the store numbers its changes. One that does not (`store.relation`) has no
    /// changes to replay; its entries age out instead.
    pub numbered: bool,
}

/// Summary of a restored snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Position up to which changes had been applied to the entries. Entries count as fresh
    /// only after later changes are replayed.
    pub position: Position,
    /// Start of the coverage: no change was missed from here up to `position`.
    pub covered_since: Instant,
    /// Number of entries in the cache.
    pub entries: usize,
    /// Age of the snapshot.
    pub since_written: Duration,
}

/// A cache, filled from the snapshot if one could be restored.
#[derive(Debug)]
pub struct Loaded {
    /// The cache.
    pub memory: Arc<Memory>,
    /// Summary of the snapshot; `None` if the cache starts empty.
    pub restored: Option<Restored>,
    keeper: Keeper,
    setup: Setup,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// Reads the snapshot into a cache made by `empty`.
///
/// An untrusted snapshot is refused with a warning, and the cache starts without entries. Reads
/// on a blocking thread; a million entries take one to two seconds on two busy cores.
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
        log_outcome(&path, &outcome, &logged);
        match outcome {
            Ok(restored) => (keeper, memory, restored),
            // Tombstones alone.
            Err(_) if memory.is_empty() => (keeper, memory, None),
            Err(_) => (keeper, empty(), None),
        }
    });
    // The task is never cancelled; a panic in it is resumed here.
    let (keeper, memory, restored) =
        reading.await.unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic()));
    Loaded { memory: Arc::new(memory), restored, keeper, setup, metrics, clock }
}

fn log_outcome(
    path: &std::path::Path,
    outcome: &Result<Option<Restored>, Refusal>,
    metrics: &Metrics,
) {
    let path = path.display();
    match outcome {
        Ok(Some(Restored { entries, position, since_written, .. })) => {
            let age = humantime::format_duration(Duration::from_secs(since_written.as_secs()));
            let position = position.revision;
            tracing::info!(%path, entries, %position, %age, "read the snapshot");
            metrics.snapshot_load(SnapshotLoad::Restored);
        }
        Ok(None) => {
            tracing::info!(%path, "no snapshot yet; starting with an empty cache");
            metrics.snapshot_load(SnapshotLoad::None);
        }
        Err(reason) => {
            tracing::warn!(
                %path, %reason,
                "the snapshot is refused; starting with an empty cache and writing a new snapshot once the store has answered"
            );
            metrics.snapshot_load(SnapshotLoad::Refused);
        }
    }
}

impl Loaded {
    /// Splits into the journal that records changes and the writer that maintains the files.
    ///
    /// `position` is the position up to which changes have been applied to the cache;
    /// `coverage` is the time since which none was missed. After missed changes, their writer
    /// must restart the coverage before it moves the position.
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

/// Records changes on disk, so that they survive a crash. Clones share one queue; the default
/// records nothing.
#[derive(Debug, Clone, Default)]
pub struct Journal(Option<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<Change>,
    lost: Arc<Lost>,
    metrics: Arc<Metrics>,
}

/// Signals that a change could not be queued.
#[derive(Debug, Default)]
struct Lost {
    flag: AtomicBool,
    notify: Notify,
}

impl Journal {
    /// Queues changes for the journal. Never waits: they are on disk a few milliseconds later.
    ///
    /// Call it after the changes have been applied to the cache, and before the position is
    /// published or a caller is answered. The next journal may omit changes noted by then, but
    /// none past the position.
    pub fn note(&self, changes: &[Change]) {
        let Some(queue) = self.0.as_deref().filter(|_| !changes.is_empty()) else {
            return;
        };
        if let Ok(permits) = queue.sender.try_reserve_many(changes.len()) {
            permits.zip(changes).for_each(|(permit, change)| permit.send(change.clone()));
        } else {
            queue.metrics.snapshot_changes_lost(changes.len());
            if !queue.lost.flag.swap(true, Ordering::AcqRel) {
                tracing::warn!("journal queue is full; the snapshot is removed and written again");
            }
            queue.lost.notify.notify_one();
        }
    }
}
