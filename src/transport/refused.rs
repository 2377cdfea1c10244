//! Refusals that are not ours: of the transport, or of a service that came with
//! a library.

use std::error::Error;

use http::Response;
use tonic::{Code, Status};

use super::{server::BodyError, status::Refusal};
use crate::outage::Unavailable;

/// What was refused before a service saw it.
#[derive(Debug)]
pub struct Early {
    pub(super) refusal: Refusal,
    /// Whether that was for the size of the message.
    pub(super) is_too_large: bool,
}

impl Early {
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
        Some(Self { refusal, is_too_large })
    }

    /// The request makes no sense.
    pub(super) fn invalid(why: &str) -> Self {
        Self { refusal: Refusal::invalid(why), is_too_large: false }
    }

    /// The message did not come in whole.
    pub(super) fn broken_off(error: &(dyn Error + 'static)) -> Self {
        match error.downcast_ref() {
            Some(late @ BodyError::Late) => Self::invalid(&late.to_string()),
            Some(BodyError::Full) => {
                let refusal = Refusal::from(Unavailable::Overloaded);
                Self { refusal, is_too_large: false }
            }
            Some(BodyError::Broken(_)) | None => Self::invalid("the request broke off"),
        }
    }

    /// The message has more bytes than are read.
    pub(super) fn too_large(max_message_bytes: usize) -> Self {
        let why = format!("the message is too large: at most {max_message_bytes} bytes are read");
        Self { refusal: Refusal::invalid(why), is_too_large: true }
    }

    /// There is no such method.
    pub(super) fn unimplemented(why: &str) -> Self {
        let mut refusal = Refusal::invalid(why);
        refusal.code = Code::Unimplemented;
        Self { refusal, is_too_large: false }
    }

    /// The refusal as gRPC has it.
    pub(super) fn into_http<B: Default>(self) -> Response<B> {
        self.refusal.into_status().into_http()
    }
}

/// Gives a refusal without details those that every refusal carries.
pub(super) fn complete<B: Default>(response: Response<B>) -> Response<B> {
    complete_with(response, Early::into_http)
}

/// Has a refusal without details answered by `answer` instead.
pub(super) fn complete_with<B>(
    response: Response<B>,
    answer: impl FnOnce(Early) -> Response<B>,
) -> Response<B> {
    match Early::of(&response) {
        Some(early) => answer(early),
        None => response,
    }
}
