//! The only table of error responses: code, reason, message, and retry delay.

use std::{array, borrow::Cow, sync::LazyLock, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorInfo, RetryInfo, pb as rpc};

use super::surface::CANCELLED;
use crate::{
    check::{Denial, MissingScopes, Reason},
    key::Oddity,
    outage::Unavailable,
    store::StoreErrorKind,
    telemetry::Metrics,
    time::jittered,
};

/// The `domain` of every `google.rpc.ErrorInfo`.
const DOMAIN: &str = "keystead";

/// The trailer with a gRPC client's retry delay, in milliseconds (gRFC A6, "Pushback").
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Jitter of the retry delay, as a fraction of it, so that callers that were refused together do
/// not retry together.
const RETRY_JITTER: f64 = 0.5;

/// Average retry delay after a store failure: an outage lasts seconds at least, and a person still
/// waits for a second.
const RETRY_STORE: Duration = Duration::from_secs(1);

/// Average retry delay of an overloaded instance: the time in which its queues drain, which are at
/// most one check time-out long.
const RETRY_OVERLOADED: Duration = Duration::from_millis(200);

/// Average retry delay of a draining instance: almost none, as another instance will answer.
const RETRY_DRAINING: Duration = Duration::from_millis(20);

/// The encoded denials without further facts, by reason and oddity: they answer floods of made-up
/// keys.
static BARE_DENIALS: LazyLock<[[BareDenial; ODDITIES]; Reason::ALL.len()]> = LazyLock::new(|| {
    Reason::ALL.map(|reason| {
        array::from_fn(|oddity| {
            let mut refusal = Refusal::for_reason(reason);
            if let Some(oddity) = oddity.checked_sub(1).map(|index| Oddity::ALL[index]) {
                refusal.message = [&refusal.message, ": ", oddity.as_str()].concat().into();
            }
            let details = refusal.as_rpc().encode_to_vec().into();
            BareDenial { message: refusal.message, details }
        })
    })
});

/// Number of oddities, including none.
const ODDITIES: usize = Oddity::ALL.len() + 1;

/// A denial without further facts.
#[derive(Debug, PartialEq, Eq)]
struct BareDenial {
    message: Cow<'static, str>,
    /// See [`Refusal::details`].
    details: Bytes,
}

impl BareDenial {
    fn of(denial: &Denial) -> &'static Self {
        let oddity = denial.oddity().map_or(0, |oddity| oddity as usize + 1);
        &BARE_DENIALS[denial.reason() as usize][oddity]
    }
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) reason: &'static str,
    message: Cow<'static, str>,
    /// The retry delay, with jitter applied.
    retry_after: Option<Duration>,
    /// Machine-readable facts: `key_id`, `missing_scopes` or `cause`.
    facts: Vec<(&'static str, String)>,
    /// Whether it was made from a denial, which rests on evidence.
    has_evidence: bool,
    /// The encoded form of a denial without facts.
    bare: Option<&'static BareDenial>,
}

impl Refusal {
    const fn new(code: Code, reason: &'static str, message: Cow<'static, str>) -> Self {
        let facts = Vec::new();
        Self { code, reason, message, retry_after: None, facts, has_evidence: false, bare: None }
    }

    /// The row of a reason, without evidence.
    pub(super) fn for_reason(reason: Reason) -> Self {
        let (code, reason, message) = denial_row(reason);
        Self::new(code, reason, message.into())
    }

    /// Adds the missing scopes to the message and the facts.
    fn with_missing_scopes(mut self, MissingScopes { named, others }: &MissingScopes) -> Self {
        // The message is also sent as a header and as a line of text.
        let quoted = named.iter().map(|scope| format!("`{}`", scope.escape_default()));
        let more = (*others > 0).then(|| format!("{others} more"));
        let listed: Vec<_> = quoted.chain(more).collect();
        self.message = [&self.message, ": ", &listed.join(", ")].concat().into();
        self.facts.push(("missing_scopes", named.join(" ")));
        self.bare = None;
        self
    }

