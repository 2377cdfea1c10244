//! Handles cache misses with coalescing and batching.
//!
//! Callers of the same key share one lookup (coalescing); queued lookups share one
//! query (batching). Two lanes, one for known and one for never-seen keys, keep a
//! flood of unknown keys from starving known ones. A single miss starts at once.
//! Queued lookups are taken in FIFO order when a permit is free, and rejected when
//! they could no longer be answered in time.

mod config;
#[cfg(test)]
pub(crate) mod fixture;
mod pace;
mod queue;
mod worker;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

pub use config::FillConfig;
pub use queue::Lane;

use self::{
    pace::Pace,
    queue::{LookupRequest, Queue, Stage},
    worker::Worker,
};
use crate::{
    cache::Memory,
    guard::{Guarded, Refused},
    key::{Credential, Digest},
    outage::Unavailable,
    snapshot::Journal,
    store::{Change, ChangeKind, DataAge, Lookups, StoreError, StoreErrorKind},
    suspect::Suspicion,
    tasks::Tasks,
    telemetry::Metrics,
    tier::{Observation, Refresh, Tier},
    time::Clock,
};

/// A digest of no key: it has no known preimage.
pub(crate) const PROBE_DIGEST: Digest = Digest::from_bytes([0; Digest::LEN]);

/// Query time per additional key while all permits are in use.
const TIME_PER_KEY: Duration = Duration::from_micros(40);

/// Number of known keys in a probe: more than the default threshold for detecting an
/// emptied store at once, and enough to outweigh ten missing keys.
const PROBE_WITNESSES: usize = 16;

/// Number of missing keys in a probe: a usual batch, so that all are found within
/// seconds after they return.
const PROBE_MISSING: usize = 250;

/// Looks keys up in the store and caches the answers.
///
/// Each caller has its own deadline and may cancel without affecting the lookup. If
/// all callers cancel before the query starts, the lookup is dropped. A query that
/// has started is finished, as the next caller will want the answer. Clones share
/// the lookups.
#[derive(Debug)]
pub struct Fill<S>(Arc<Shared<S>>);

#[derive(Debug)]
struct Shared<S> {
    queue: Mutex<Queue>,
    pace: Pace,
    parts: Parts<S>,
    timeout: Duration,
}

/// Dependencies of [`Fill`].
#[derive(Debug)]
pub struct Parts<S> {
    /// Caches the answers.
    pub memory: Arc<Memory>,
    /// Persists changes and ends of keys.
    pub journal: Journal,
    /// Decides whether an absence is believed.
    pub suspicion: Arc<Suspicion>,
    /// Answers the lookups.
    pub store: Arc<Guarded<S>>,
    /// Runs the workers.
    pub tasks: Tasks,
    /// Counts batches and masked failures.
    pub metrics: Arc<Metrics>,
    /// Measures deadlines and ages.
    pub clock: Clock,
}

impl<S> Clone for Fill<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Lookups> Fill<S> {
    /// Creates a fill. `timeout` bounds queueing and query together for lookups
    /// without a caller's deadline.
    #[must_use]
    pub fn new(config: FillConfig, timeout: Duration, parts: Parts<S>) -> Self {
        let queue = Mutex::new(Queue::new(config.max_queued.get()));
        let pace = Pace::new(config.batch_max, parts.store.query_timeout());
        Self(Arc::new(Shared { queue, pace, parts, timeout }))
    }

    /// Applies numbered changes in sequence. Drops outdated records and refreshes them
    /// at once.
    ///
    /// A lookup that began before a change cannot restore the old answer: its result
    /// is cached only if it is as new as the change, and later callers start a new
    /// lookup.
    pub fn apply(&self, changes: &[Change]) {
        for change in changes {
            let mut queue = self.0.queue();
            queue.fence(&change.digest, change.revision);
            let dropped = self.0.parts.memory.change(change);
            drop(queue);
            if dropped && change.kind != ChangeKind::Deleted {
                // If the refresh is rejected, the next check looks the key up.
                let _ = self.refresh(change.digest);
            }
        }
        self.0.parts.journal.note(changes);
    }

    /// Probes the store with the query of checks, for a key that does not exist and
    /// for some that should. Detects a server that is down, a missing table and an
    /// emptied table. Waits for a permit until `deadline` and fails without one.
    /// Returns the age of the data.
    pub async fn probe(&self, deadline: Instant) -> Result<Result<DataAge, StoreError>, Refused> {
        worker::probe(&self.0, deadline).await
    }

    /// Lookups per second that the store could serve with all permits on full
    /// batches: `max_in_flight × batch_max ÷ (recent query time + batch_max × 40 µs)`.
    ///
    /// The recent query time is mostly that of small batches; an additional key costs
    /// 40 µs while all permits are in use, as measured in
    /// `docs/adr/2026-11-22-queue-discipline.md`.
    #[must_use]
    pub fn capacity(&self) -> f64 {
        let permits = u32::try_from(self.0.parts.store.max_in_flight()).unwrap_or(u32::MAX);
        let batch = u32::try_from(self.0.pace.batch()).unwrap_or(u32::MAX);
        let time = self.0.pace.expected(self.0.parts.clock.monotonic()) + TIME_PER_KEY * batch;
        f64::from(permits) * f64::from(batch) / time.as_secs_f64()
    }

