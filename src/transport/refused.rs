//! Refusals that are not ours: of the transport, or of a service that came with
//! a library.

use http::Response;
use tonic::{Code, Status};

use super::status::{self, Refusal};

/// What was refused before a service saw it.
#[derive(Debug)]
pub(super) struct Early {
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

    /// The refusal as gRPC has it.
    pub(super) fn into_http<B: Default>(self) -> Response<B> {
        self.refusal.into_status().into_http()
    }
}

/// Gives a refusal without details those that every refusal carries.
pub(super) fn complete<B: Default>(response: Response<B>) -> Response<B> {
    complete_with(response, |_, _| (), Early::into_http)
}

/// Tells `count` the code and the reason of a refusal without details, and has it
/// answered by `answer` instead.
pub(super) fn complete_with<B>(
    response: Response<B>,
    count: impl FnOnce(&'static str, &'static str),
    answer: impl FnOnce(Early) -> Response<B>,
) -> Response<B> {
    match Early::of(&response) {
        Some(early) => {
            count(status::code_name(early.refusal.code), early.refusal.reason);
            answer(early)
        }
        None => response,
    }
}
