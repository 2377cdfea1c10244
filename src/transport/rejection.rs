//! Refusals by the transport or by services from libraries.

use std::error::Error;

use http::{HeaderName, HeaderValue, Response};
use tonic::{Code, Status};

use super::{server::BodyError, status::Refusal, surface};
use crate::outage::Unavailable;

/// A call that was refused before it reached a service.
#[derive(Debug)]
pub struct Rejection {
    pub(super) refusal: Refusal,
    /// Whether the message was too large.
    pub(super) is_too_large: bool,
    /// Whether the message was compressed: the response then names the supported encodings.
    is_compressed: bool,
}

/// The response header with the supported message encodings (gRPC, compression.md).
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

impl Rejection {
    /// The rejection in a response, unless it carries details: those come from a service.
    ///
    /// tonic refuses a message that is too large, cannot be decoded, or has an unsupported
    /// compression before the service sees it, each with its own code; all count as invalid
    /// requests.
    fn of<B>(response: &Response<B>) -> Option<Self> {
        let refused = Status::from_header_map(response.headers())?;
        if refused.code() == Code::Ok || !refused.details().is_empty() {
            return None;
        }
        let mut refusal = Refusal::invalid(refused.message());
        if matches!(refused.code(), Code::Unimplemented | Code::NotFound) {
            refusal.code = refused.code();
        }
        // `ResourceExhausted` when it is too large after decompression.
        let is_too_large = matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted);
        let is_compressed = response.headers().contains_key(ACCEPT_ENCODING);
        Some(Self { refusal, is_too_large, is_compressed })
    }

    /// The request is invalid.
    pub(super) fn invalid(why: &str) -> Self {
        Self { refusal: Refusal::invalid(why), is_too_large: false, is_compressed: false }
    }

    /// The message did not arrive completely.
    pub(super) fn incomplete(error: &(dyn Error + 'static)) -> Self {
        match error.downcast_ref() {
            Some(late @ BodyError::Late) => Self::invalid(&late.to_string()),
            Some(BodyError::Full) => {
                let refusal = Refusal::from(Unavailable::Overloaded);
                Self { refusal, is_too_large: false, is_compressed: false }
            }
            Some(BodyError::Broken(_)) | None => Self::cancelled(),
        }
    }

    /// The message exceeds the size limit.
    pub(super) fn too_large(max_message_bytes: usize) -> Self {
        let why = format!("the message is too large: at most {max_message_bytes} bytes are read");
        Self { refusal: Refusal::invalid(why), is_too_large: true, is_compressed: false }
    }

    /// The method does not exist.
    pub(super) fn unimplemented(why: &str) -> Self {
        let mut refusal = Refusal::invalid(why);
        refusal.code = Code::Unimplemented;
        Self { refusal, is_too_large: false, is_compressed: false }
    }

    /// The message is compressed, which is not supported.
    pub(super) fn compressed(encoding: &HeaderValue) -> Self {
        let why =
            format!("messages compressed with {encoding:?} are not read; send them as they are");
        Self { is_compressed: true, ..Self::unimplemented(&why) }
    }

    /// The caller left before its message was complete.
    pub(super) fn cancelled() -> Self {
        let mut refusal = Refusal::invalid("the request broke off");
        (refusal.code, refusal.reason) = surface::CANCELLED;
        Self { refusal, is_too_large: false, is_compressed: false }
    }

    /// The refusal as a gRPC response.
    pub(super) fn into_http<B: Default>(self) -> Response<B> {
        let mut response = self.refusal.into_status().into_http();
        if self.is_compressed {
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        response
    }
}

/// Adds the standard details to a refusal that has none.
pub(super) fn complete<B: Default>(response: Response<B>) -> Response<B> {
    complete_with(response, Rejection::into_http)
}

/// Replaces a refusal without details by the response of `answer`.
pub(super) fn complete_with<B>(
    response: Response<B>,
    answer: impl FnOnce(Rejection) -> Response<B>,
) -> Response<B> {
    match Rejection::of(&response) {
        Some(rejection) => answer(rejection),
        None => response,
    }
}
