//! What happens on a miss: one lookup for each key, however many ask for it.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    cache::Memory,
    guard::{Guarded, Place},
    key::Digest,
    outage::Unavailable,
    store::{Store, StoreErrorKind},
    tasks::Tasks,
    tier::{Freshness, Sighting, Tier},
    time::Clock,
};

/// The bounds of the fill: what happens on a miss.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FillConfig {
    /// How many lookups may be under way or waiting at once; checks of the same
    /// key share one. One more is refused at once as `OVERLOADED`. A lookup waits
    /// for `check.timeout` at most, so that 10000 is far more than a store can
    /// answer in that time, and bounds the memory that a flood can take.
    #[schemars(range(max = 1_000_000))]
    pub max_queued: NonZeroUsize,
}

impl Default for FillConfig {
    fn default() -> Self {
        const MAX_QUEUED: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
        Self { max_queued: MAX_QUEUED }
    }
}

/// Looks keys up in the store and puts what it says into the memory.
///
/// Callers that want the same key share one lookup (coalescing). A lookup has a
/// deadline of its own and each caller keeps its own; callers come and go
/// without disturbing it. When the last one has gone before the lookup has a
/// place at the store, it ends there. Once it is at the store it is finished, as
/// the next caller will want the answer.
#[derive(Debug)]
pub struct Fill<S>(Arc<Shared<S>>);

#[derive(Debug)]
struct Shared<S> {
    under_way: Mutex<HashMap<Digest, Arc<Progress>>>,
    memory: Arc<Memory>,
    store: Arc<Guarded<S>>,
    tasks: Tasks,
    clock: Clock,
    max_queued: usize,
    /// How long a lookup may wait for a place: as long as there is still time to
    /// ask the store afterwards. Waiting longer would keep the place from
    /// somebody who can still be answered.
    patience: Duration,
}

/// How far a lookup has come. Its callers hold the receivers.
type Progress = watch::Sender<Stage>;

#[derive(Debug, Clone)]
enum Stage {
    Queued,
    AtTheStore,
    Done(Result<Sighting, Unavailable>),
}

impl<S> Clone for Fill<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Store> Fill<S> {
    /// A fill that asks `store` and feeds `memory`. One lookup may take
    /// `timeout`, its waiting and the store's query time-out together.
    pub fn new(
        config: FillConfig,
        timeout: Duration,
        memory: Arc<Memory>,
        store: Arc<Guarded<S>>,
        tasks: Tasks,
        clock: Clock,
    ) -> Self {
        let patience = timeout.saturating_sub(store.query_timeout());
        let max_queued = config.max_queued.get();
        let under_way = Mutex::default();
        Self(Arc::new(Shared { under_way, memory, store, tasks, clock, max_queued, patience }))
    }

    /// Forgets what is known about a key whose record has changed.
    ///
    /// A lookup that began before cannot bring the old answer back: it is no
    /// longer the lookup of that key when it is done, and later callers start a
    /// new one.
    pub fn invalidate(&self, digest: &Digest) {
        let mut under_way = self.0.under_way();
        under_way.remove(digest);
        self.0.memory.forget(digest);
    }

    /// Joins the lookup of a key, or starts one.
    fn join(&self, digest: Digest) -> Result<watch::Receiver<Stage>, Unavailable> {
        let mut under_way = self.0.under_way();
        if let Some(progress) = under_way.get(&digest) {
            return Ok(progress.subscribe());
        }
        if under_way.len() >= self.0.max_queued {
            return Err(Unavailable::Overloaded);
        }
        let (progress, caller) = watch::channel(Stage::Queued);
        let progress = Arc::new(progress);
        under_way.insert(digest, Arc::clone(&progress));
        drop(under_way);

        let leader = Leader { shared: Arc::clone(&self.0), digest, progress };
        self.0.tasks.spawn("fill", leader.run());
        Ok(caller)
    }
}

