//! As much of HTTP/2 (RFC 9113) as a client needs that sends the same headers each
//! time and does not read those of answers: an answer with a message is one with the
//! status OK, as gRPC has it, and whoever loads holds that against what the server
//! has counted.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use bytes::Bytes;

use crate::Result;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The types of frames (section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// Flags; the first is that of an acknowledgement as well.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Settings (section 6.5.2).
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// The window that each side begins with, and the largest there is.
const WINDOW: u32 = 65_535;
const WIDEST: u32 = (1 << 31) - 1;

/// How much is read before the server is told that it was.
const RETURNED_AT: u32 = 1 << 28;

/// How long a server may take to say its first word.
const GREETED_WITHIN: Duration = Duration::from_secs(10);

/// The head of a frame.
const HEAD: usize = 9;

/// The headers of all requests but the first, by their places in the tables: POST, http,
/// and the four that the first request has put into the server's (RFC 7541, 2.3.3).
const AS_BEFORE: [u8; 6] = [0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe];

/// A connection that never blocks.
pub(super) struct Connection {
    stream: TcpStream,
    /// The headers of the first request, until it is sent.
    first: Option<Vec<u8>>,
    /// What is to be written, from there.
    out: Vec<u8>,
    written: usize,
    /// What was read and is not a whole frame yet.
    read: Vec<u8>,
    piece: Box<[u8]>,
    /// How much more data the server takes.
    window: i64,
    /// How many requests it takes at once.
    most: usize,
    greeted: bool,
    next: u32,
    open: usize,
    /// All from the oldest without an answer, one for each request.
    calls: VecDeque<Call>,
    /// How much data was read since the server was last told.
    unreturned: u32,
}

struct Call {
    due: Duration,
    has_message: bool,
    ended: bool,
}

impl Connection {
    /// A connection to a server that has said its settings.
    pub(super) fn new(address: SocketAddr, path: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(GREETED_WITHIN))?;
        let mut new = Self {
            stream,
            first: Some(first_headers(path)?),
            out: PREFACE.to_vec(),
            written: 0,
            read: Vec::new(),
            piece: vec![0; 64 * 1024].into(),
            window: WINDOW.into(),
            most: usize::MAX,
            greeted: false,
            next: 1,
            open: 0,
            calls: VecDeque::new(),
            unreturned: 0,
        };
        let mut wide = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        wide.extend(WIDEST.to_be_bytes());
        new.frame(SETTINGS, 0, 0, &wide)?;
        new.frame(WINDOW_UPDATE, 0, 0, &(WIDEST - WINDOW).to_be_bytes())?;
        new.flush()?;
        while !new.greeted {
            new.receive(|_, _| ())?;
        }
        new.stream.set_nonblocking(true)?;
        Ok(new)
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether the server would take this message now.
    pub(super) fn has_room(&self, message: &Bytes) -> bool {
        let fits = i64::try_from(message.len()).is_ok_and(|length| length <= self.window);
        self.open < self.most && fits
    }

    /// A request, to be flushed.
    pub(super) fn queue(&mut self, message: &Bytes, due: Duration) -> Result<()> {
        let id = self.next;
        self.next += 2;
        match self.first.take() {
            Some(headers) => self.frame(HEADERS, END_HEADERS, id, &headers)?,
            None => self.frame(HEADERS, END_HEADERS, id, &AS_BEFORE)?,
        }
        self.frame(DATA, END_STREAM, id, message)?;
        self.window -= i64::try_from(message.len())?;
        self.open += 1;
        self.calls.push_back(Call { due, has_message: false, ended: false });
        Ok(())
    }

    /// Writes what the kernel takes.
    pub(super) fn flush(&mut self) -> Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => return Err("the connection takes nothing".into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads what is there; `ended` is told of each answer that is complete when its
    /// request was due, and whether it has a message.
    pub(super) fn receive(&mut self, mut ended: impl FnMut(Duration, bool)) -> Result<()> {
        match self.stream.read(&mut self.piece) {
            Ok(0) => return Err("the server has closed a connection".into()),
            Ok(count) => self.read.extend_from_slice(&self.piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let read = std::mem::take(&mut self.read);
        let mut rest = &read[..];
        while let Some((&head, after)) = rest.split_first_chunk::<HEAD>() {
            let [a, b, c, kind, flags, id @ ..] = head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some((body, after)) = after.split_at_checked(length) else { break };
            rest = after;
            self.handle(kind, flags, u32::from_be_bytes(id), body, &mut ended)?;
        }
        self.read = rest.to_vec();
        Ok(())
    }

    fn handle(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        body: &[u8],
        ended: &mut impl FnMut(Duration, bool),
    ) -> Result<()> {
        match kind {
            DATA | HEADERS => self.answered(kind, flags, id, body, ended)?,
            SETTINGS if flags & ACK == 0 => {
                for setting in body.as_chunks::<6>().0 {
                    let [a, b, value @ ..] = *setting;
                    if u16::from_be_bytes([a, b]) == MAX_CONCURRENT_STREAMS {
                        self.most = u32::from_be_bytes(value) as usize;
                    }
                }
                self.greeted = true;
                self.frame(SETTINGS, ACK, 0, &[])?;
            }
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, body)?,
            WINDOW_UPDATE if id == 0 => {
                let more = body.first_chunk().ok_or("a frame is cut off")?;
                self.window += i64::from(u32::from_be_bytes(*more));
            }
            RST_STREAM => return Err("the server has reset a request".into()),
            GOAWAY => return Err("the server would have no more requests".into()),
            _ => {}
        }
        Ok(())
    }

    fn answered(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        body: &[u8],
        ended: &mut impl FnMut(Duration, bool),
    ) -> Result<()> {
        let oldest = (self.next - 1) / 2 - u32::try_from(self.calls.len())?;
        let at = (id / 2).checked_sub(oldest).ok_or("an answer comes twice")? as usize;
        let call = self.calls.get_mut(at).ok_or("an answer to nothing")?;
        call.has_message |= kind == DATA && !body.is_empty();
        if flags & END_STREAM != 0 {
            call.ended = true;
            ended(call.due, call.has_message);
            self.open -= 1;
            while self.calls.front().is_some_and(|call| call.ended) {
                self.calls.pop_front();
            }
        }
        if kind == DATA {
            self.unreturned += u32::try_from(body.len())?;
        }
        if self.unreturned > RETURNED_AT {
            let returned = std::mem::take(&mut self.unreturned);
            self.frame(WINDOW_UPDATE, 0, 0, &returned.to_be_bytes())?;
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, flags: u8, id: u32, body: &[u8]) -> Result<()> {
        let [_, length @ ..] = u32::try_from(body.len())?.to_be_bytes();
        self.out.extend(length);
        self.out.extend([kind, flags]);
        self.out.extend(id.to_be_bytes());
        self.out.extend_from_slice(body);
        Ok(())
    }
}

/// The headers of the first request, which asks the server to remember all that it
/// does not know: a literal with indexing for each (RFC 7541, 6.2.1).
fn first_headers(path: &str) -> Result<Vec<u8>> {
    // POST and http are known; so are the names of the next three.
    let mut headers = vec![0x83, 0x86];
    let te = [&[2], &b"te"[..]].concat();
    let known = [(0x44, &[][..], path), (0x41, &[], "keystead"), (0x5f, &[], "application/grpc")];
    for (name, spelt, value) in known.into_iter().chain([(0x40, &te[..], "trailers")]) {
        headers.push(name);
        headers.extend_from_slice(spelt);
        headers.push(u8::try_from(value.len()).ok().filter(|it| *it < 127).ok_or("too long")?);
        headers.extend_from_slice(value.as_bytes());
    }
    Ok(headers)
}