    /// An invalid request.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, "REQUEST_INVALID", Cow::Owned(message.into()))
    }

    /// The message for people.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// How long to wait before a retry, if a retry may help.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Turns a denial without evidence into an internal error, as it is a bug. The types rule out
    /// such a refusal; this is a second check.
    pub(super) fn audited(self, metrics: &Metrics) -> Self {
        if !is_denial(self.code) || self.has_evidence {
            return self;
        }
        metrics.denial_without_evidence();
        tracing::error!(
            reason = self.reason,
            "a denial without evidence was not sent; please report this as a bug"
        );
        Self::from(Unavailable::Internal)
    }

    /// The whole refusal, except the retry trailer. Its code is never OK.
    pub(super) fn as_rpc(&self) -> rpc::Status {
        let facts = self.facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let (reason, domain) = (self.reason.to_owned(), DOMAIN.to_owned());
        let info = rpc::ErrorInfo { reason, domain, metadata: facts.collect() };
        let info = any(ErrorInfo::TYPE_URL, &info);
        let retry = self.retry_after.map(|delay| {
            let retry_delay = prost_types::Duration::try_from(delay).ok();
            any(RetryInfo::TYPE_URL, &rpc::RetryInfo { retry_delay })
        });
        rpc::Status {
            code: self.non_ok_code().into(),
            message: self.message.to_string(),
            details: [Some(info), retry].into_iter().flatten().collect(),
        }
    }

    /// The code; an OK, which no row has, becomes an internal error.
    fn non_ok_code(&self) -> Code {
        if self.code == Code::Ok { Code::Internal } else { self.code }
    }

    /// The encoded [`Refusal::as_rpc`].
    pub(super) fn details(&self) -> Bytes {
        match self.bare {
            Some(bare) => bare.details.clone(),
            None => self.as_rpc().encode_to_vec().into(),
        }
    }

    /// The gRPC status.
    pub(super) fn into_status(self) -> Status {
        self.with_details(self.details())
    }

    /// The gRPC status with its encoded [details](Refusal::details).
    pub(super) fn with_details(&self, details: Bytes) -> Status {
        let mut status = Status::with_details(self.non_ok_code(), &*self.message, details);
        if let Some(delay) = self.retry_after {
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            status.metadata_mut().insert(RETRY_PUSHBACK, MetadataValue::from(millis));
        }
        status
    }
}

fn any(type_url: &str, message: &impl Message) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}

impl From<&Denial> for Refusal {
    fn from(denial: &Denial) -> Self {
        let bare = BareDenial::of(denial);
        let (code, reason, _) = denial_row(denial.reason());
        let row = Self::new(code, reason, Cow::Borrowed(&bare.message));
        let facts: Vec<_> = denial.key().map(|id| ("key_id", id.to_string())).into_iter().collect();
        let refusal =
            Self { has_evidence: true, bare: facts.is_empty().then_some(bare), facts, ..row };
        match denial.missing_scopes() {
            Some(missing) => refusal.with_missing_scopes(missing),
            None => refusal,
        }
    }
}

impl From<Unavailable> for Refusal {
    fn from(outage: Unavailable) -> Self {
        let (code, reason, retry_after) = outage_row(outage);
        let message = match code {
            Code::Unavailable => format!("{outage}; the key was not rejected, retry"),
            _ => format!("{outage}; the key was not rejected"),
        };
        let mut refusal = Self::new(code, reason, message.into());
        refusal.retry_after = retry_after.map(|average| jittered(average, RETRY_JITTER));
        if let Unavailable::Store(kind) = outage {
            refusal.facts.push(("cause", kind.to_string()));
        }
        refusal
    }
}

/// Whether a code denies a key.
pub(super) const fn is_denial(code: Code) -> bool {
    matches!(code, Code::Unauthenticated | Code::PermissionDenied)
}

/// Whether a code means that there is no decision.
pub(super) const fn is_outage(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Internal)
}

