//! A connection whose writes are not vectored.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};

/// Reports that vectored writes are not supported.
///
/// h2 then copies messages of up to 1 KiB, instead of 256 bytes (`CHAIN_THRESHOLD`), into the
/// buffer with the frames before them. A longer message is written in place, after the buffered
/// frames and before anything else: that would be a system call for each response to Envoy, which
/// has some hundred bytes, whereas now the responses to all requests of one read leave with one
/// call.
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
