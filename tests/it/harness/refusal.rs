//! A refusal as a caller reads it.

use std::{collections::BTreeMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// All that a status tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) reason: String,
    pub(crate) domain: String,
    pub(crate) facts: BTreeMap<String, String>,
    /// From `google.rpc.RetryInfo`.
    pub(crate) retry_after: Option<Duration>,
    /// From the trailer `grpc-retry-pushback-ms`.
    pub(crate) pushback: Option<String>,
}

impl Refusal {
    /// Panics when the status has no `google.rpc.ErrorInfo`.
    pub(crate) fn of(status: &Status) -> Self {
        let info = status.get_details_error_info();
        let info = info.unwrap_or_else(|| panic!("there is no ErrorInfo in {status:?}"));
        let pushback = status.metadata().get("grpc-retry-pushback-ms");
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason: info.reason,
            domain: info.domain,
            facts: info.metadata.into_iter().collect(),
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
            pushback: pushback.map(|millis| millis.to_str().unwrap().to_owned()),
        }
    }

    /// Holds what every refusal must keep, whatever its reason: an outage says
    /// when to come back, in two ways that agree, and that the key was not
    /// rejected; nothing else asks for a retry.
    pub(crate) fn is_honest(&self) {
        assert_eq!(self.domain, "keystead", "{self:?}");
        if self.code == Code::Unavailable {
            let delay = self.retry_after.unwrap_or_else(|| panic!("no RetryInfo: {self:?}"));
            assert!(!delay.is_zero(), "{self:?}");
            assert_eq!(self.pushback, Some(delay.as_millis().to_string()), "{self:?}");
        } else {
            assert_eq!((self.retry_after, &self.pushback), (None, &None), "{self:?}");
        }
        if matches!(self.code, Code::Unavailable | Code::Internal) {
            assert!(self.message.contains("the key was not rejected"), "{self:?}");
        }
    }
}

/// The name of a code as metrics have it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::Unauthenticated => "UNAUTHENTICATED",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::Unavailable => "UNAVAILABLE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        other => panic!("nobody is told {other:?}"),
    }
}