const fn denial_row(reason: Reason) -> (Code, &'static str, &'static str) {
    use Code::{PermissionDenied, Unauthenticated};
    match reason {
        Reason::CredentialMissing => {
            (Unauthenticated, "CREDENTIAL_MISSING", "no API key was presented")
        }
        Reason::CredentialMalformed => {
            (Unauthenticated, "CREDENTIAL_MALFORMED", "what was presented is not an API key")
        }
        Reason::KeyUnknown => (Unauthenticated, "KEY_UNKNOWN", "there is no such API key"),
        Reason::KeyRevoked => (Unauthenticated, "KEY_REVOKED", "the API key is revoked"),
        Reason::KeyDisabled => (Unauthenticated, "KEY_DISABLED", "the API key is disabled"),
        Reason::KeyExpired => (Unauthenticated, "KEY_EXPIRED", "the API key has expired"),
        Reason::KeyNotYetValid => {
            (Unauthenticated, "KEY_NOT_YET_VALID", "the API key is not yet valid")
        }
        Reason::ScopeMissing => {
            (PermissionDenied, "SCOPE_MISSING", "the API key lacks a scope that is required")
        }
        Reason::ClientNetworkForbidden => (
            PermissionDenied,
            "CLIENT_NETWORK_FORBIDDEN",
            "the API key may not be used from this client address",
        ),
        Reason::AudienceForbidden => (
            PermissionDenied,
            "AUDIENCE_FORBIDDEN",
            "the API key may not be used for this audience",
        ),
    }
}

const fn outage_row(outage: Unavailable) -> (Code, &'static str, Option<Duration>) {
    match outage {
        Unavailable::Store(kind) => (Code::Unavailable, store_reason(kind), Some(RETRY_STORE)),
        Unavailable::BreakerOpen => (Code::Unavailable, "BREAKER_OPEN", Some(RETRY_STORE)),
        Unavailable::Suspect => (Code::Unavailable, "STORE_SUSPECT", Some(RETRY_STORE)),
        Unavailable::SecretUnknown => (Code::Unavailable, "SECRET_UNKNOWN", Some(RETRY_STORE)),
        Unavailable::Overloaded => (Code::Unavailable, "OVERLOADED", Some(RETRY_OVERLOADED)),
        Unavailable::Draining => (Code::Unavailable, "DRAINING", Some(RETRY_DRAINING)),
        Unavailable::Internal => (Code::Internal, "INTERNAL", None),
    }
}

/// A store that refuses access, or whose tables or rows are unusable, gave no answer either: the
/// `cause` next to the reason tells which.
const fn store_reason(kind: StoreErrorKind) -> &'static str {
    match kind {
        StoreErrorKind::Timeout | StoreErrorKind::Blocked => "STORE_TIMEOUT",
        StoreErrorKind::Lagging => "STORE_LAGGING",
        StoreErrorKind::Saturated => "STORE_SATURATED",
        StoreErrorKind::Unreachable
        | StoreErrorKind::Forbidden
        | StoreErrorKind::Schema
        | StoreErrorKind::Unreadable => "STORE_UNREACHABLE",
    }
}

/// The name of a code as in the gRPC specification.
pub(crate) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The HTTP status that corresponds to a code, for the codes of the table.
pub(super) const fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound | Code::Unimplemented => StatusCode::NOT_FOUND,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Every outcome of a check, as the pair of labels under which it is counted.
pub(super) fn all_outcomes() -> impl Iterator<Item = (&'static str, &'static str)> {
    let denials = Reason::ALL.map(|reason| {
        let (code, reason, _) = denial_row(reason);
        (code, reason)
    });
    let outages = [
        Unavailable::Store(StoreErrorKind::Unreachable),
        Unavailable::Store(StoreErrorKind::Timeout),
        Unavailable::Store(StoreErrorKind::Saturated),
        Unavailable::Store(StoreErrorKind::Lagging),
        Unavailable::BreakerOpen,
        Unavailable::Suspect,
        Unavailable::SecretUnknown,
        Unavailable::Overloaded,
        Unavailable::Draining,
        Unavailable::Internal,
    ]
    .map(|outage| {
        let (code, reason, _) = outage_row(outage);
        (code, reason)
    });
    let invalid = "REQUEST_INVALID";
    [(Code::Ok, ""), CANCELLED, (Code::InvalidArgument, invalid), (Code::Unimplemented, invalid)]
        .into_iter()
        .chain(denials)
        .chain(outages)
        .map(|(code, reason)| (code_name(code), reason))
}

#[cfg(test)]
mod tests;
