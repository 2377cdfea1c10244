//! Request and response bodies, limited in time and in bytes while a request is incomplete or a
//! response is unread.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use super::meter::{Held, HeldResponse, Meter};

/// How long a body that has not arrived with its headers may take to arrive. The same as for the
/// first bytes of a connection.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The body of a request.
///
/// Most bodies have arrived completely when they are first polled, and cost nothing here.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    meter: Arc<Meter>,
    held: Option<Held>,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It did not arrive completely in time.
    #[error(
        "the request did not arrive completely within {}",
        humantime::format_duration(BODY_TIMEOUT)
    )]
    Late,
    /// Incomplete requests already use the whole budget.
    #[error("too many incomplete requests")]
    Full,
    /// The connection broke, or violated the protocol.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

impl RequestBody {
    pub(super) fn of(request: Request<Incoming>, meter: &Arc<Meter>) -> Request<Self> {
        request.map(|incoming| Self {
            incoming,
            meter: Arc::clone(meter),
            held: None,
            deadline: None,
        })
    }

    /// Holds what has arrived until the request is done. Returns false when it exceeds the budget.
    fn holds(&mut self, part: usize) -> bool {
        if self.held.is_none() && self.incoming.is_end_stream() {
            return true;
        }
        match &mut self.held {
            Some(held) => held.grow(part),
            none => {
                *none = self.meter.hold(part);
                none.is_some()
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) else {
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(BODY_TIMEOUT)));
            ready!(deadline.as_mut().poll(context));
            return Poll::Ready(Some(Err(BodyError::Late)));
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let part = frame.data_ref().map_or(0, Bytes::len);
                Some(if self.holds(part) { Ok(frame) } else { Err(BodyError::Full) })
            }
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The body of a response, whose chunks are counted until they have been sent.
#[derive(Debug)]
pub(super) struct ResponseBody<B> {
    body: B,
    meter: Arc<Meter>,
}

impl<B> ResponseBody<B> {
    pub(super) const fn of(body: B, meter: Arc<Meter>) -> Self {
        Self { body, meter }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ResponseBody<B> {
    type Data = ResponseChunk;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ResponseChunk>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let chunk =
            |bytes: Bytes| ResponseChunk { _held: self.meter.hold_response(bytes.len()), bytes };
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A chunk of a response, dropped once it has been written to the socket.
#[derive(Debug)]
pub(super) struct ResponseChunk {
    bytes: Bytes,
    _held: Option<HeldResponse>,
}

impl Buf for ResponseChunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}
