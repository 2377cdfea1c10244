//! A connection that is written to in one piece.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};

/// Says that it cannot write several buffers at once.
///
/// The HTTP/2 library then copies up to 1 KiB of a message behind the frames before it,
/// instead of 256 bytes (`CHAIN_THRESHOLD` of h2). A longer message is written where it
/// is, together with what is before it and before anything else: a system call for each
/// answer to Envoy, which has some hundred bytes, where the answers to all requests of
/// one reading now leave with one.
pub(super) struct NonVectored<T>(pub(super) T);

impl<T: Read + Unpin> Read for NonVectored<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<T: Write + Unpin> Write for NonVectored<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
