//! Denials, and the evidence that each is made from.

use std::net::IpAddr;

use jiff::Timestamp;

use super::Needs;
use crate::{
    key::{CompactKey, Fault, KeyId, Malformed, Oddity, Prefix, State},
    store::Absence,
};

/// Evidence that a client presented no credential at all. Made by the surface
/// that looked for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingCredential;

/// Evidence that a client presented several credentials where one belongs, so
/// that nobody can say which of them counts. Made by the surface that looked for
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentedTwice;

/// A refusal that rests on evidence.
///
/// Its fields are private, so that it can be made from evidence alone: by
/// `From` for a credential that is missing, malformed or presented twice, or an
/// absence, and in this
/// file for a record that speaks against the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    reason: Reason,
    key: Option<KeyId>,
    oddity: Option<Oddity>,
    /// In a box, so that every decision is not as large as this rare one.
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
    /// How many are named: 1 KiB of the longest, so that a refusal fits in headers.
    pub const MAX_NAMED: usize = 4;
}

/// Why a key is refused. Closed: a caller can match on all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No credential was presented.
    CredentialMissing,
    /// What was presented does not have the form of a key, or a wrong tag.
    CredentialMalformed,
    /// The store said that there is no such key.
    KeyUnknown,
    /// Its record says that it is revoked.
    KeyRevoked,
    /// Its record says that it is disabled.
    KeyDisabled,
    /// Its record says that its time is over.
    KeyExpired,
    /// Its record says that its time has not come.
    KeyNotYetValid,
    /// It was not granted a scope that is needed.
    ScopeMissing,
    /// It may not be used from where the client is.
    ClientNetworkForbidden,
    /// It may not be used for the service that asks.
    AudienceForbidden,
}

impl Reason {
    /// Every reason, in the order in which a check finds it.
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
    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// Which key, if there is a record of it.
    #[must_use]
    pub const fn key(&self) -> Option<&KeyId> {
        self.key.as_ref()
    }

    /// What is odd about the credential, if that may help whoever sent it.
    #[must_use]
    pub const fn oddity(&self) -> Option<Oddity> {
        self.oddity
    }

    /// Which scopes are missing, for [`Reason::ScopeMissing`].
    #[must_use]
    pub fn missing_scopes(&self) -> Option<&MissingScopes> {
        self.missing.as_deref()
    }

    /// Looks what is odd about a credential that was refused for itself, or was not
    /// found.
    pub(crate) fn look_at(&mut self, presented: &[u8], prefix: &Prefix) {
        let about_itself = matches!(self.reason, Reason::CredentialMalformed | Reason::KeyUnknown);
        // A wrong tag is known already: nothing more is read of a flood of forged keys.
        if about_itself && self.oddity.is_none() {
            // What has our form here has a right tag.
            self.oddity = Oddity::of(presented, prefix).filter(|it| *it != Oddity::Letter);
        }
    }

    /// Notes that a header has no scheme, if there was nothing else.
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

/// What a record says against a request, if anything: first whether the key is
/// valid at all, then whether it may do what is needed.
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

/// The scopes that are needed and were not granted.
pub(crate) fn missing_scopes<'a>(
    record: &'a CompactKey,
    needs: Needs<'a>,
) -> impl Iterator<Item = &'a str> {
    needs.scopes.iter().copied().filter(|scope| !record.has_scope(scope))
}

/// Restrictions fail closed: a restricted key is refused when the request does
/// not tell what the restriction is about.
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
