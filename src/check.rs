//! Decides checks from a credential, a record and the needs of the request.
//!
//! A denial is a value and rests on evidence; an outage is an error and says
//! nothing about the key. The types keep the two apart: only a missing, repeated
//! or malformed credential, a record or an absence in the store makes a [`Denial`].
//!
//! ```
//! use keystead::{check::Denial, store::Absence};
//! fn evidence(absence: Absence) -> Denial {
//!     Denial::from(absence)
//! }
//! ```
//!
//! A failure of the store does not convert into a denial:
//!
//! ```compile_fail,E0277
//! use keystead::{check::Denial, store::StoreError};
//! fn evidence(failure: StoreError) -> Denial {
//!     Denial::from(failure)
//! }
//! ```
//!
//! nor does the error that callers receive for it:
//!
//! ```compile_fail,E0277
//! use keystead::{check::Denial, outage::Unavailable};
//! fn evidence(failure: Unavailable) -> Denial {
//!     Denial::from(failure)
//! }
//! ```
//!
//! and code outside this module cannot construct a denial:
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
    /// Scopes that the key must have, all of them.
    pub scopes: &'a [&'a str],
    /// Address of the client; `None` if unknown.
    pub client_ip: Option<IpAddr>,
    /// Service that the key is used for; `None` if the request does not name it.
    pub audience: Option<&'a str>,
}

/// Decides whether keys may be used.
#[derive(Debug)]
pub struct Checker<T> {
    ring: KeyRing,
    keys: T,
    clock: Clock,
}

/// Result of a check without I/O.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peek {
    /// The check is decided.
    Decided(Decision),
    /// The credential must be looked up with [`Checker::find`].
    Unknown(Credential),
    /// The check cannot be decided, and a lookup would not help.
    Unavailable(Unavailable),
}

impl<T: Tier> Checker<T> {
    /// Creates a checker that verifies keys with `ring` and looks records up in `keys`.
    pub const fn new(ring: KeyRing, keys: T, clock: Clock) -> Self {
        Self { ring, keys, clock }
    }

    /// Decides a check at `now` if it needs no lookup: the credential is malformed, or
    /// the cache holds an entry for it that may be served. Synchronous, does no I/O.
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

    /// Prefix of every key.
    pub const fn prefix(&self) -> &Prefix {
        self.ring.prefix()
    }

    /// Decides a check of a credential that may need a lookup.
    ///
    /// Returns by `deadline`. May be cancelled at any point.
    pub async fn find(
        &self,
        credential: Credential,
        needs: Needs<'_>,
        deadline: Instant,
    ) -> Result<Decision, Unavailable> {
        let observation = self.keys.find(credential, deadline).await?;
        Ok(decide(observation, needs, self.clock.moment()))
    }

    /// Decides a check with [`Checker::peek`], then with [`Checker::find`] if it needs a lookup.
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

/// Decides a check from an observation of the key. Pure.
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
