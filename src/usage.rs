//! Records when keys were last used, and writes it in the background.
//!
//! A use costs a check one atomic read. One use a minute of each key is queued,
//! and queued uses are written in batches, after all other work. They are shed
//! first: when the queue is full, no permit is free or the breaker is not closed,
//! uses are dropped, and `last_used_at` is older than the truth.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    time::timeout_at,
};
use tokio_util::sync::CancellationToken;

use crate::{
    guard::Guarded,
    key::{CompactKey, KeyId},
    store::Usage,
    time::Clock,
};

/// Resolution of `last_used_at`.
const NOTE_EVERY: Duration = Duration::from_mins(1);

/// How long uses are batched before they are written.
const WRITE_EVERY: Duration = Duration::from_secs(10);

/// Capacity of the queue: the first use of 10,000 keys at once, about 0.5 MB.
const MAX_QUEUED: usize = 10_000;

/// Maximum number of keys in a batch; a full batch is written early.
const MAX_BATCH: usize = 1_000;

/// Queues uses of keys for the [`UseWriter`].
#[derive(Debug, Clone)]
pub struct UseLog(Sender<(KeyId, Timestamp)>);

/// Writes queued uses to the store.
#[derive(Debug)]
pub struct UseWriter<S> {
    noted: Receiver<(KeyId, Timestamp)>,
    store: Arc<Guarded<S>>,
    clock: Clock,
}

/// Creates a log and its writer, which runs as a background task.
pub fn use_log<S: Usage>(store: Arc<Guarded<S>>, clock: Clock) -> (UseLog, UseWriter<S>) {
    let (log, noted) = mpsc::channel(MAX_QUEUED);
    (UseLog(log), UseWriter { noted, store, clock })
}

impl UseLog {
    /// Queues a use of a key. Never waits; drops the use if the queue is full.
    pub fn note(&self, key: &CompactKey, now: Timestamp) {
        if key.note_use(now, NOTE_EVERY) && self.0.try_send((key.key_id(), now)).is_err() {
            tracing::debug!(key_id = key.id(), "a use is not stored: the queue is full");
        }
    }
}

impl<S: Usage> UseWriter<S> {
    /// Writes uses until `stop` is cancelled, then those queued by then.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(first) = self.next(&stop).await {
            let batch = self.gather(first, &stop).await;
            self.write(&batch).await;
        }
    }

    /// Next use. `None` after the stop once the queue is empty.
    async fn next(&mut self, stop: &CancellationToken) -> Option<(KeyId, Timestamp)> {
        tokio::select! {
            use_noted = self.noted.recv() => use_noted,
            () = stop.cancelled() => {
                self.noted.close();
                self.noted.recv().await
            }
        }
    }

    /// Uses within [`WRITE_EVERY`] of the first, the latest of each key.
    async fn gather(
        &mut self,
        first: (KeyId, Timestamp),
        stop: &CancellationToken,
    ) -> Vec<(KeyId, Timestamp)> {
        let mut uses = HashMap::from([first]);
        let end = self.clock.monotonic() + WRITE_EVERY;
        while uses.len() < MAX_BATCH
            && let Ok(Some((id, at))) = timeout_at(end, self.next(stop)).await
        {
            uses.insert(id, at);
        }
        uses.into_iter().collect()
    }

    async fn write(&self, uses: &[(KeyId, Timestamp)]) {
        let Some(permit) = self.store.try_acquire() else {
            tracing::debug!(
                keys = uses.len(),
                "uses are dropped: no permit is free or the breaker is not closed"
            );
            return;
        };
        if let Err(error) = permit.run(async |store: &S| store.touch(uses).await).await {
            tracing::debug!(%error, keys = uses.len(), "uses are not stored");
        }
    }
}

#[cfg(test)]
mod tests;
