//! When keys were last used: noted on the way, stored behind it.
//!
//! A use costs a check one atomic read. One use a minute of each key is queued,
//! and what is queued is written in batches, after everything else. It is the
//! first thing to be given up: when the queue is full, no place is free or the
//! breaker is not closed, uses are forgotten, and `last_used_at` is older than
//! the truth.

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

/// How exact `last_used_at` is.
const NOTE_EVERY: Duration = Duration::from_mins(1);

/// How long uses are gathered before they are written.
const WRITE_EVERY: Duration = Duration::from_secs(10);

/// How many uses may wait to be gathered: what 10,000 keys that are all used
/// for the first time at once give, about 0.5 MB.
const MAX_QUEUED: usize = 10_000;

/// How many keys are written at once; reached, it is written early.
const MAX_BATCH: usize = 1_000;

/// Where checks note that a key was used.
#[derive(Debug, Clone)]
pub struct UseLog(Sender<(KeyId, Timestamp)>);

/// Writes what was noted.
#[derive(Debug)]
pub struct UseWriter<S> {
    noted: Receiver<(KeyId, Timestamp)>,
    store: Arc<Guarded<S>>,
    clock: Clock,
}

/// A log, and the writer to be run behind it.
pub fn use_log<S: Usage>(store: Arc<Guarded<S>>, clock: Clock) -> (UseLog, UseWriter<S>) {
    let (log, noted) = mpsc::channel(MAX_QUEUED);
    (UseLog(log), UseWriter { noted, store, clock })
}

impl UseLog {
    /// Notes that a key was used. Never waits.
    pub fn note(&self, key: &CompactKey, now: Timestamp) {
        if key.note_use(now, NOTE_EVERY) && self.0.try_send((key.key_id(), now)).is_err() {
            tracing::debug!(key_id = key.id(), "a use is not stored: the queue is full");
        }
    }
}

impl<S: Usage> UseWriter<S> {
    /// Writes until `stop` is cancelled, and then what has been noted by then.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(first) = self.next(&stop).await {
            let batch = self.gather(first, &stop).await;
            self.write(&batch).await;
        }
    }

    /// The next use. None when all have been taken after the stop.
    async fn next(&mut self, stop: &CancellationToken) -> Option<(KeyId, Timestamp)> {
        tokio::select! {
            use_noted = self.noted.recv() => use_noted,
            () = stop.cancelled() => {
                self.noted.close();
                self.noted.recv().await
            }
        }
    }

    /// What comes within [`WRITE_EVERY`] of the first, the latest use of each
    /// key.
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
        let Some(place) = self.store.try_acquire() else {
            tracing::debug!(
                keys = uses.len(),
                "uses are not stored: the store is busy or left alone"
            );
            return;
        };
        if let Err(error) = place.run(async |store: &S| store.touch(uses).await).await {
            tracing::debug!(%error, keys = uses.len(), "uses are not stored");
        }
    }
}

#[cfg(test)]
mod tests;
