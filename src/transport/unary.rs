//! Serves a unary check method: the request message is parsed where it was received, and the
//! response is written into the frame that is sent.
//!
//! This implements gRPC's unary calls over HTTP/2 as far as a check needs them
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>): no compression, one message
//! each way. tonic, which serves everything else, is made for streams of messages, and the buffers
//! and state of two such streams cost more than a check.

use std::{
    convert::Infallible,
    fmt, future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use tonic::{Status, body::Body, metadata::GRPC_CONTENT_TYPE};
use tower::{BoxError, Service};

use super::{rejection::Rejection, surface::Pending};

/// Length of the prefix of a message: the compressed flag, one byte, and the length, four bytes.
const PREFIX_BYTES: usize = 5;

/// Initial capacity of a response frame: more than a typical one needs.
const FRAME_BYTES: usize = 512;

/// A method with one request message and one response message.
pub trait UnaryMethod: Send + Sync + 'static {
    /// Executes a call. `headers` are those of the request; the message may hold a key.
    fn call(
        &self,
        headers: &HeaderMap,
        message: Bytes,
    ) -> impl Future<Output = Result<EncodedMessage, Status>> + Send;

    /// The response to a call that was rejected before the method saw it.
    fn refuse(&self, rejection: Rejection) -> Response<Body>;

    /// Registers a call whose message has not been read yet.
    fn begin(&self) -> Pending<'_>;
}

/// A response message in its frame.
#[derive(Debug)]
pub struct EncodedMessage(Bytes);

impl EncodedMessage {
    /// Frames the message that `write` appends.
    pub(super) fn of(write: impl FnOnce(&mut BytesMut)) -> Self {
        let mut frame = BytesMut::with_capacity(FRAME_BYTES);
        frame.put_bytes(0, PREFIX_BYTES);
        write(&mut frame);
        // No record comes close to 4 GiB.
        let length = u32::try_from(frame.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
        frame[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        Self(frame.freeze())
    }
}

/// Serves a method. Clones share it.
pub struct UnaryService<M> {
    method: Arc<M>,
    max_message_bytes: usize,
}

/// A response, possibly pending.
pub(super) type ResponseFuture =
    Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<M> UnaryService<M> {
    /// Serves messages of at most `max_message_bytes`.
    pub(super) fn new(method: M, max_message_bytes: usize) -> Self {
        Self { method: Arc::new(method), max_message_bytes }
    }
}

impl<M: UnaryMethod> UnaryService<M> {
    /// Refuses a call of another method of the same service.
    pub(super) fn unimplemented(&self, why: &str) -> ResponseFuture {
        Box::pin(future::ready(Ok(self.method.refuse(Rejection::unimplemented(why)))))
    }
}

impl<M: UnaryMethod, B> Service<Request<B>> for UnaryService<M>
where
    B: hyper::body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let Self { method, max_message_bytes } = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let pending = method.begin();
            let read = read(&head.headers, body, max_message_bytes).await;
            pending.ended();
            let message = match read {
                Ok(message) => message,
                Err(rejection) => return Ok(method.refuse(rejection)),
            };
            Ok(match method.call(&head.headers, message).await {
                Ok(frame) => success(frame),
                Err(status) => status.into_http(),
            })
        })
    }
}

/// Reads the single message of a request.
async fn read<B>(
    headers: &HeaderMap,
    mut body: B,
    max_message_bytes: usize,
) -> Result<Bytes, Rejection>
where
    B: hyper::body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    if let Some(encoding) = headers.get("grpc-encoding").filter(|it| *it != "identity") {
        return Err(Rejection::compressed(encoding));
    }
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    while let Some(part) = body.frame().await {
        let part = part.map_err(|error| Rejection::incomplete(&*error.into()))?;
        // Trailers are irrelevant to a check.
        let Ok(part) = part.into_data() else { continue };
        // Nearly every request arrives in one part, which is used without copying. A part that
        // waits for more is copied, as it would keep the whole read buffer alive.
        if rest.is_empty() && body.is_end_stream() {
            first = part;
        } else {
            rest.extend_from_slice(&part);
        }
        if first.len() + rest.len() > PREFIX_BYTES + max_message_bytes {
            return Err(Rejection::too_large(max_message_bytes));
        }
    }
    let framed = if rest.is_empty() { first } else { rest.freeze() };
    message(&framed, max_message_bytes)
}

