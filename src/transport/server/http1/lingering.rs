//! A close that leaves a client time to read its last answer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// For how long a client may go on sending after its last answer. RFC 9112 names no time:
/// this is some round trips to the other side of the world.
const LINGER: Duration = Duration::from_secs(1);

/// A stream that is closed in two steps, as RFC 9112 (9.6) asks for. If something is
/// unread when a connection is closed, the operating system resets it, and the client
/// may lose an answer that it has not yet read: such as that its headers are too large,
/// while it still sends them. So after the answer only this side is closed, and what the
/// client sends is thrown away until it has closed the other, for [`LINGER`] at most.
#[derive(Debug)]
pub(super) struct Lingering {
    stream: TcpStream,
    /// Since this side was closed.
    until: Option<Pin<Box<Sleep>>>,
}

impl Lingering {
    pub(super) const fn new(stream: TcpStream) -> Self {
        Self { stream, until: None }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, until } = self.get_mut();
        if until.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
        }
        let until = until.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        while until.as_mut().poll(cx).is_pending() {
            let mut thrown_away = [0; 4096];
            let mut thrown_away = ReadBuf::new(&mut thrown_away);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut thrown_away));
            if read.is_err() || thrown_away.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
