//! A loader that keeps a rate, whatever comes back, and counts each request from the
//! moment at which it was due: what waits because the server stalls counts in full,
//! whenever it is sent. What waits because the machine is slow, or the loader not on its
//! core, is not the server's, and is told apart ([`pace`]).
//!
//! One thread that never sleeps, in a process of its own: a timer of the kernel would
//! be late by more than a check takes. It speaks as much of HTTP/2 as it needs, so
//! that it costs less than the server ([`wire`]).

mod pace;
mod wire;

use std::{
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde::{Deserialize, Serialize};

use self::{
    pace::{Disturbed, Pace, USUAL},
    wire::Connection,
};
use crate::{
    Result,
    load::{Pressure, frames},
    loader,
    process::Place,
};

/// What the first argument is to a process that loads.
pub(crate) const CHILD: &str = "steady";

/// How long answers may take that are missing at the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to send.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// All at the same time, none of which waits for another.
    pub(crate) flows: Vec<Flow>,
    /// For how long requests become due; each is then waited for.
    pub(crate) lasts: Duration,
}

/// Checks of one kind, on connections of their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub(crate) address: SocketAddr,
    /// The path of the method.
    pub(crate) path: String,
    /// A file of framed messages, sent from the beginning whenever they are used up.
    pub(crate) messages: PathBuf,
    /// Which get a request each by turns.
    pub(crate) connections: usize,
    /// A rate is kept evenly, to the nanosecond.
    pub(crate) pressure: Pressure,
}

/// What came back of a flow.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Answers that have a message, as those with the status OK have.
    pub(crate) granted: u64,
    /// Answers without, which have another status.
    pub(crate) others: u64,
    /// From the beginning until the last answer.
    pub(crate) took: Duration,
    /// Answers that became due while the loader was not disturbed: the times below are
    /// theirs, without those in which it was.
    pub(crate) counted: u64,
    /// From when a request was due, or sent where there is no rate, until its answer
    /// was complete.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    /// How late the loader began to send, at p99: the part of the times above that is
    /// not the server's unless it took nothing more.
    pub(crate) sent_late: Duration,
}

/// What came of a plan.
pub(crate) struct Done {
    /// For each flow.
    pub(crate) tallies: Vec<Tally>,
    /// The CPU time that the server took meanwhile.
    pub(crate) busy: Duration,
}

impl Tally {
    /// Fails unless all were answered with OK.
    pub(crate) fn all_granted(self) -> Result<Self> {
        if self.counted == 0 || self.others > 0 {
            return Err(format!("not all were granted: {self:?}").into());
        }
        Ok(self)
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn per_second(&self) -> f64 {
        (self.granted + self.others) as f64 / self.took.as_secs_f64()
    }

    /// The share of the answers that are set aside.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn aside(&self) -> f64 {
        1.0 - self.counted as f64 / (self.granted + self.others) as f64
    }
}

impl Plan {
    /// Carries it out on the core for loading: a tally for each flow.
    pub(crate) fn run(&self) -> Result<Vec<Tally>> {
        Ok(loader::run(CHILD, Place::Loading, self, || Ok(()))?.0)
    }

    /// The same, on a server of which `busy` tells the CPU time. What connections take when
    /// they are made is not counted.
    pub(crate) fn run_on(&self, busy: impl Fn() -> Result<Duration>) -> Result<Done> {
        let (tallies, before) = loader::run(CHILD, Place::Loading, self, &busy)?;
        Ok(Done { tallies, busy: busy()?.saturating_sub(before) })
    }
}

impl Done {
    /// How much of a core the server used.
    pub(crate) fn share(&self) -> f64 {
        let took = self.tallies.iter().map(|tally| tally.took).max();
        self.busy.div_duration_f64(took.unwrap_or_default())
    }
}

/// Is such a loader.
pub(crate) fn run_child() -> Result<()> {
    let plan: Plan = loader::plan()?;
    let mut flows =
        plan.flows.iter().map(|flow| Stream::of(flow, plan.lasts)).collect::<Result<Vec<_>>>()?;
    loader::wait_to_begin()?;
    let disturbed = carry_out(&mut flows, plan.lasts)?;
    loader::tell(&flows.iter().map(|flow| flow.seen.tally(&disturbed)).collect::<Vec<_>>())
}

/// A flow under way.
struct Stream {
    messages: Vec<Bytes>,
    pressure: Pressure,
    connections: Vec<Connection>,
    /// How many have been sent.
    sent: u64,
    /// How many are under way.
    open: usize,
    turn: usize,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    granted: u64,
    others: u64,
    last: Duration,
    /// When each was due, or sent where there is no rate, and answered.
    answers: Vec<(Duration, Duration)>,
    /// When each was due, and sent.
    sent: Vec<(Duration, Duration)>,
}

