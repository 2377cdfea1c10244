//! What happens on a miss: one lookup for each key, one query for many keys.
//!
//! Callers that want the same key share one lookup (coalescing); lookups that
//! wait share one query (batching). They wait in two lanes, known keys and keys
//! that nobody has seen, so that a flood of the latter cannot starve the former.
//! A single miss goes at once; what waits is taken, oldest first, when there is a
//! place at the store, and refused when it could no longer be answered in time.

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

/// A digest that no key has: no preimage of it is known.
pub(crate) const PROBE_DIGEST: Digest = Digest::from_bytes([0; Digest::LEN]);

/// What a key more in a query costs when all places are busy.
const TIME_PER_KEY: Duration = Duration::from_micros(40);

/// How many known keys a probe asks for besides: more than it takes by default to
/// tell an emptied store at once, and to outweigh ten keys that are gone.
const PROBE_WITNESSES: usize = 16;

/// How many missing keys a probe asks for: a usual batch, so that all are found
/// within seconds when they are back.
const PROBE_MISSING: usize = 250;

/// Looks keys up in the store and puts what it says into the memory.
///
/// Each caller keeps its own deadline; callers come and go without disturbing
/// the lookup. When the last one has gone before the lookup has reached the
/// store, the store is not asked. Once it is at the store it is finished, as the
/// next caller will want the answer. Clones share the lookups.
#[derive(Debug)]
pub struct Fill<S>(Arc<Shared<S>>);

#[derive(Debug)]
struct Shared<S> {
    queue: Mutex<Queue>,
    pace: Pace,
    parts: Parts<S>,
    timeout: Duration,
}

/// What the fill works with.
#[derive(Debug)]
pub struct Parts<S> {
    /// Where answers go.
    pub memory: Arc<Memory>,
    /// Where changes and ends of keys outlive the process.
    pub journal: Journal,
    /// Whether an absence is believed.
    pub suspicion: Arc<Suspicion>,
    /// Where they come from.
    pub store: Arc<Guarded<S>>,
    /// Where lookups run.
    pub tasks: Tasks,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
    /// By what their age is measured.
    pub clock: Clock,
}

impl<S> Clone for Fill<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Lookups> Fill<S> {
    /// A fill whose lookups are worth `timeout`, their waiting and the query
    /// together, where no caller says otherwise.
    #[must_use]
    pub fn new(config: FillConfig, timeout: Duration, parts: Parts<S>) -> Self {
        let queue = Mutex::new(Queue::new(config.max_queued.get()));
        let pace = Pace::new(config.batch_max, parts.store.query_timeout());
        Self(Arc::new(Shared { queue, pace, parts, timeout }))
    }

    /// Takes in numbered changes, in their order. A record that is outdated is
    /// dropped, and asked for again at once.
    ///
    /// A lookup that began before cannot bring the old answer back: what it reads
    /// is remembered only if it is as new as the change, and later callers start
    /// a new one.
    pub fn apply(&self, changes: &[Change]) {
        for change in changes {
            let mut queue = self.0.queue();
            queue.fence(&change.digest, change.revision);
            let dropped = self.0.parts.memory.change(change);
            drop(queue);
            if dropped && change.kind != ChangeKind::Deleted {
                // When it is not taken, the next check asks.
                let _ = self.refresh(change.digest);
            }
        }
        self.0.parts.journal.note(changes);
    }

    /// Asks the store for a key that does not exist, with the query that checks
    /// use, and for some that it should have: a server that is down, a table
    /// that is gone and a table that was emptied are all found. Waits for a
    /// place until `deadline`; fails when there is none. Returns how old the data are.
    pub async fn probe(&self, deadline: Instant) -> Result<Result<DataAge, StoreError>, Refused> {
        worker::probe(&self.0, deadline).await
    }

