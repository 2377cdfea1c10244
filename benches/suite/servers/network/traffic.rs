//! What passes on connections to PostgreSQL, as its protocol has it: messages of a
//! type, a length and a body (<https://www.postgresql.org/docs/15/protocol.html>).

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What is asked for only where keys are looked up, by Keystead and beside it.
const LOOKUP: &[u8] = b"WHERE digest = ";

/// What a connection says that waits for changes. It asks for no key, and its calls
/// are bounded by themselves.
const LISTEN: &[u8] = b"LISTEN ";

/// Queries on all connections but those that listen for changes.
#[derive(Debug, Default)]
pub(crate) struct Traffic(Mutex<Counts>);

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    /// Connections on which a query is under way.
    busy: usize,
    counted: Counted,
}

/// What was counted since it was last asked for.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counted {
    /// The most connections on which a query was under way at the same time, from
    /// the moment at which the client sent it until the server's answer was complete.
    /// Of those that follow each other on a connection the server works on one.
    pub(crate) most_at_once: usize,
    /// Queries that look up keys.
    pub(crate) lookups: u64,
}

impl Traffic {
    /// What was counted since the last time.
    pub(crate) fn take(&self) -> Counted {
        let mut counts = locked(&self.0);
        let now = Counted { most_at_once: counts.busy, lookups: 0 };
        std::mem::replace(&mut counts.counted, now)
    }

    fn begin(&self) {
        let mut counts = locked(&self.0);
        counts.busy += 1;
        counts.counted.most_at_once = counts.counted.most_at_once.max(counts.busy);
    }

    fn end(&self) {
        locked(&self.0).busy -= 1;
    }

    fn looked_up(&self) {
        locked(&self.0).counted.lookups += 1;
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Watched {
    traffic: Arc<Traffic>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    asked: Messages,
    answered: Messages,
    /// The prepared statements that look up keys.
    lookups: HashSet<Vec<u8>>,
    /// What has been asked and not wholly answered: whether it counts.
    under_way: VecDeque<bool>,
    listens: bool,
}

impl State {
    fn is_busy(&self) -> bool {
        self.under_way.contains(&true)
    }
}

impl Watched {
    /// A new connection, on which encryption is never asked for.
    pub(super) fn new(traffic: Arc<Traffic>) -> Self {
        let asked = Messages { untyped: true, ..Messages::default() };
        // The server says that it is ready without being asked, once.
        let under_way = VecDeque::from([false]);
        Self { traffic, state: Mutex::new(State { asked, under_way, ..State::default() }) }
    }

    /// The client has sent something.
    pub(super) fn asked(&self, bytes: &[u8]) {
        let state = &mut *locked(&self.state);
        state.asked.add(bytes);
        while let Some((kind, body)) = state.asked.next() {
            match kind {
                b'P' => {
                    let (name, rest) = text(&body);
                    if contains(rest, LOOKUP) {
                        state.lookups.insert(name.to_vec());
                    } else {
                        state.lookups.remove(name);
                    }
                }
                b'B' => {
                    let (statement, _) = text(text(&body).1);
                    if state.lookups.contains(statement) {
                        self.traffic.looked_up();
                    }
                }
                // A Sync without a query is one as well: something is prepared.
                b'S' => self.begin(state),
                b'Q' => {
                    state.listens |= contains(&body, LISTEN);
                    if contains(&body, LOOKUP) {
                        self.traffic.looked_up();
                    }
                    self.begin(state);
                }
                _ => {}
            }
        }
    }

    fn begin(&self, state: &mut State) {
        if !state.listens && !state.is_busy() {
            self.traffic.begin();
        }
        state.under_way.push_back(!state.listens);
    }

    /// The server has sent something.
    pub(super) fn answered(&self, bytes: &[u8]) {
        let state = &mut *locked(&self.state);
        state.answered.add(bytes);
        while let Some((kind, _)) = state.answered.next() {
            // ReadyForQuery.
            if kind == b'Z' && state.under_way.pop_front() == Some(true) && !state.is_busy() {
                self.traffic.end();
            }
        }
    }

    /// The server has closed the connection.
    pub(super) fn ended(&self) {
        let state = &mut *locked(&self.state);
        if state.is_busy() {
            self.traffic.end();
        }
        state.under_way.clear();
    }
}

/// Bytes that come in pieces, as messages.
#[derive(Debug, Default)]
struct Messages {
    bytes: Vec<u8>,
    /// Up to where they were read.
    read: usize,
    /// Whether the next one has no type, as the first of a client.
    untyped: bool,
}

impl Messages {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.read));
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message: its type, 0 for none, and its body.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let rest = &self.bytes[self.read..];
        let (kind, rest) = if self.untyped { (0, rest) } else { (*rest.first()?, &rest[1..]) };
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let body = rest.get(4..length)?.to_vec();
        self.read += length + usize::from(!self.untyped);
        self.untyped = false;
        Some((kind, body))
    }
}

/// A text that a zero ends, and what follows.
fn text(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A panic elsewhere leaves counts as they are.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
