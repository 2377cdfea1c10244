//! Denials and the evidence for them.

use std::net::IpAddr;

use jiff::Timestamp;

use super::Needs;
use crate::{
    key::{CompactKey, Fault, KeyId, Malformed, Oddity, Prefix, State},
    store::Absence,
};

/// Evidence that a request carries no credential. Created by the API surface that
/// extracts credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingCredential;

/// Evidence that a request carries several credentials, so that none of them is
/// authoritative. Created by the API surface that extracts credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentedTwice;

/// A denial that rests on evidence.
///
/// Its fields are private, so that only evidence can create it: `From` a missing,
/// malformed or repeated credential or an absence, and in this file from a record
/// that does not permit the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    reason: Reason,
    key: Option<KeyId>,
    oddity: Option<Oddity>,
    /// Boxed because it is rare and would enlarge every decision.
    missing: Option<Box<MissingScopes>>,
}

/// The scopes that a request needs and the record does not grant, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingScopes {
    /// The first, in the order of the request, at most [`MissingScopes::MAX_NAMED`].
    pub named: Vec<String>,
    /// How many more there are.
    pub others: usize,
}

impl MissingScopes {
    /// Maximum number of named scopes: at most 1 KiB, so that a denial fits in headers.
    pub const MAX_NAMED: usize = 4;
}

/// Why a key is denied. Closed, so that callers can match exhaustively.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No credential was presented.
    CredentialMissing,
    /// The credential does not have the form of a key, or its tag is wrong.
    CredentialMalformed,
    /// The store has no such key.
    KeyUnknown,
    /// The record is revoked.
    KeyRevoked,
    /// The record is disabled.
    KeyDisabled,
    /// The record has expired.
    KeyExpired,
    /// The record is not valid yet.
    KeyNotYetValid,
    /// The key lacks a required scope.
    ScopeMissing,
    /// The key may not be used from the client's network.
    ClientNetworkForbidden,
    /// The key may not be used for the service that the request names.
    AudienceForbidden,
}

impl Reason {
    /// Every reason, in the order in which a check tests them.
    pub const ALL: [Self; 10] = [
        Self::CredentialMissing,
        Self::CredentialMalformed,
        Self::KeyUnknown,
        Self::KeyRevoked,
        Self::KeyDisabled,
        Self::KeyExpired,
        Self::KeyNotYetValid,
        Self::ScopeMissing,
        Self::ClientNetworkForbidden,
        Self::AudienceForbidden,
    ];
}

impl Denial {
    /// Reason of the denial.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// ID of the key, if it has a record.
    #[must_use]
    pub const fn key(&self) -> Option<&KeyId> {
        self.key.as_ref()
    }

    /// Likely mistake in the credential, as a hint for the client.
    #[must_use]
    pub const fn oddity(&self) -> Option<Oddity> {
        self.oddity
    }

    /// Missing scopes, for [`Reason::ScopeMissing`].
    #[must_use]
    pub fn missing_scopes(&self) -> Option<&MissingScopes> {
        self.missing.as_deref()
    }

    /// Looks for a likely mistake in a credential that is malformed or unknown.
    pub(crate) fn look_at(&mut self, presented: &[u8], prefix: &Prefix) {
        let about_itself = matches!(self.reason, Reason::CredentialMalformed | Reason::KeyUnknown);
        // A wrong tag is known already: a flood of forged keys costs no further parsing.
        if about_itself && self.oddity.is_none() {
            // A credential in our form has a valid tag at this point.
            self.oddity = Oddity::of(presented, prefix).filter(|it| *it != Oddity::Letter);
        }
    }

    /// Records that the header has no scheme, if no credential was found.
    pub(crate) fn without_scheme(&mut self) {
        if self.reason == Reason::CredentialMissing {
            self.oddity = Some(Oddity::NoScheme);
        }
    }
}

impl From<MissingCredential> for Denial {
    fn from(_: MissingCredential) -> Self {
        Self { reason: Reason::CredentialMissing, key: None, oddity: None, missing: None }
    }
}

impl From<PresentedTwice> for Denial {
    fn from(_: PresentedTwice) -> Self {
        let oddity = Some(Oddity::Several);
        Self { reason: Reason::CredentialMalformed, key: None, oddity, missing: None }
    }
}

impl From<Malformed> for Denial {
    fn from(malformed: Malformed) -> Self {
        let oddity = (malformed.fault() == Fault::Tag).then_some(Oddity::Letter);
        Self { reason: Reason::CredentialMalformed, key: None, oddity, missing: None }
    }
}

impl From<Absence> for Denial {
    fn from(_: Absence) -> Self {
        Self { reason: Reason::KeyUnknown, key: None, oddity: None, missing: None }
    }
}

/// Returns the denial that follows from a record, if any: tests first whether the key
/// is valid, then whether it meets the needs.
pub(super) fn against(record: &CompactKey, needs: Needs<'_>, now: Timestamp) -> Option<Denial> {
    invalid(record, now).or_else(|| forbidden(record, needs)).map(|reason| Denial {
        reason,
        key: Some(record.key_id()),
        oddity: None,
        missing: (reason == Reason::ScopeMissing).then(|| missing(record, needs).into()),
    })
}

fn invalid(record: &CompactKey, now: Timestamp) -> Option<Reason> {
    match record.state() {
        State::Revoked => return Some(Reason::KeyRevoked),
        State::Disabled => return Some(Reason::KeyDisabled),
        State::Active => {}
    }
    if record.expires_at().is_some_and(|end| end <= now) {
        return Some(Reason::KeyExpired);
    }
    record.not_before().is_some_and(|start| now < start).then_some(Reason::KeyNotYetValid)
}

fn missing(record: &CompactKey, needs: Needs<'_>) -> MissingScopes {
    let mut missing = missing_scopes(record, needs);
    let named = missing.by_ref().take(MissingScopes::MAX_NAMED).map(str::to_owned).collect();
    MissingScopes { named, others: missing.count() }
}

/// Required scopes that the record does not grant.
pub(crate) fn missing_scopes<'a>(
    record: &'a CompactKey,
    needs: Needs<'a>,
) -> impl Iterator<Item = &'a str> {
    needs.scopes.iter().copied().filter(|scope| !record.has_scope(scope))
}

/// Restrictions fail closed: a restricted key is denied when the request lacks the
/// value that the restriction tests.
fn forbidden(record: &CompactKey, needs: Needs<'_>) -> Option<Reason> {
    if missing_scopes(record, needs).next().is_some() {
        return Some(Reason::ScopeMissing);
    }
    let from_allowed = |ip: IpAddr| {
        let ip = ip.to_canonical();
        record.networks().any(|network| network.contains(&ip))
    };
    if !record.networks().is_empty() && !needs.client_ip.is_some_and(from_allowed) {
        return Some(Reason::ClientNetworkForbidden);
    }
    let for_allowed = |name: &str| record.audiences().any(|audience| audience == name);
    let audience_refused =
        !record.audiences().is_empty() && !needs.audience.is_some_and(for_allowed);
    audience_refused.then_some(Reason::AudienceForbidden)
}
