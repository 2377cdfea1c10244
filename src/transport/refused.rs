//! Refusals that are not ours: of the transport, or of a service that came with
//! a library.

use http::Response;
use tonic::{Code, Status};

use super::status::{self, Refusal};

/// Gives a refusal without details those that every refusal carries.
///
/// tonic refuses a message that is too large, cannot be decoded or is compressed
/// in a way that is not offered before the service sees it, each under a code of
/// its own; all are requests that make no sense.
pub(super) fn complete<B: Default>(response: Response<B>) -> Response<B> {
    match refusal(&response) {
        Some(refusal) => refusal.into_status().into_http(),
        None => response,
    }
}

/// As [`complete`], and tells `count` the code and the reason.
pub(super) fn complete_and_count<B: Default>(
    response: Response<B>,
    count: impl FnOnce(&'static str, &'static str),
) -> Response<B> {
    if let Some(refusal) = refusal(&response) {
        count(status::code_name(refusal.code), refusal.reason);
    }
    complete(response)
}

fn refusal<B>(response: &Response<B>) -> Option<Refusal> {
    let refused = Status::from_header_map(response.headers())?;
    if refused.code() == Code::Ok || !refused.details().is_empty() {
        return None;
    }
    let mut refusal = Refusal::invalid(refused.message());
    if matches!(refused.code(), Code::Unimplemented | Code::NotFound) {
        refusal.code = refused.code();
    }
    Some(refusal)
}