fn carry_out(flows: &mut [Stream], lasts: Duration) -> Result<Disturbed> {
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let mut whose = Vec::new();
    for (at, flow) in flows.iter().enumerate() {
        for (number, connection) in flow.connections.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, whose.len() as u64);
            epoll.add(connection.stream(), event)?;
            whose.push((at, number));
        }
    }
    let began = Instant::now();
    let mut pace = Pace::since(began, flows.iter().map(Stream::usual).sum())?;
    let mut events = vec![EpollEvent::empty(); 64];
    loop {
        let mut sent = false;
        for flow in &mut *flows {
            sent |= flow.send(began, lasts)?;
        }
        pace.look(flows.iter().map(|flow| flow.open).sum())?;
        let ready = epoll.wait(&mut events, EpollTimeout::ZERO)?;
        for event in &events[..ready] {
            let (at, number) = whose[usize::try_from(event.data())?];
            flows[at].receive(number, began)?;
        }
        if !sent && ready == 0 {
            let elapsed = began.elapsed();
            if elapsed >= lasts && flows.iter().all(|flow| flow.is_done(lasts)) {
                return Ok(pace.disturbed());
            }
            if elapsed > lasts + PATIENCE {
                return Err("some are not answered at all".into());
            }
            // To whatever else must run on this core.
            thread::yield_now();
        }
    }
}

impl Seen {
    /// With room for what is due: to make room later takes milliseconds.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some millions")]
    fn for_about(pressure: Pressure, lasts: Duration) -> Self {
        let count = match pressure {
            Pressure::UnderWay(_) => 0,
            Pressure::Rate(rate) => (rate * lasts.as_secs_f64()) as usize + 1,
        };
        let room = || Vec::with_capacity(count);
        Self { answers: room(), sent: room(), ..Self::default() }
    }

    fn tally(&self, disturbed: &Disturbed) -> Tally {
        let calm = |&(from, to): &(Duration, Duration)| disturbed.calm(from, to);
        let times = sorted(self.answers.iter().filter_map(calm));
        let late = sorted(self.sent.iter().filter_map(calm));
        let at = |all: &[Duration], thousandths: usize| {
            all.get(all.len() * thousandths / 1000).copied().unwrap_or_default()
        };
        Tally {
            granted: self.granted,
            others: self.others,
            took: self.last,
            counted: times.len() as u64,
            p50: at(&times, 500),
            p99: at(&times, 990),
            p999: at(&times, 999),
            sent_late: at(&late, 990),
        }
    }
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

impl Stream {
    fn of(flow: &Flow, lasts: Duration) -> Result<Self> {
        let connect = |_| Connection::new(flow.address, &flow.path);
        Ok(Self {
            messages: frames(&flow.messages)?,
            pressure: flow.pressure,
            connections: (0..flow.connections).map(connect).collect::<Result<_>>()?,
            sent: 0,
            open: 0,
            turn: 0,
            seen: Seen::for_about(flow.pressure, lasts),
        })
    }

    /// When the next request is due, if it is by `now`.
    fn due(&self, now: Duration, lasts: Duration) -> Option<Duration> {
        let due = match self.pressure {
            Pressure::UnderWay(most) => (self.open < most).then_some(now)?,
            Pressure::Rate(rate) => self.due_at(rate),
        };
        (due <= now && due < lasts).then_some(due)
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn due_at(&self, rate: f64) -> Duration {
        Duration::from_secs_f64(self.sent as f64 / rate)
    }

    /// Sends what is due and finds room; whether there was anything.
    fn send(&mut self, began: Instant, lasts: Duration) -> Result<bool> {
        let mut any = false;
        let now = began.elapsed();
        while let Some(due) = self.due(now, lasts) {
            let at = usize::try_from(self.sent % self.messages.len() as u64)?;
            let message = &self.messages[at];
            let all = self.connections.len();
            let roomy = (0..all).map(|step| (self.turn + step) % all);
            let Some(turn) = roomy.into_iter().find(|&at| self.connections[at].has_room(message))
            else {
                break;
            };
            self.connections[turn].queue(message, due)?;
            self.turn = (turn + 1) % all;
            self.seen.sent.push((due, now));
            (self.sent, self.open, any) = (self.sent + 1, self.open + 1, true);
        }
        for connection in &mut self.connections {
            connection.flush()?;
        }
        Ok(any)
    }

    fn receive(&mut self, number: usize, began: Instant) -> Result<()> {
        let Self { seen, open, connections, .. } = self;
        connections[number].receive(|due, granted| {
            seen.last = began.elapsed();
            seen.answers.push((due, seen.last));
            *if granted { &mut seen.granted } else { &mut seen.others } += 1;
            *open -= 1;
        })
    }

    fn is_done(&self, lasts: Duration) -> bool {
        let all_sent = match self.pressure {
            Pressure::UnderWay(_) => true,
            Pressure::Rate(rate) => self.due_at(rate) >= lasts,
        };
        all_sent && self.open == 0
    }

    /// How many requests are under way where nothing has gathered.
    fn usual(&self) -> usize {
        match self.pressure {
            Pressure::UnderWay(count) => count,
            Pressure::Rate(_) => USUAL,
        }
    }
}
