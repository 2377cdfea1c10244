//! Refusals that are not ours: of the transport, or of a service that came with
//! a library.

use std::error::Error;

use http::{HeaderName, HeaderValue, Response};
use tonic::{Code, Status};

use super::{server::BodyError, status::Refusal, surface};
use crate::outage::Unavailable;

/// What was refused before a service saw it.
#[derive(Debug)]
pub struct Rejection {
    pub(super) refusal: Refusal,
    /// Whether that was for the size of the message.
    pub(super) is_too_large: bool,
    /// Whether that was for its encoding: it says which are read.
    is_compressed: bool,
}

/// Where a refusal says which encodings of messages are read (gRPC, compression.md).
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

impl Rejection {
    /// What was refused, unless it carries details: those are of a service.
    ///
    /// tonic refuses a message that is too large, cannot be decoded or is compressed
    /// in a way that is not offered before the service sees it, each under a code of
    /// its own; all are requests that make no sense.
    fn of<B>(response: &Response<B>) -> Option<Self> {
        let refused = Status::from_header_map(response.headers())?;
        if refused.code() == Code::Ok || !refused.details().is_empty() {
            return None;
        }
        let mut refusal = Refusal::invalid(refused.message());
        if matches!(refused.code(), Code::Unimplemented | Code::NotFound) {
            refusal.code = refused.code();
        }
        // The second when it is so once it has been decompressed.
        let is_too_large = matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted);
        let is_compressed = response.headers().contains_key(ACCEPT_ENCODING);
        Some(Self { refusal, is_too_large, is_compressed })
    }

    /// The request makes no sense.
    pub(super) fn invalid(why: &str) -> Self {
        Self { refusal: Refusal::invalid(why), is_too_large: false, is_compressed: false }
    }

    /// The message did not come in whole.
    pub(super) fn broken_off(error: &(dyn Error + 'static)) -> Self {
        match error.downcast_ref() {
            Some(late @ BodyError::Late) => Self::invalid(&late.to_string()),
            Some(BodyError::Full) => {
                let refusal = Refusal::from(Unavailable::Overloaded);
                Self { refusal, is_too_large: false, is_compressed: false }
            }
            Some(BodyError::Broken(_)) | None => Self::given_up(),
        }
    }

    /// The message has more bytes than are read.
    pub(super) fn too_large(max_message_bytes: usize) -> Self {
        let why = format!("the message is too large: at most {max_message_bytes} bytes are read");
        Self { refusal: Refusal::invalid(why), is_too_large: true, is_compressed: false }
    }

    /// There is no such method.
    pub(super) fn unimplemented(why: &str) -> Self {
        let mut refusal = Refusal::invalid(why);
        refusal.code = Code::Unimplemented;
        Self { refusal, is_too_large: false, is_compressed: false }
    }

    /// The message is compressed, and none that is compressed is read.
    pub(super) fn compressed(encoding: &HeaderValue) -> Self {
        let why =
            format!("messages compressed with {encoding:?} are not read; send them as they are");
        Self { is_compressed: true, ..Self::unimplemented(&why) }
    }

    /// The caller has gone before its message was whole.
    pub(super) fn given_up() -> Self {
        let mut refusal = Refusal::invalid("the request broke off");
        (refusal.code, refusal.reason) = surface::GIVEN_UP;
        Self { refusal, is_too_large: false, is_compressed: false }
    }

    /// The refusal as gRPC has it.
    pub(super) fn into_http<B: Default>(self) -> Response<B> {
        let mut response = self.refusal.into_status().into_http();
        if self.is_compressed {
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        response
    }
}

/// Gives a refusal without details those that every refusal carries.
pub(super) fn complete<B: Default>(response: Response<B>) -> Response<B> {
    complete_with(response, Rejection::into_http)
}

/// Has a refusal without details answered by `answer` instead.
pub(super) fn complete_with<B>(
    response: Response<B>,
    answer: impl FnOnce(Rejection) -> Response<B>,
) -> Response<B> {
    match Rejection::of(&response) {
        Some(rejection) => answer(rejection),
        None => response,
    }
}
