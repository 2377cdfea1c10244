//! A worker serves one lane: it acquires a permit, takes a batch, runs one query,
//! publishes the answers, and repeats until the lane is empty.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use tokio::time::Instant;

use super::{
    PROBE_DIGEST, PROBE_MISSING, PROBE_WITNESSES, Parts, Shared,
    queue::{Batch, Lane, Stage, Taken},
};
use crate::{
    cache::Memory,
    guard::{Permit, Refused},
    key::Digest,
    outage::Unavailable,
    store::{Answer, ChangeKind, DataAge, Lookup, Lookups, StoreError, StoreErrorKind},
    tier::{Freshness, Observation},
};

/// Counted in the queue until its lane is empty.
pub(super) struct Worker<S: Lookups> {
    shared: Arc<Shared<S>>,
    lane: Lane,
}

impl<S: Lookups> Worker<S> {
    /// Starts a worker that was added to the queue.
    pub(super) fn start(shared: &Arc<Shared<S>>, lane: Lane) {
        let worker = Self { shared: Arc::clone(shared), lane };
        shared.parts.tasks.spawn("fill", worker.run());
    }

    async fn run(self) {
        loop {
            // A panic fails only the lookups of its own query.
            let _ = AssertUnwindSafe(self.work()).catch_unwind().await;
            if self.shared.queue().dismiss_if_idle(self.lane) {
                return;
            }
        }
    }

    async fn work(&self) {
        let now = self.shared.parts.clock.monotonic();
        match self.shared.parts.store.acquire(now + self.shared.timeout).await {
            Ok(permit) => self.ask(permit).await,
            // Callers time out on their own; late lookups are rejected when they are
            // taken.
            Err(Refused::Saturated) => {}
            Err(Refused::Open) => self.reject_all(),
        }
    }

    /// Queries the queued lookups. Later arrivals go into the next query.
    async fn ask(&self, permit: Permit<'_, S>) {
        let batch = self.take(self.shared.pace.batch());
        let taken = Unfinished { shared: &self.shared, taken: batch.taken };
        reject_late(batch.late);
        if !taken.taken.is_empty() {
            taken.ask(permit).await;
        }
    }

    fn take(&self, max: usize) -> Batch {
        let now = self.shared.parts.clock.monotonic();
        let time = (self.shared.pace.expected(now), self.shared.parts.store.query_timeout());
        self.shared.queue().take(self.lane, max, now, time)
    }

    /// Rejects all queued lookups, as the breaker is open.
    fn reject_all(&self) {
        let batch = self.take(usize::MAX);
        reject_late(batch.late);
        let rejected = Unfinished { shared: &self.shared, taken: batch.taken };
        rejected.finish(|_, _| Err(Unavailable::BreakerOpen));
    }
}

/// Taken lookups without an outcome yet. Removes them from the queue when dropped, so
/// that a panic cannot leave one pending for ever.
struct Unfinished<'a, S: Lookups> {
    shared: &'a Shared<S>,
    taken: Vec<Taken>,
}

impl<S: Lookups> Unfinished<'_, S> {
    async fn ask(self, permit: Permit<'_, S>) {
        let parts = &self.shared.parts;
        let mut asked: Vec<Digest> = self.taken.iter().map(|taken| taken.digest).collect();
        let witness = self.witness();
        let along = witness.filter(|witness| !asked.contains(witness));
        asked.extend(along);
        parts.metrics.fill_batch(self.taken.len());

        // Read before the query: the answer was true then or later.
        let asked_at = parts.clock.monotonic();
        let answer = permit.find(&asked).await;
        self.shared.pace.took(asked_at.elapsed(), self.taken.len(), parts.clock.monotonic());
        let lookup = match answer {
            Ok(lookup) => lookup,
            Err(error) => {
                tracing::debug!(%error, "store lookup failed");
                return self.finish(|_, _| Err(Unavailable::from(&error)));
            }
        };
        if let Some(witness) = along
            && let Some(answer) = lookup.get(&witness)
        {
            parts.take_witness(&witness, answer, asked_at);
        }
        // Absences are not believed from a store that has none of the keys it should
        // have.
        let present = |digest| matches!(lookup.get(digest), Some(Answer::Found(_)));
        let credible = witness.is_none() || asked.iter().any(present);
        self.finish(|digest, ours| {
            // The cache itself judges absences of cached keys.
            let believed = !ours
                || parts.memory.knows(digest)
                || !matches!(lookup.get(digest), Some(Answer::Absent(_)))
                || parts.suspicion.misses_ours(digest);
            let credible = believed && (credible || parts.suspicion.was_deleted(digest));
            self::outcome(&parts.memory, &lookup, digest, asked_at, credible)
        });
    }

    /// A key that the store should have, if the batch contains a key that is not
    /// cached. It may be in the batch itself.
    fn witness(&self) -> Option<Digest> {
        let knows = |taken: &Taken| self.shared.parts.memory.knows(&taken.digest);
        if self.taken.iter().all(knows) {
            return None;
        }
        self.shared.parts.suspicion.witnesses(1).pop()
    }

    /// Caches the answers and sends the outcomes to the callers.
    fn finish(mut self, outcome: impl Fn(&Digest, bool) -> Result<Observation, Unavailable>) {
        let mut finished = Vec::with_capacity(self.taken.len());
        let mut news = Vec::new();
        let mut queue = self.shared.queue();
        // One at a time: on a panic, `drop` removes the others.
        while let Some(Taken { digest, ticket, ours, stage, had_caller }) = self.taken.pop() {
            let changed = queue.finish(&digest, ticket);
            let mut outcome = outcome(&digest, ours);
            if let Ok(observation) = outcome {
                let Observation { answer, validated_at, .. } = &observation;
                let memory = &self.shared.parts.memory;
                // An answer read before a change is not cached.
                let current =
                    changed.is_none_or(|last| memory.includes(answer, *validated_at, last));
                let new = memory.news(digest, answer);
                let counts = if current {
                    memory.take(digest, answer, *validated_at)
                } else {
                    memory.take_revocation(&digest, answer);
                    memory.judge(&digest, answer)
                };
                news.extend(new.filter(|_| counts.is_ok()));
                outcome = counts.map(|answer| Observation { answer, ..observation });
            }
            finished.push((stage, outcome, had_caller));
        }
        drop(queue);
        self.shared.parts.journal.note(&news);
        for (stage, outcome, had_caller) in finished {
            // Without callers, the cached record was served meanwhile.
            if let (Err(cause), false) = (&outcome, had_caller) {
                self.shared.parts.metrics.masked_failure("store", cause.as_str());
            }
            stage.send_replace(Stage::Done(outcome));
        }
    }
}