/// Extracts the message from its frame.
fn message(framed: &Bytes, max_message_bytes: usize) -> Result<Bytes, Rejection> {
    let Some(([is_compressed, length @ ..], _)) = framed.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(Rejection::invalid("there is no message in the request"));
    };
    if *is_compressed != 0 {
        return Err(Rejection::invalid("the message is compressed, or not in a frame of gRPC"));
    }
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > max_message_bytes {
        return Err(Rejection::too_large(max_message_bytes));
    }
    let message = framed.slice(PREFIX_BYTES..);
    if message.len() != length {
        return Err(Rejection::invalid("the request must contain exactly one complete message"));
    }
    Ok(message)
}

/// The response to a successful call.
pub(super) fn success(EncodedMessage(frame): EncodedMessage) -> Response<Body> {
    const OK: HeaderValue = HeaderValue::from_static("0");
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, OK);
    let body = Full::new(frame).with_trailers(future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

impl<M> Clone for UnaryService<M> {
    fn clone(&self) -> Self {
        Self { method: Arc::clone(&self.method), max_message_bytes: self.max_message_bytes }
    }
}

impl<M> fmt::Debug for UnaryService<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnaryService").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame as Part;
    use tonic::Code;

    use super::*;

    const MAX: usize = 100;

    /// Reads a request whose body arrives in these parts.
    async fn read_parts(headers: &HeaderMap, parts: &[&[u8]]) -> Result<Bytes, Rejection> {
        let parts: Vec<_> = parts.iter().map(|part| Bytes::copy_from_slice(part)).collect();
        let parts = parts.into_iter().map(|part| Ok::<_, Infallible>(Part::data(part)));
        read(headers, StreamBody::new(stream::iter(parts)), MAX).await
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&[0], &length.to_be_bytes()[..], message].concat()
    }

    #[tokio::test]
    async fn message_may_arrive_in_any_number_of_parts() {
        let (headers, message) = (HeaderMap::new(), [7; MAX]);
        let whole = framed(&message);
        for size in [1, 2, 4, 5, 6, 50, whole.len()] {
            let parts: Vec<_> = whole.chunks(size).collect();
            let read = read_parts(&headers, &parts).await.unwrap();
            assert_eq!(read, message[..], "{size}");
        }
        assert!(read_parts(&headers, &[&framed(b"")]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn too_large_message_is_refused_by_its_declared_and_by_its_actual_length() {
        let headers = HeaderMap::new();
        let large = framed(&[7; MAX + 1]);
        for parts in [&[&*large][..], &[&large[..5]], &[&[0; 50], &[0; 50], &[0; 50]]] {
            let rejection = read_parts(&headers, parts).await.unwrap_err();
            assert!(rejection.is_too_large, "{rejection:?}");
            assert_eq!(rejection.refusal.code, Code::InvalidArgument);
        }
    }

    #[tokio::test]
    async fn anything_but_one_complete_message_is_refused() {
        let headers = HeaderMap::new();
        let (one, mut compressed) = (framed(b"abc"), framed(b"abc"));
        compressed[0] = 1;
        let short = &one[..one.len() - 1];
        let two = [&*one, &*one].concat();
        for parts in [&[][..], &[&one[..4]], &[short], &[&two], &[&one, b"x"], &[&compressed]] {
            let rejection = read_parts(&headers, parts).await.unwrap_err();
            assert_eq!(rejection.refusal.code, Code::InvalidArgument);
            assert!(!rejection.is_too_large, "{rejection:?}");
        }
    }

    #[tokio::test]
    async fn compression_is_refused() {
        for (encoding, is_read) in [("identity", true), ("gzip", false)] {
            let headers = HeaderMap::from_iter([(
                "grpc-encoding".parse().unwrap(),
                HeaderValue::from_static(encoding),
            )]);
            let read = read_parts(&headers, &[&framed(b"abc")]).await;
            assert_eq!(read.is_ok(), is_read, "{encoding}");
            if let Err(rejection) = read {
                assert_eq!(rejection.refusal.code, Code::Unimplemented);
            }
        }
    }

    #[test]
    fn frame_has_the_length_of_its_message() {
        let EncodedMessage(frame) = EncodedMessage::of(|to| to.put_bytes(7, 2 * FRAME_BYTES));
        assert_eq!(message(&frame, 2 * FRAME_BYTES).unwrap().len(), 2 * FRAME_BYTES);
    }
}
