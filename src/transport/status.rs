//! The one table of what a caller is told: code, reason, text, and when to come
//! back.

use std::{array, borrow::Cow, sync::LazyLock, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorInfo, RetryInfo, pb as rpc};

use super::surface::GIVEN_UP;
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

/// The trailer that tells a gRPC client when to retry, in milliseconds (gRFC
/// A6, "Pushback").
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// By how much the delay of a retry varies, so that callers who were refused
/// together do not come back together.
const RETRY_JITTER: f64 = 0.5;

/// How long a store that has failed is left alone, on average: an outage lasts
/// seconds at least, and a second is what a person does not yet give up in.
const RETRY_STORE: Duration = Duration::from_secs(1);

/// How long callers are kept off an instance that is full, on average: the time
/// in which its queues empty, which are at most one check time-out long.
const RETRY_OVERLOADED: Duration = Duration::from_millis(200);

/// When to ask again after an instance that stops: at once, as another instance
/// will answer; only spread a little.
const RETRY_DRAINING: Duration = Duration::from_millis(20);

/// The encoded denials without further facts, by reason and oddity: they answer a flood
/// of made-up keys.
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

/// How many oddities there are, none among them.
const ODDITIES: usize = Oddity::ALL.len() + 1;

/// A denial that has no further facts.
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
    /// The delay of the retry that is asked for, spread already.
    retry_after: Option<Duration>,
    /// Further facts for a program: `key_id`, `missing_scopes` or `cause`.
    facts: Vec<(&'static str, String)>,
    /// Whether it was made from a denial, which rests on evidence.
    evident: bool,
    /// Of a denial without facts.
    bare: Option<&'static BareDenial>,
}

impl Refusal {
    const fn new(code: Code, reason: &'static str, message: Cow<'static, str>) -> Self {
        let facts = Vec::new();
        Self { code, reason, message, retry_after: None, facts, evident: false, bare: None }
    }

    /// The row of a reason, without the evidence for it.
    pub(super) fn for_reason(reason: Reason) -> Self {
        let (code, reason, message) = denial_row(reason);
        Self::new(code, reason, message.into())
    }

    /// And names the scopes that are missing.
    fn naming(mut self, MissingScopes { named, others }: &MissingScopes) -> Self {
        // The message is also a header and a line of text.
        let quoted = named.iter().map(|scope| format!("`{}`", scope.escape_default()));
        let more = (*others > 0).then(|| format!("{others} more"));
        let listed: Vec<_> = quoted.chain(more).collect();
        self.message = [&self.message, ": ", &listed.join(", ")].concat().into();
        self.facts.push(("missing_scopes", named.join(" ")));
        self.bare = None;
        self
    }

    /// A request that makes no sense.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, "REQUEST_INVALID", Cow::Owned(message.into()))
    }

    /// The message for a person.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// How long to wait before asking again, if that may help.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Refuses to deny without evidence: what would, is a bug, and told as one.
    /// The types allow no such refusal; this is the second lock on the door.
    pub(super) fn audited(self, metrics: &Metrics) -> Self {
        if !is_denial(self.code) || self.evident {
            return self;
        }
        metrics.denial_without_evidence();
        tracing::error!(
            reason = self.reason,
            "a denial without evidence was not sent; please report this as a bug"
        );
        Self::from(Unavailable::Internal)
    }

    /// All of it but when to retry as a trailer. Its code is never OK.
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

    /// The code, which no row has as OK; whoever made one up is told of as a bug.
    fn non_ok_code(&self) -> Code {
        if self.code == Code::Ok { Code::Internal } else { self.code }
    }

    /// [`Refusal::as_rpc`] as it is on the wire.
    pub(super) fn details(&self) -> Bytes {
        match self.bare {
            Some(bare) => bare.details.clone(),
            None => self.as_rpc().encode_to_vec().into(),
        }
    }

    /// The answer as gRPC has it.
    pub(super) fn into_status(self) -> Status {
        self.with_details(self.details())
    }

    /// The answer as gRPC has it, with its [details](Refusal::details).
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
        let refusal = Self { evident: true, bare: facts.is_empty().then_some(bare), facts, ..row };
        match denial.missing_scopes() {
            Some(missing) => refusal.naming(missing),
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

/// Whether a code says something about a key.
pub(super) const fn is_denial(code: Code) -> bool {
    matches!(code, Code::Unauthenticated | Code::PermissionDenied)
}

/// Whether a code says that there is no answer.
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

/// A store that refuses us, or whose tables or rows cannot be used, has given no
/// answer either: the `cause` beside the reason tells which it was.
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

/// The name of a code, as the gRPC specification writes it.
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

/// The HTTP status that says the same as a code, for the codes of the table.
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

/// Every outcome of a check, as the pair of labels that counts it.
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
    [(Code::Ok, ""), GIVEN_UP, (Code::InvalidArgument, invalid), (Code::Unimplemented, invalid)]
        .into_iter()
        .chain(denials)
        .chain(outages)
        .map(|(code, reason)| (code_name(code), reason))
}

#[cfg(test)]
mod tests;