    /// Queries the history of the store if that is due. Waits for a permit until
    /// `deadline` and fails without one.
    pub async fn recall(&self, deadline: Instant) -> Result<Result<(), StoreError>, Refused> {
        worker::recall(&self.0, deadline).await
    }

    /// The guarded store.
    #[must_use]
    pub fn store(&self) -> &Guarded<S> {
        &self.0.parts.store
    }

    /// Registers metrics of queued lookups and headroom. Holds only weak references to
    /// the fill.
    pub fn observe(&self, metrics: &Metrics) {
        let (waiting, capacity) = (Arc::downgrade(&self.0), Arc::downgrade(&self.0));
        metrics.observe_by_label(
            "keystead_fill_queued",
            "Keys that wait to be looked up.",
            "lane",
            Lane::ALL.map(Lane::as_str),
            move |lane| waiting.upgrade().map_or(0, |fill| fill.queue().waiting(Lane::ALL[lane])),
        );
        metrics.observe_headroom(move || capacity.upgrade().map_or(0.0, |it| Self(it).capacity()));
        let others = [
            Unavailable::BreakerOpen,
            Unavailable::Suspect,
            Unavailable::SecretUnknown,
            Unavailable::Overloaded,
            Unavailable::Internal,
        ];
        let causes = StoreErrorKind::ALL.map(Unavailable::Store).into_iter().chain(others);
        metrics.announce_causes("store", causes.map(Unavailable::as_str));
    }

    /// Whether absences that the store reports are not believed.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.0.parts.suspicion.is_suspect()
    }

    /// Joins the pending lookup of a key, or starts one.
    fn join(&self, request: &LookupRequest) -> Result<watch::Receiver<Stage>, Unavailable> {
        let now = self.0.parts.clock.monotonic();
        let mut queue = self.0.queue();
        if let Some(caller) = queue.join(request, now) {
            return Ok(caller);
        }
        if !self.0.parts.store.admits() {
            return Err(Unavailable::BreakerOpen);
        }
        let caller = queue.push(request, now)?;
        let added = queue.add_worker(request.lane, self.0.workers(request.lane));
        drop(queue);
        if added {
            Worker::start(&self.0, request.lane);
        }
        Ok(caller)
    }

    /// The known lane for keys with our tag and cached keys, the other for the rest.
    fn lane(&self, credential: Credential) -> Lane {
        match credential {
            Credential::Ours(_) => Lane::Known,
            Credential::Foreign(digest) if self.0.parts.memory.knows(&digest) => Lane::Known,
            Credential::Foreign(_) => Lane::NeverSeen,
        }
    }
}

impl<S: Lookups> Tier for Fill<S> {
    async fn find(
        &self,
        credential: Credential,
        deadline: Instant,
    ) -> Result<Observation, Unavailable> {
        let (digest, lane) = (credential.digest(), self.lane(credential));
        let ours = matches!(credential, Credential::Ours(_));
        let request = LookupRequest { digest, lane, ours, answer_by: deadline, background: false };
        let caller = self.join(&request)?;
        let done = timeout_at(deadline, outcome(caller.clone())).await;
        done.unwrap_or_else(|_| Err(caller.borrow().timeout_error()))
    }
}

impl<S: Lookups> Refresh for Fill<S> {
    fn refresh(&self, digest: Digest) -> Result<(), Unavailable> {
        let answer_by = self.0.parts.clock.monotonic() + self.0.timeout;
        // `ours` is unknown here, and not needed for a key that is cached.
        let request =
            LookupRequest { digest, lane: Lane::Known, ours: false, answer_by, background: true };
        self.join(&request).map(drop)
    }

    fn in_doubt(&self) -> bool {
        self.0.parts.store.in_doubt()
    }

    fn doubt(&self) -> Option<Unavailable> {
        self.0.parts.store.doubt()
    }
}

/// Waits for the outcome of a lookup.
async fn outcome(mut caller: watch::Receiver<Stage>) -> Result<Observation, Unavailable> {
    let done = caller.wait_for(|stage| matches!(stage, Stage::Done(_))).await;
    match done.as_deref() {
        Ok(Stage::Done(outcome)) => outcome.clone(),
        // The lookup ended without an outcome: its worker panicked.
        Ok(Stage::Queued | Stage::InFlight) | Err(_) => Err(Unavailable::Internal),
    }
}

impl Stage {
    /// The error for a caller whose deadline passes in this stage.
    const fn timeout_error(&self) -> Unavailable {
        match self {
            Self::Queued => Unavailable::Store(StoreErrorKind::Saturated),
            Self::InFlight | Self::Done(_) => Unavailable::Store(StoreErrorKind::Timeout),
        }
    }
}

impl<S: Lookups> Shared<S> {
    /// Ignores poisoning: nothing panics while it holds this lock, so that the queue
    /// is always consistent.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maximum number of concurrent queries of a lane: all permits for known keys, a
    /// quarter of them (rounded up) for never-seen keys.
    fn workers(&self, lane: Lane) -> usize {
        let permits = self.parts.store.max_in_flight();
        match lane {
            Lane::Known => permits,
            Lane::NeverSeen => permits.div_ceil(4),
        }
    }
}

#[cfg(test)]
mod tests;