    /// How many keys a second the store could look up if all places asked for
    /// full batches: `places × batch_max ÷ (recent query time + batch_max × 40 µs)`.
    ///
    /// What queries take of late is mostly that of small ones; a key more costs
    /// 40 µs when all places are busy, as measured in
    /// `docs/adr/2026-11-22-queue-discipline.md`.
    #[must_use]
    pub fn capacity(&self) -> f64 {
        let places = u32::try_from(self.0.parts.store.max_in_flight()).unwrap_or(u32::MAX);
        let batch = u32::try_from(self.0.pace.batch()).unwrap_or(u32::MAX);
        let time = self.0.pace.expected(self.0.parts.clock.monotonic()) + TIME_PER_KEY * batch;
        f64::from(places) * f64::from(batch) / time.as_secs_f64()
    }

    /// Asks the store for its history if that is due, for a place until `deadline`.
    /// Fails when there is none.
    pub async fn recall(&self, deadline: Instant) -> Result<Result<(), StoreError>, Refused> {
        worker::recall(&self.0, deadline).await
    }

    /// The store that is asked.
    #[must_use]
    pub fn store(&self) -> &Guarded<S> {
        &self.0.parts.store
    }

    /// Shows how many lookups wait and how much headroom there is, for as long as somebody
    /// else holds the fill.
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

    /// Whether the store is not believed about what it lacks.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.0.parts.suspicion.is_suspect()
    }

    /// Joins the lookup of a key, or starts one.
    fn join(&self, order: &LookupRequest) -> Result<watch::Receiver<Stage>, Unavailable> {
        let now = self.0.parts.clock.monotonic();
        let mut queue = self.0.queue();
        if let Some(caller) = queue.join(order, now) {
            return Ok(caller);
        }
        if !self.0.parts.store.admits() {
            return Err(Unavailable::BreakerOpen);
        }
        let caller = queue.push(order, now)?;
        let hired = queue.add_worker(order.lane, self.0.workers(order.lane));
        drop(queue);
        if hired {
            Worker::start(&self.0, order.lane);
        }
        Ok(caller)
    }

    /// Keys that are ours and keys that are in memory before all others.
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
        let order = LookupRequest { digest, lane, ours, answer_by: deadline, background: false };
        let caller = self.join(&order)?;
        let done = timeout_at(deadline, outcome(caller.clone())).await;
        done.unwrap_or_else(|_| Err(caller.borrow().when_given_up()))
    }
}

impl<S: Lookups> Refresh for Fill<S> {
    fn refresh(&self, digest: Digest) -> Result<(), Unavailable> {
        let answer_by = self.0.parts.clock.monotonic() + self.0.timeout;
        // Of a key that was known, it is not said how its credential was read.
        let order =
            LookupRequest { digest, lane: Lane::Known, ours: false, answer_by, background: true };
        self.join(&order).map(drop)
    }

    fn in_doubt(&self) -> bool {
        self.0.parts.store.in_doubt()
    }

    fn doubt(&self) -> Option<Unavailable> {
        self.0.parts.store.doubt()
    }
}

/// Waits until a lookup is done.
async fn outcome(mut caller: watch::Receiver<Stage>) -> Result<Observation, Unavailable> {
    let done = caller.wait_for(|stage| matches!(stage, Stage::Done(_))).await;
    match done.as_deref() {
        Ok(Stage::Done(outcome)) => outcome.clone(),
        // The lookup ended without an outcome: its worker panicked.
        Ok(Stage::Queued | Stage::AtTheStore) | Err(_) => Err(Unavailable::Internal),
    }
}

impl Stage {
    /// What a caller is told who cannot wait any longer.
    const fn when_given_up(&self) -> Unavailable {
        match self {
            Self::Queued => Unavailable::Store(StoreErrorKind::Saturated),
            Self::AtTheStore | Self::Done(_) => Unavailable::Store(StoreErrorKind::Timeout),
        }
    }
}

impl<S: Lookups> Shared<S> {
    /// Nothing panics while it holds this lock, so that what a poisoned lock
    /// protects is whole.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many queries of a lane may be at the store at once: those of known
    /// keys may take all places, those of never-seen ones a quarter.
    fn workers(&self, lane: Lane) -> usize {
        let places = self.parts.store.max_in_flight();
        match lane {
            Lane::Known => places,
            Lane::NeverSeen => places.div_ceil(4),
        }
    }
}

#[cfg(test)]
mod tests;
