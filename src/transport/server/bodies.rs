//! The bodies of requests and answers, bounded in time and in bytes for as long as they
//! wait: a request for its rest, an answer for its reader.

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

use super::meter::{Held, HeldAnswer, Meter};

/// How long a body may take to come in whole, from when it had not. As long as the
/// first words of a connection.
const WHOLE: Duration = Duration::from_secs(10);

/// The body of a request.
///
/// Nearly every one has come in whole when it is looked at, and costs nothing here.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    meter: Arc<Meter>,
    held: Option<Held>,
    late: Option<Pin<Box<Sleep>>>,
}

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It did not come in whole in time.
    #[error("the request did not come in whole within {}", humantime::format_duration(WHOLE))]
    Late,
    /// Too much waits for its rest already.
    #[error("too many requests wait for their rest")]
    Full,
    /// The connection broke, or does not keep to the protocol.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

impl RequestBody {
    pub(super) fn of(request: Request<Incoming>, meter: &Arc<Meter>) -> Request<Self> {
        request.map(|incoming| Self { incoming, meter: Arc::clone(meter), held: None, late: None })
    }

    /// Holds what has come in until the whole is dealt with. False when it is too much.
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
            let late = self.late.get_or_insert_with(|| Box::pin(sleep(WHOLE)));
            ready!(late.as_mut().poll(context));
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

/// The body of an answer, whose pieces are held until they have been taken.
#[derive(Debug)]
pub(super) struct AnswerBody<B> {
    body: B,
    meter: Arc<Meter>,
}

impl<B> AnswerBody<B> {
    pub(super) const fn of(body: B, meter: Arc<Meter>) -> Self {
        Self { body, meter }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for AnswerBody<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let piece = |bytes: Bytes| Piece { _held: self.meter.hold_answer(bytes.len()), bytes };
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of an answer. It lives until it is on its way.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    _held: Option<HeldAnswer>,
}

impl Buf for Piece {
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