impl<S: Store> Tier for Fill<S> {
    async fn find(&self, digest: Digest, deadline: Instant) -> Result<Sighting, Unavailable> {
        let caller = self.join(digest)?;
        let done = timeout_at(deadline, outcome(caller.clone())).await;
        done.unwrap_or_else(|_| Err(caller.borrow().when_given_up()))
    }
}

/// Waits until a lookup is done.
async fn outcome(mut caller: watch::Receiver<Stage>) -> Result<Sighting, Unavailable> {
    let done = caller.wait_for(|stage| matches!(stage, Stage::Done(_))).await;
    match done.as_deref() {
        Ok(Stage::Done(outcome)) => outcome.clone(),
        // The lookup ended without an outcome: its task panicked.
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

impl<S> Shared<S> {
    /// Nothing panics while it holds this lock, so that what a poisoned lock
    /// protects is whole.
    fn under_way(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Progress>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that carries a lookup out, for all who wait. Takes the lookup off
/// the list when dropped, so that a panic cannot leave one that is never done.
struct Leader<S> {
    shared: Arc<Shared<S>>,
    digest: Digest,
    progress: Arc<Progress>,
}

impl<S: Store> Leader<S> {
    async fn run(self) {
        let deadline = self.shared.clock.monotonic() + self.shared.patience;
        let Some(place) = self.wait_for_place(deadline).await else {
            return;
        };
        let Some(place) = place else {
            return self.finish(Err(Unavailable::Store(StoreErrorKind::Saturated)));
        };
        self.progress.send_replace(Stage::AtTheStore);

        // Taken before the store is asked: what it says was true then or later.
        let validated_at = self.shared.clock.monotonic();
        let outcome = match place.find(&[self.digest]).await {
            Ok(lookup) => lookup.get(&self.digest).cloned().ok_or(Unavailable::Internal),
            Err(error) => {
                tracing::debug!(%error, "the store gave no answer");
                Err(Unavailable::from(&error))
            }
        };
        self.finish(outcome.map(|answer| Sighting {
            answer,
            validated_at,
            freshness: Freshness::Fresh,
        }));
    }

    /// A place at the store, or none until the deadline. `None` when the last
    /// caller has gone, and the lookup with it.
    async fn wait_for_place(&self, deadline: Instant) -> Option<Option<Place<'_, S>>> {
        let mut entering = pin!(self.shared.store.enter(deadline));
        loop {
            tokio::select! {
                place = &mut entering => return Some(place),
                () = self.progress.closed() => if self.end_if_abandoned() {
                    return None;
                },
            }
        }
    }

    /// Ends the lookup if it has no caller. Under the lock, so that nobody can
    /// join in between.
    fn end_if_abandoned(&self) -> bool {
        let mut under_way = self.shared.under_way();
        let abandoned = self.progress.receiver_count() == 0;
        if abandoned {
            self.take_off(&mut under_way);
        }
        abandoned
    }

    /// Tells the callers, and the memory unless the key has changed since.
    fn finish(&self, outcome: Result<Sighting, Unavailable>) {
        let mut under_way = self.shared.under_way();
        if self.take_off(&mut under_way)
            && let Ok(Sighting { answer, validated_at, .. }) = &outcome
        {
            self.shared.memory.put(self.digest, answer, *validated_at);
        }
        drop(under_way);
        self.progress.send_replace(Stage::Done(outcome));
    }
}

impl<S> Leader<S> {
    /// Takes the lookup off the list. False if it was no longer there, because
    /// the key was invalidated.
    fn take_off(&self, under_way: &mut HashMap<Digest, Arc<Progress>>) -> bool {
        let ours = under_way.get(&self.digest).is_some_and(|p| Arc::ptr_eq(p, &self.progress));
        if ours {
            under_way.remove(&self.digest);
        }
        ours
    }
}

impl<S> Drop for Leader<S> {
    fn drop(&mut self) {
        let mut under_way = self.shared.under_way();
        self.take_off(&mut under_way);
    }
}

#[cfg(test)]
mod tests;
