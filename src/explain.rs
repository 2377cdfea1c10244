//! Explains the result of a check step by step, for an engineer on call.
//!
//! Reads what checks read, without side effects: it does not touch the recency of cache entries,
//! starts no refresh and raises no suspicion. It queries the store over separate connections behind
//! a separate guard. [`check::decide`] decides, as for a check.

mod agreement;
mod find;
mod notes;
mod rule;

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

pub use agreement::Agreement;
pub use find::Basis;

use crate::{
    cache::{Coverage, Inspection, Memory, Remembered},
    check::{self, Decision, Denial, MissingCredential, Needs},
    guard::{BreakerState, Guarded},
    key::{Credential, Digest, Fault, KeyRing, Oddity, Reading, Unread},
    outage::Unavailable,
    store::{Answer, DataAge, Lookup, Lookups, StoreError, StoreErrorKind},
    suspect::Suspicion,
    tier::{Freshness, Observation},
    time::{Clock, Moment},
};

/// Explains the result that a check would get.
#[derive(Debug)]
pub struct Explainer<S> {
    parts: Parts<S>,
    store: Guarded<S>,
}

/// The parts of checks that an explanation reads.
#[derive(Debug)]
pub struct Parts<S> {
    /// The secrets that checks verify with.
    pub ring: KeyRing,
    /// The cache of checks.
    pub memory: Arc<Memory>,
    /// Whether checks believe absences.
    pub suspicion: Arc<Suspicion>,
    /// How far the feed has applied changes to the cache.
    pub coverage: Arc<Coverage>,
    /// The guard of checks. Its state is read; no permit is acquired from it.
    pub checks: Arc<Guarded<S>>,
    /// How long a check with a stale record waits for the store.
    pub revalidate_wait: Duration,
    /// The clocks of checks.
    pub clock: Clock,
}

/// A decision with every step that led to it. Contains neither key nor digest.
#[derive(Debug)]
pub struct Explanation {
    /// Result that a check would get.
    pub decision: Result<Decision, Unavailable>,
    /// Source of the result.
    pub basis: Basis,
    /// The rule that decided and the values that it compared, as a sentence.
    pub rule: String,
    /// How the credential was parsed; `None` if none was presented.
    pub reading: Option<Result<Reading, Fault>>,
    /// The lookup, if there was one.
    pub seen: Option<Seen>,
    /// The outcome from the store's answer alone, if there was one.
    pub by_the_store: Option<Decision>,
    /// Reasons why checks may not trust the store.
    pub doubts: Doubts,
    /// Further notes, a sentence each.
    pub notes: Vec<String>,
}

/// State of a key in the cache and in the store.
#[derive(Debug)]
pub struct Seen {
    /// When the cache was read.
    pub at: Moment,
    /// Cache entry.
    pub memory: Inspection,
    /// The answer of the store.
    pub store: StoreReply,
}

/// Reply of the store.
#[derive(Debug)]
pub struct StoreReply {
    /// When it was called. The answer was true then or later.
    pub at: Instant,
    /// Duration of the call, including a new connection if it needed one.
    pub took: Duration,
    /// Its answer, or why there is none.
    pub answer: Result<Answer, LookupFailure>,
    /// Whether the store has a witness, if one was looked up too: if not, an absence is no
    /// evidence.
    pub credible: bool,
    /// Age of the data that the answer came from.
    pub age: DataAge,
}

/// Why the store gave no answer.
#[derive(Debug, Clone)]
pub struct LookupFailure {
    /// The cause that a check would report.
    pub cause: Unavailable,
    /// The error message. Contains no digest.
    pub detail: String,
}

/// How checks see the store.
#[derive(Debug)]
pub struct Doubts {
    /// State of the circuit breaker.
    pub breaker: BreakerState,
    /// Whether the breaker would admit a call now.
    pub admits: bool,
    /// Time until the next probe of the store; `None` while the breaker is closed.
    pub tried_in: Option<Duration>,
    /// Why a check with a cached record would not wait for the store.
    pub doubt: Option<Unavailable>,
    /// Last failure of the store.
    pub last_failure: Option<StoreError>,
    /// Whether no absence is evidence.
    pub suspect: bool,
    /// Whether the data are too old for any record to be fresh or any key to be absent.
    pub lagging: bool,
    /// Time up to which the feed has applied all changes.
    pub changes_until: Option<jiff::Timestamp>,
}

impl<S: Lookups> Explainer<S> {
    /// Explains checks that use `parts`, with queries of its own to `store`.
    #[must_use]
    pub const fn new(parts: Parts<S>, store: Guarded<S>) -> Self {
        Self { parts, store }
    }

    /// Explains what a check of `presented` would return now. Queries the store whenever there is a
    /// key to look up, even if a check would not.
    ///
    /// Returns by `deadline`. May be cancelled at any point.
    pub async fn explain(
        &self,
        presented: Option<&[u8]>,
        needs: Needs<'_>,
        deadline: Instant,
    ) -> Explanation {
        let mut explanation = self.explained(presented, needs, deadline).await;
        if let (Some(presented), Ok(Decision::Deny(denial))) =
            (presented, &mut explanation.decision)
        {
            denial.look_at(presented, self.parts.ring.prefix());
        }
        explanation
    }

