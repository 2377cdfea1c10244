//! Whether the ring has the secrets that the keys in the store were minted with. Of
//! another ring every key would be malformed, and that would look like evidence.

use std::{fmt::Write, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::{
    guard::{Guarded, Refused},
    instance::{Doubt, Instance},
    key::{Fingerprint, KeyRing, RingTrust},
    store::{KeyAdmin, SecretUse, StoreError},
    time::Clock,
};

/// How long a start waits for the store to tell which secrets its keys name.
const AT_START: Duration = Duration::from_secs(1);

/// How often it is asked again once it has told that none is lacking.
const EVERY: Duration = Duration::from_secs(5);

/// Holds the ring against the store.
#[derive(Debug)]
pub(super) struct Secrets {
    /// Those of the ring, and those that were given up.
    known: Vec<Fingerprint>,
    trust: RingTrust,
    instance: Instance,
    clock: Clock,
    /// When the store last told that none is lacking.
    complete_at: Option<Instant>,
    /// What it said is lacking, which was logged.
    lacking: Vec<Fingerprint>,
}

impl Secrets {
    /// `proven` says that keys are in memory which were kept under these secrets.
    /// Without it, a tag that is not ours is no evidence until the store has told.
    pub(super) fn new(
        ring: &KeyRing,
        retired: &[Fingerprint],
        proven: bool,
        instance: Instance,
        clock: Clock,
    ) -> Self {
        ring.trust().set(proven);
        Self {
            known: ring.fingerprints().chain(retired.iter().copied()).collect(),
            trust: ring.trust().clone(),
            instance,
            clock,
            complete_at: None,
            lacking: Vec::new(),
        }
    }

    /// Asks at the start: the secrets that are lacking, if the store tells in time.
    /// They are told by whoever does not go on for them.
    pub(super) async fn at_start<S: KeyAdmin>(&mut self, store: &Guarded<S>) -> Vec<SecretUse> {
        let deadline = self.clock.monotonic() + AT_START;
        let told = timeout_at(deadline, self.ask(store, deadline)).await;
        let Ok(Ok(Ok(lacking))) = told else {
            return Vec::new();
        };
        if lacking.is_empty() {
            self.take(&lacking);
        }
        lacking
    }

    /// Asks the store, unless it has just told that none is lacking.
    pub(super) async fn follow<S: KeyAdmin>(&mut self, store: &Guarded<S>, deadline: Instant) {
        let now = self.clock.monotonic();
        if self.complete_at.is_some_and(|at| now.saturating_duration_since(at) < EVERY) {
            return;
        }
        match self.ask(store, deadline).await {
            Ok(Ok(lacking)) => self.take(&lacking),
            Ok(Err(error)) => tracing::debug!(%error, "the store does not tell its secrets"),
            Err(Refused::Saturated | Refused::Open) => {}
        }
    }

    async fn ask<S: KeyAdmin>(
        &self,
        store: &Guarded<S>,
        deadline: Instant,
    ) -> Result<Result<Vec<SecretUse>, StoreError>, Refused> {
        let place = store.acquire(deadline).await?;
        Ok(place.run(async |store: &S| store.unknown_secrets(&self.known).await).await)
    }

    fn take(&mut self, lacking: &[SecretUse]) {
        let complete = lacking.is_empty();
        self.trust.set(complete);
        self.instance.doubt(Doubt::SecretUnknown, !complete);
        self.complete_at = complete.then(|| self.clock.monotonic());
        let named: Vec<_> = lacking.iter().map(|used| used.secret).collect();
        if named == self.lacking {
            return;
        }
        if complete {
            tracing::info!("the secret file has the secrets of all keys again");
        } else {
            let secrets = in_words(lacking);
            tracing::warn!(
                %secrets,
                "the store has active keys of secrets that are not in the secret file: a key whose \
                 tag nobody can check is told UNAVAILABLE; give it the right file, add the secret \
                 as a further line, or list it in `keys.retired_secrets`"
            );
        }
        self.lacking = named;
    }
}

/// The fingerprints, each with how many keys name it.
pub(super) fn in_words(lacking: &[SecretUse]) -> String {
    let mut words = String::new();
    for SecretUse { secret, keys } in lacking {
        let separator = if words.is_empty() { "" } else { ", " };
        let more = if *keys < SecretUse::MANY { "" } else { " or more" };
        let noun = if *keys == 1 { "key" } else { "keys" };
        // Writing to a text cannot fail.
        let _ = write!(words, "{separator}{secret} ({keys}{more} active {noun})");
    }
    words
}

#[cfg(test)]
mod tests;
