//! The decision: a credential, a record, and what the request needs.
//!
//! A denial is a value and rests on evidence; an outage is an error and says
//! nothing about the key. The types keep the two apart: a [`Denial`] is made
//! from a malformed credential, a record or the store's own absence, and from
//! nothing else.
//!
//! ```
//! use keystead::{check::Denial, store::Absence};
//! fn evidence(absence: Absence) -> Denial {
//!     Denial::from(absence)
//! }
//! ```
//!
//! A failure of the store does not convert into one:
//!
//! ```compile_fail,E0277
//! use keystead::{check::Denial, store::StoreError};
//! fn evidence(failure: StoreError) -> Denial {
//!     Denial::from(failure)
//! }
//! ```
//!
//! nor does the error that callers are told about it:
//!
//! ```compile_fail,E0277
//! use keystead::{check::Denial, outage::Unavailable};
//! fn evidence(failure: Unavailable) -> Denial {
//!     Denial::from(failure)
//! }
//! ```
//!
//! and a denial cannot be put together by hand:
//!
//! ```compile_fail,E0451
//! use keystead::check::{Denial, Reason};
//! let denial = Denial { reason: Reason::KeyUnknown, key: None, oddity: None, missing: None };
//! ```

mod config;
mod decision;
mod evidence;

use std::net::IpAddr;

use tokio::time::Instant;

pub use config::CheckConfig;
pub use decision::{Decision, Grant};
pub(crate) use evidence::missing_scopes;
pub use evidence::{Denial, MissingCredential, MissingScopes, PresentedTwice, Reason};

use crate::{
    key::{Credential, KeyRing, Prefix, Unread},
    outage::Unavailable,
    store::Answer,
    tier::{Observation, Tier},
    time::{Clock, Moment},
};

/// What a request presents and needs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs<'a> {
    /// All of these must have been granted.
    pub scopes: &'a [&'a str],
    /// Where the client is; `None` if not known.
    pub client_ip: Option<IpAddr>,
    /// Which service asks; `None` if not told.
    pub audience: Option<&'a str>,
}

/// Decides about keys.
#[derive(Debug)]
pub struct Checker<T> {
    ring: KeyRing,
    keys: T,
    clock: Clock,
}

/// How far a check comes without waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peek {
    /// To its end.
    Decided(Decision),
    /// To a credential that has to be [found](Checker::find).
    Unknown(Credential),
    /// Nowhere: nothing can be said of the credential, and nobody can be asked.
    Unavailable(Unavailable),
}

impl<T: Tier> Checker<T> {
    /// A checker that verifies with `ring` and finds records in `keys`.
    pub const fn new(ring: KeyRing, keys: T, clock: Clock) -> Self {
        Self { ring, keys, clock }
    }

    /// Decides at `now` whether the key that was presented may be used for what is
    /// needed, if that can be said without waiting: what was presented is no key, or
    /// its record is in memory and may be served. Synchronous, does no I/O.
    pub fn peek(&self, presented: &[u8], needs: Needs<'_>, now: Moment) -> Peek {
        let credential = match self.ring.read(presented) {
            Ok(credential) => credential,
            Err(Unread::Malformed(malformed)) => {
                return Peek::Decided(Decision::Deny(malformed.into()));
            }
            Err(Unread::SecretUnknown) => return Peek::Unavailable(Unavailable::SecretUnknown),
        };
        match self.keys.peek(credential, now.monotonic) {
            Some(observation) => Peek::Decided(decide(observation, needs, now)),
            None => Peek::Unknown(credential),
        }
    }

    /// What keys begin with.
    pub const fn prefix(&self) -> &Prefix {
        self.ring.prefix()
    }

    /// Decides about a credential for which somebody may have to be asked.
    ///
    /// Ends at `deadline` at the latest. May be cancelled at any point.
    pub async fn find(
        &self,
        credential: Credential,
        needs: Needs<'_>,
        deadline: Instant,
    ) -> Result<Decision, Unavailable> {
        let observation = self.keys.find(credential, deadline).await?;
        Ok(decide(observation, needs, self.clock.moment()))
    }

    /// Decides, whether that takes waiting or not: [`Checker::peek`], and
    /// [`Checker::find`] if need be.
    pub async fn check(
        &self,
        presented: &[u8],
        needs: Needs<'_>,
        deadline: Instant,
    ) -> Result<Decision, Unavailable> {
        match self.peek(presented, needs, self.clock.moment()) {
            Peek::Decided(decision) => Ok(decision),
            Peek::Unknown(credential) => self.find(credential, needs, deadline).await,
            Peek::Unavailable(cause) => Err(cause),
        }
    }
}

/// What follows from what is known of a key. Pure.
#[must_use]
pub fn decide(observation: Observation, needs: Needs<'_>, now: Moment) -> Decision {
    let Observation { answer, validated_at, freshness } = observation;
    let record = match answer {
        Answer::Found(record) => record,
        Answer::Absent(absence) => return Decision::Deny(absence.into()),
    };
    if let Some(denial) = evidence::against(&record, needs, now.wall) {
        return Decision::Deny(denial);
    }
    let age = now.monotonic.saturating_duration_since(validated_at);
    Decision::Allow(Grant { record, freshness, age })
}

#[cfg(test)]
mod tests;