    async fn explained(
        &self,
        presented: Option<&[u8]>,
        needs: Needs<'_>,
        deadline: Instant,
    ) -> Explanation {
        let Some(presented) = presented else {
            return self.without_lookup(Ok(MissingCredential.into()), None);
        };
        let reading = self.parts.ring.inspect(presented);
        let credential = match self.parts.ring.read(presented) {
            Ok(credential) => credential,
            Err(Unread::Malformed(malformed)) => {
                let mut explanation = self.without_lookup(Ok(malformed.into()), Some(reading));
                explanation.notes.extend(self.odd(presented));
                return explanation;
            }
            Err(Unread::SecretUnknown) => {
                return self.without_lookup(Err(Unavailable::SecretUnknown), Some(reading));
            }
        };
        let digest = credential.digest();
        let at = self.parts.clock.moment();
        let memory = &self.parts.memory;
        let ours = matches!(credential, Credential::Ours(_));
        let (doubts, memory) = (self.doubts(at), memory.inspect(&digest, ours, at.monotonic));
        let store = self.ask(digest, &memory, deadline).await;
        let seen = Seen { at, memory, store };

        let (found, basis) = find::found(&seen, &doubts, self.parts.revalidate_wait);
        let now = self.parts.clock.moment();
        let decision = found.clone().map(|observation| check::decide(observation, needs, now));
        let rule = rule::of(&decision, found.ok().as_ref(), needs, now);
        let by_the_store = seen.store.observation().ok().map(|it| check::decide(it, needs, now));
        let mut notes = notes::of(&seen, &doubts, basis, self.parts.revalidate_wait);
        if !ours {
            notes.extend(self.odd(presented));
        }
        let (reading, seen) = (Some(reading), Some(seen));
        Explanation { decision, basis, rule, reading, seen, by_the_store, doubts, notes }
    }

    fn odd(&self, presented: &[u8]) -> Option<String> {
        let oddity = Oddity::of(presented, self.parts.ring.prefix())?;
        Some(format!("what was presented is odd: {}", oddity.as_str()))
    }

    fn without_lookup(
        &self,
        denial: Result<Denial, Unavailable>,
        reading: Option<Result<Reading, Fault>>,
    ) -> Explanation {
        let basis = if denial.is_ok() { Basis::Credential } else { Basis::Nothing };
        let rule = match denial {
            Ok(_) => rule::reading(reading.as_ref()).to_owned(),
            Err(cause) => rule::outage(cause),
        };
        Explanation {
            decision: denial.map(Decision::Deny),
            basis,
            rule,
            reading,
            seen: None,
            by_the_store: None,
            doubts: self.doubts(self.parts.clock.moment()),
            notes: Vec::new(),
        }
    }

    fn doubts(&self, now: Moment) -> Doubts {
        let checks = &self.parts.checks;
        Doubts {
            breaker: checks.breaker().state(),
            admits: checks.admits(),
            tried_in: checks.tries_in(),
            doubt: checks.doubt(),
            last_failure: checks.last_failure(),
            suspect: self.parts.suspicion.is_suspect(),
            lagging: self.parts.coverage.is_lagging(),
            changes_until: self.parts.coverage.until().map(|until| now.wall_at(until)),
        }
    }

    /// Looks the key up in the store and, if the cache has no record of it, a witness too, as a
    /// check does. Both may be the same key.
    async fn ask(&self, digest: Digest, memory: &Inspection, deadline: Instant) -> StoreReply {
        let known = matches!(memory.held, Some(Remembered::Record { .. }));
        let witness = self.parts.suspicion.next_witness().filter(|_| !known);
        let along = witness.filter(|witness| *witness != digest);
        let asked: Vec<_> = [digest].into_iter().chain(along).collect();

        let at = self.parts.clock.monotonic();
        let lookup = async {
            let place = self.store.acquire(deadline).await.map_err(|refused| {
                LookupFailure::of(refused.into(), "the control listener's own connections")
            })?;
            let find = place.run(async |store: &S| store.find(&asked).await);
            find.await.map_err(|error| LookupFailure::from(&error))
        };
        let late =
            || LookupFailure::of(Unavailable::Store(StoreErrorKind::Timeout), "no answer in time");
        let lookup = timeout_at(deadline, lookup).await.unwrap_or_else(|_| Err(late()));
        let took = self.parts.clock.monotonic() - at;

        let present =
            |lookup: &Lookup, digest| matches!(lookup.get(digest), Some(Answer::Found(_)));
        let has_any = |lookup| asked.iter().any(|digest| present(lookup, digest));
        let credible = witness.is_none() || lookup.as_ref().is_ok_and(has_any);
        let age = lookup.as_ref().map_or(DataAge::Current, Lookup::age);
        let answer = lookup.and_then(|lookup| match lookup.get(&digest) {
            Some(answer) => Ok(answer.clone()),
            None => Err(lookup.unreadable(&digest).map_or_else(
                || LookupFailure::of(Unavailable::Internal, "the key was not asked for"),
                |error| LookupFailure::from(error).without(&digest),
            )),
        });
        StoreReply { at, took, answer, credible, age }
    }
}

impl StoreReply {
    /// The answer of the store, as the lookup of a check would return it.
    fn observation(&self) -> Result<Observation, Unavailable> {
        let answer = self.answer.clone().map_err(|silence| silence.cause)?;
        let freshness =
            if self.age.is_lagging() { Freshness::StaleIfError } else { Freshness::Fresh };
        Ok(Observation { answer, validated_at: self.age.as_of(self.at), freshness })
    }
}

impl Explanation {
    /// How the credential was parsed, as a sentence.
    #[must_use]
    pub fn reading_in_words(&self) -> &'static str {
        rule::reading(self.reading.as_ref())
    }
}

impl LookupFailure {
    fn of(cause: Unavailable, detail: &str) -> Self {
        Self { cause, detail: detail.to_owned() }
    }

    /// The message of a database about a row may contain its digest, which must not leak.
    fn without(mut self, digest: &Digest) -> Self {
        self.detail = self.detail.replace(&digest.to_hex(), "…");
        self
    }
}

impl From<&StoreError> for LookupFailure {
    fn from(error: &StoreError) -> Self {
        Self::of(error.into(), error.detail())
    }
}

#[cfg(test)]
mod tests;
