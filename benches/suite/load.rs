//! A loader that sends other messages each time, loads connections unevenly, keeps
//! a rate, and reads the `grpc-status` of every answer. A process of its own.

mod caller;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Buf, Bytes};
use h2::{Ping, client::SendRequest};
use serde::{Deserialize, Serialize};
use tokio::{runtime::Builder, task::JoinSet, time::Instant};

pub(crate) use caller::{Answer, ask, call, connect};

use crate::{Result, loader, process::Place};

/// What the first argument is to a process that loads.
pub(crate) const CHILD: &str = "load";

/// What to send.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    /// The path of the method.
    pub(crate) path: String,
    /// A file of messages, each with the five bytes before it that gRPC has.
    pub(crate) messages: PathBuf,
    /// The connections in the order in which they get a request each, over and
    /// over: they share the load in this way, whichever of them is slow.
    pub(crate) turns: Vec<usize>,
    pub(crate) pressure: Pressure,
    pub(crate) until: Until,
}

/// How much is sent, over all connections.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Pressure {
    /// So many requests are under way at all times.
    UnderWay(usize),
    /// So many requests a second, whatever comes back. Those that are due within
    /// a millisecond, the resolution of tokio's timer, are sent together.
    Rate(f64),
}

/// When it ends.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Until {
    /// Every message has been sent once.
    AllSent,
    /// So long, with the messages from the beginning whenever they are used up.
    Elapsed(Duration),
}

/// What came back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// How many answers had which `grpc-status`.
    pub(crate) statuses: BTreeMap<i32, u64>,
    /// How long it took in all.
    pub(crate) took: Duration,
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
}

impl Tally {
    pub(crate) fn count(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Fails unless all answers had this status.
    pub(crate) fn all(self, status: i32) -> Result<Self> {
        let alike = self.statuses.keys().all(|&other| other == status);
        if self.statuses.is_empty() || !alike {
            return Err(format!("not all answers are {status}: {:?}", self.statuses).into());
        }
        Ok(self)
    }
}

impl Plan {
    /// Carries it out in a process of its own. `connected` is called when all
    /// connections are made, and nothing has been asked.
    pub(crate) fn run<T>(
        &self,
        place: Place,
        connected: impl FnOnce() -> Result<T>,
    ) -> Result<(Tally, T)> {
        loader::run(CHILD, place, self, connected)
    }
}

/// Is such a loader.
pub(crate) fn run_child() -> Result<()> {
    let plan: Plan = loader::plan()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    loader::tell(&runtime.block_on(carry_out(&plan))?)
}

/// What all callers share. Between two awaits of one thread
/// nobody else holds a lock.
pub(crate) struct Shared {
    path: String,
    turns: Mutex<Turns>,
    messages: Mutex<Messages>,
    /// When it ends, if not by the messages.
    end: Option<Instant>,
    seen: Arc<Mutex<Seen>>,
}

struct Turns {
    all: Vec<SendRequest<Bytes>>,
    next: usize,
}

struct Messages {
    all: Vec<Bytes>,
    left: VecDeque<Bytes>,
}

#[derive(Default)]
struct Seen {
    statuses: BTreeMap<i32, u64>,
    times: Vec<Duration>,
}

impl Shared {
    /// The connection whose turn it is.
    fn turn(&self) -> SendRequest<Bytes> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let next = turns.next;
        turns.next = (next + 1) % turns.all.len();
        turns.all[next].clone()
    }

    /// The next message, or `None` at the end.
    fn next(&self) -> Option<Bytes> {
        if self.end.is_some_and(|end| Instant::now() >= end) {
            return None;
        }
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.left.is_empty() && self.end.is_some() {
            messages.left = messages.all.iter().cloned().collect();
        }
        messages.left.pop_front()
    }

    fn saw(&self, status: i32, took: Duration) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen.statuses.entry(status).or_default() += 1;
        seen.times.push(took);
    }
}

async fn carry_out(plan: &Plan) -> Result<Tally> {
    let all = frames(&plan.messages)?;
    let (mut running, mut senders) = (JoinSet::new(), Vec::new());
    for _ in 0..=plan.turns.iter().max().copied().ok_or("it is nobody's turn")? {
        let (sender, mut connection) = caller::connect(plan.address).await?;
        let mut ping = connection.ping_pong().ok_or("a connection can be pinged")?;
        // Ends when all that send on it have ended.
        running.spawn(async move { Ok(connection.await?) });
        // What both sides say at the beginning is not part of the load.
        ping.ping(Ping::opaque()).await?;
        senders.push(sender);
    }
    let turns = plan.turns.iter().map(|&turn| senders[turn].clone()).collect();
    drop(senders);
    // Nothing happens on the connections before that.
    loader::wait_to_begin()?;
    let began = Instant::now();
    let end = match plan.until {
        Until::AllSent => None,
        Until::Elapsed(duration) => Some(began + duration),
    };
    let shared = Arc::new(Shared {
        path: plan.path.clone(),
        turns: Mutex::new(Turns { all: turns, next: 0 }),
        messages: Mutex::new(Messages { left: all.iter().cloned().collect(), all }),
        end,
        seen: Arc::default(),
    });
    match plan.pressure {
        Pressure::UnderWay(count) => {
            for _ in 0..count {
                running.spawn(caller::in_turn(Arc::clone(&shared)));
            }
        }
        Pressure::Rate(rate) => {
            running.spawn(caller::at_rate(rate, Arc::clone(&shared)));
        }
    }
    let seen = Arc::clone(&shared.seen);
    // Its connections end with it.
    drop(shared);
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let took = began.elapsed();
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let Seen { statuses, mut times } = std::mem::take(&mut *seen);
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    Ok(Tally { statuses, took, median: at(50), p99: at(99) })
}

/// The messages of a file, each with the five bytes before it.
pub(crate) fn frames(path: &Path) -> Result<Vec<Bytes>> {
    let mut rest = Bytes::from(std::fs::read(path)?);
    let mut frames = Vec::new();
    while rest.has_remaining() {
        let head = rest.get(..5).ok_or("a message is cut off")?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let whole = usize::try_from(length)? + 5;
        if rest.len() < whole {
            return Err("a message is cut off".into());
        }
        frames.push(rest.split_to(whole));
    }
    Ok(frames)
}

/// A message as the body of a call has it.
pub(crate) fn framed(message: &[u8]) -> Result<Vec<u8>> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len())?.to_be_bytes());
    frame.extend(message);
    Ok(frame)
}
