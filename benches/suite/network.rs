//! The way to PostgreSQL: a proxy that makes every round trip a millisecond longer, and
//! counts on how many connections a query is under way.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::sync_channel},
    thread,
    time::{Duration, Instant},
};

use crate::{Result, process::Place};

/// By how much a round trip is longer.
const LONGER: Duration = Duration::from_millis(1);

/// How much is carried at once.
const PIECE: usize = 64 * 1024;

/// How many pieces may be on their way: one or two, as nobody asks anew before there
/// is an answer.
const ON_THE_WAY: usize = 1024;

/// A proxy, which goes on until the suite ends.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) address: SocketAddr,
    counts: Arc<Mutex<Counts>>,
}

/// Connections on which a query is under way, from when the client sent it until the
/// answer was complete.
#[derive(Debug, Default)]
struct Counts {
    busy: usize,
    /// The most at the same time since it was last asked for.
    most: usize,
}

/// One connection.
struct Watched {
    counts: Arc<Mutex<Counts>>,
    /// How many answers are due.
    due: usize,
    /// It waits for changes: it asks for no key.
    listens: bool,
}

impl Network {
    /// A way to `target`, on which what is asked arrives later, and answers at once.
    pub(crate) fn before(target: SocketAddr, place: Place) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let network = Self { address: listener.local_addr()?, counts: Arc::default() };
        let counts = Arc::clone(&network.counts);
        thread::spawn(move || {
            place.keep_this_thread().expect("taskset is there");
            for near in listener.incoming() {
                let watched = Watched { counts: Arc::clone(&counts), due: 0, listens: false };
                // Whoever asked is told by the end of its connection.
                let _ = near.and_then(|near| carry(&near, target, watched));
            }
        });
        Ok(network)
    }

    /// On how many connections a query was under way at the same time since the last
    /// call, at most.
    pub(crate) fn most_at_once(&self) -> usize {
        let mut counts = locked(&self.counts);
        let busy = counts.busy;
        std::mem::replace(&mut counts.most, busy)
    }
}

/// Carries one connection until either side ends it.
fn carry(near: &TcpStream, target: SocketAddr, watched: Watched) -> std::io::Result<()> {
    let far = TcpStream::connect(target)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (mut asking, mut answered) = (near.try_clone()?, near.try_clone()?);
    let (mut asked, mut answering) = (far.try_clone()?, far);
    let watched = Arc::new(Mutex::new(watched));
    let seen = Arc::clone(&watched);
    let (send, arriving) = sync_channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    thread::spawn(move || {
        let (mut piece, mut messages) =
            (vec![0; PIECE], Messages { bytes: Vec::new(), untyped: true });
        while let Ok(length @ 1..) = asking.read(&mut piece) {
            let due = Instant::now() + LONGER;
            messages.each(&piece[..length], |kind, body| locked(&seen).asked(kind, body));
            if send.send((due, piece[..length].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        while let Ok((due, piece)) = arriving.recv() {
            while let Some(early) = due.checked_duration_since(Instant::now()) {
                // Nobody wakes it: a sleep, to some 50 µs.
                thread::park_timeout(early);
            }
            if asked.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = asked.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        let (mut piece, mut messages) = (vec![0; PIECE], Messages::default());
        while let Ok(length @ 1..) = answering.read(&mut piece) {
            // Before the client can ask anew.
            messages.each(&piece[..length], |kind, _| locked(&watched).answered(kind));
            if answered.write_all(&piece[..length]).is_err() {
                break;
            }
        }
        locked(&watched).end();
        let _ = answered.shutdown(Shutdown::Both);
    });
    Ok(())
}

impl Watched {
    /// The client has sent a message: `Query` and `Sync` are answered with `ReadyForQuery`.
    fn asked(&mut self, kind: u8, body: &[u8]) {
        self.listens |= kind == b'Q' && body.starts_with(b"LISTEN ");
        if self.listens || !matches!(kind, b'Q' | b'S') {
            return;
        }
        self.due += 1;
        if self.due == 1 {
            let mut counts = locked(&self.counts);
            counts.busy += 1;
            counts.most = counts.most.max(counts.busy);
        }
    }

    /// The server says the first `ReadyForQuery` of a connection without being asked.
    fn answered(&mut self, kind: u8) {
        if kind == b'Z' && self.due > 0 {
            self.due -= 1;
            locked(&self.counts).busy -= usize::from(self.due == 0);
        }
    }

    fn end(&mut self) {
        let busy = usize::from(std::mem::take(&mut self.due) > 0);
        locked(&self.counts).busy -= busy;
    }
}

/// What passes on a connection, as PostgreSQL's protocol has it: messages of a type, a
/// length and a body.
#[derive(Default)]
struct Messages {
    bytes: Vec<u8>,
    /// Whether the next one has no type, as the first of a client.
    untyped: bool,
}

impl Messages {
    /// Adds what has come; `see` is shown each message that is whole.
    fn each(&mut self, more: &[u8], mut see: impl FnMut(u8, &[u8])) {
        self.bytes.extend_from_slice(more);
        let mut rest = &self.bytes[..];
        loop {
            let (kind, after) = if self.untyped {
                (0, rest)
            } else {
                let Some((&kind, after)) = rest.split_first() else { break };
                (kind, after)
            };
            let Some(&length) = after.first_chunk() else { break };
            let Some((message, after)) =
                after.split_at_checked(u32::from_be_bytes(length) as usize)
            else {
                break;
            };
            see(kind, &message[4..]);
            (rest, self.untyped) = (after, false);
        }
        self.bytes = rest.to_vec();
    }
}

/// A panic elsewhere leaves counts as they are.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
