//! Verifies that the ring has the secrets that minted the keys in the store. Under another
//! ring every key would be malformed, which would look like evidence.

use std::{fmt::Write, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::{
    guard::{Guarded, Refused},
    instance::{Doubt, Instance},
    key::{Fingerprint, KeyRing, RingTrust},
    store::{KeyAdmin, SecretUse, StoreError},
    time::Clock,
};

/// How long a start waits for the store to report the secrets of its keys.
const START_LIMIT: Duration = Duration::from_secs(1);

/// Interval of the check once no secret is missing.
const INTERVAL: Duration = Duration::from_secs(5);

/// Compares the ring with the store.
#[derive(Debug)]
pub(super) struct Secrets {
    /// The secrets of the ring, and the retired ones.
    known: Vec<Fingerprint>,
    trust: RingTrust,
    instance: Instance,
    clock: Clock,
    /// When the store last reported that no secret is missing.
    complete_at: Option<Instant>,
    /// The missing secrets that were logged.
    missing: Vec<Fingerprint>,
}

impl Secrets {
    /// `proven` means that memory holds keys that were persisted under these secrets.
    /// Otherwise an unknown tag is no evidence until the store has answered.
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
            missing: Vec::new(),
        }
    }

    /// The missing secrets at the start, if the store answers in time. If there are any,
    /// the caller reports them and does not start.
    pub(super) async fn at_start<S: KeyAdmin>(&mut self, store: &Guarded<S>) -> Vec<SecretUse> {
        let deadline = self.clock.monotonic() + START_LIMIT;
        let answered = timeout_at(deadline, self.unknown_secrets(store, deadline)).await;
        let Ok(Ok(Ok(missing))) = answered else {
            return Vec::new();
        };
        if missing.is_empty() {
            self.apply(&missing);
        }
        missing
    }

    /// Asks the store again, unless it recently reported that no secret is missing.
    pub(super) async fn follow<S: KeyAdmin>(&mut self, store: &Guarded<S>, deadline: Instant) {
        let now = self.clock.monotonic();
        if self.complete_at.is_some_and(|at| now.saturating_duration_since(at) < INTERVAL) {
            return;
        }
        match self.unknown_secrets(store, deadline).await {
            Ok(Ok(missing)) => self.apply(&missing),
            Ok(Err(error)) => tracing::debug!(%error, "could not read which secrets keys name"),
            Err(Refused::Saturated | Refused::Open) => {}
        }
    }

    async fn unknown_secrets<S: KeyAdmin>(
        &self,
        store: &Guarded<S>,
        deadline: Instant,
    ) -> Result<Result<Vec<SecretUse>, StoreError>, Refused> {
        let permit = store.acquire(deadline).await?;
        Ok(permit.run(async |store: &S| store.unknown_secrets(&self.known).await).await)
    }

    fn apply(&mut self, missing: &[SecretUse]) {
        let complete = missing.is_empty();
        self.trust.set(complete);
        self.instance.doubt(Doubt::SecretUnknown, !complete);
        self.complete_at = complete.then(|| self.clock.monotonic());
        let named: Vec<_> = missing.iter().map(|used| used.secret).collect();
        if named == self.missing {
            return;
        }
        if complete {
            tracing::info!("the secret file holds the secrets of all active keys again");
        } else {
            let secrets = described(missing);
            tracing::warn!(
                %secrets,
                "the store has active keys of secrets that are not in the secret file; keys with an \
                 unknown tag are answered UNAVAILABLE; configure the right file, add the secret as \
                 a further line, or list it in `keys.retired_secrets`"
            );
        }
        self.missing = named;
    }
}

/// The fingerprints, each with its number of keys.
pub(super) fn described(missing: &[SecretUse]) -> String {
    let mut words = String::new();
    for SecretUse { secret, keys } in missing {
        let separator = if words.is_empty() { "" } else { ", " };
        let more = if *keys < SecretUse::MANY { "" } else { " or more" };
        let noun = if *keys == 1 { "key" } else { "keys" };
        // Writing to a string cannot fail.
        let _ = write!(words, "{separator}{secret} ({keys}{more} active {noun})");
    }
    words
}

#[cfg(test)]
mod tests;