impl<S: Lookups> Drop for Unfinished<'_, S> {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        for Taken { digest, ticket, .. } in &self.taken {
            queue.finish(digest, *ticket);
        }
    }
}

impl<S> Parts<S> {
    /// See [`Memory::take_witness`].
    fn take_witness(&self, digest: &Digest, answer: &Answer, asked_at: Instant) {
        let news = self.memory.news(*digest, answer);
        self.memory.take_witness(digest, answer, asked_at);
        let revoked = news.filter(|change| change.kind == ChangeKind::Revoked);
        self.journal.note(revoked.as_slice());
    }
}

/// The outcome for one key of a query.
fn outcome(
    memory: &Memory,
    lookup: &Lookup,
    digest: &Digest,
    asked_at: Instant,
    credible: bool,
) -> Result<Observation, Unavailable> {
    match lookup.get(digest) {
        Some(Answer::Absent(_)) if !credible => Err(Unavailable::Suspect),
        Some(answer) => {
            let age = lookup.age();
            let freshness = match answer {
                Answer::Found(known) => memory.served(known, age, asked_at),
                Answer::Absent(_) => Some(Freshness::Fresh),
            };
            let freshness = freshness.ok_or(Unavailable::Store(StoreErrorKind::Lagging))?;
            let validated_at = age.as_of(asked_at);
            Ok(Observation { answer: answer.clone(), validated_at, freshness })
        }
        None => Err(match lookup.unreadable(digest) {
            Some(error) if error.kind() == StoreErrorKind::Lagging => Unavailable::from(error),
            Some(error) => {
                tracing::warn!(%error, "unreadable key; correct its row");
                Unavailable::from(error)
            }
            None => Unavailable::Internal,
        }),
    }
}

fn reject_late(late: Vec<tokio::sync::watch::Sender<Stage>>) {
    for stage in late {
        stage.send_replace(Stage::Done(Err(Unavailable::Store(StoreErrorKind::Saturated))));
    }
}

/// See [`super::Fill::probe`].
pub(super) async fn probe<S: Lookups>(
    shared: &Shared<S>,
    deadline: Instant,
) -> Result<Result<DataAge, StoreError>, Refused> {
    let parts = &shared.parts;
    let permit = parts.store.acquire(deadline).await?;
    let mut witnesses = parts.suspicion.witnesses(PROBE_WITNESSES);
    witnesses.extend(parts.suspicion.still_missing(PROBE_MISSING));
    let asked = [&[PROBE_DIGEST], witnesses.as_slice()].concat();
    let asked_at = parts.clock.monotonic();
    let lookup = match permit.run(async |store: &S| store.find(&asked).await).await {
        Ok(lookup) => lookup,
        Err(error) => return Ok(Err(error)),
    };
    for witness in &witnesses {
        if let Some(answer) = lookup.get(witness) {
            parts.take_witness(witness, answer, asked_at);
        }
    }
    Ok(Ok(lookup.age()))
}

/// See [`super::Fill::recall`].
pub(super) async fn recall<S: Lookups>(
    shared: &Shared<S>,
    deadline: Instant,
) -> Result<Result<(), StoreError>, Refused> {
    let parts = &shared.parts;
    if !parts.suspicion.wants_history(parts.clock.monotonic()) {
        return Ok(Ok(()));
    }
    let permit = parts.store.acquire(deadline).await?;
    let asked_at = parts.clock.monotonic();
    let history = permit.run(async |store: &S| store.history().await).await;
    match history {
        Ok(history) => parts.suspicion.hear(history, asked_at),
        // Until the first history, no absence is evidence, so that the store is unusable.
        Err(error) if parts.suspicion.awaits_history() => return Ok(Err(error)),
        Err(error) => tracing::debug!(%error, "store history query failed"),
    }
    Ok(Ok(()))
}
