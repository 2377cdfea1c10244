//! A loader that keeps a rate, whatever comes back, and counts each request from the
//! moment at which it was due: what waits because the server stalls counts in full,
//! whenever it is sent. What waits because the machine is slow, or the loader not on its
//! core, is not the server's, and is told apart ([`pace`]).
//!
//! It is one thread that never sleeps: a timer would be late by more than a check takes.

mod pace;

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::try_join_all, stream::FuturesUnordered};
use tokio::task::yield_now;

use self::pace::{Disturbed, Pace};
use crate::{
    Result,
    grpc::{Channel, block_on},
    keystead::CHECK,
    process::Place,
};

/// Over how many connections a load is spread, where nothing else is said.
pub(crate) const CONNECTIONS: usize = 8;

/// How long answers may take that are missing at the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks of one kind, on connections of their own.
#[derive(Clone)]
pub(crate) struct Flow {
    pub(crate) address: SocketAddr,
    /// Framed messages, from the beginning whenever they are used up.
    pub(crate) messages: Arc<[Bytes]>,
    /// Which get a request each by turns.
    pub(crate) connections: usize,
    /// A second, kept evenly to the nanosecond.
    pub(crate) rate: f64,
}

/// What came back of a flow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Answers with the status OK.
    pub(crate) granted: u64,
    pub(crate) others: u64,
    /// Answers to requests that became due while the loader was not disturbed: the times
    /// below are theirs, without those in which it was.
    counted: u64,
    /// From when a request was due until its answer was complete.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    /// How late the loader began to send, at p99: the part of the times above that is not
    /// the server's.
    pub(crate) sent_late: Duration,
}

/// What came of all flows.
pub(crate) struct Done {
    /// For each.
    pub(crate) tallies: Vec<Tally>,
    /// Until the last answer.
    took: Duration,
    /// The CPU time that the server took meanwhile.
    pub(crate) busy: Duration,
}

/// A call that has ended.
struct Call {
    flow: usize,
    /// Its connection.
    on: usize,
    due: Duration,
    sent: Duration,
    answered: Duration,
    granted: bool,
}

impl Tally {
    /// Fails unless all were answered with OK.
    pub(crate) fn all_granted(self) -> Result<Self> {
        if self.counted == 0 || self.others > 0 {
            return Err(format!("not all were granted: {self:?}").into());
        }
        Ok(self)
    }

    pub(crate) fn answers(&self) -> u64 {
        self.granted + self.others
    }

    /// The share of the answers that are set aside.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn aside(&self) -> f64 {
        1.0 - self.counted as f64 / self.answers() as f64
    }

    fn of(calls: &[&Call], disturbed: &Disturbed) -> Self {
        let sorted = |times: &mut dyn Iterator<Item = Duration>| {
            let mut times: Vec<_> = times.collect();
            times.sort_unstable();
            times
        };
        let calm = |call: &&Call, to| disturbed.calm(call.due, to);
        let times = sorted(&mut calls.iter().filter_map(|call| calm(call, call.answered)));
        let late = sorted(&mut calls.iter().filter_map(|call| calm(call, call.sent)));
        let at = |all: &[Duration], thousandths: usize| {
            all.get(all.len() * thousandths / 1000).copied().unwrap_or_default()
        };
        let granted = calls.iter().filter(|call| call.granted).count();
        Self {
            granted: granted as u64,
            others: (calls.len() - granted) as u64,
            counted: times.len() as u64,
            p50: at(&times, 500),
            p99: at(&times, 990),
            p999: at(&times, 999),
            sent_late: at(&late, 990),
        }
    }
}

impl Done {
    /// How much of a core the server used.
    pub(crate) fn share(&self) -> f64 {
        self.busy.div_duration_f64(self.took)
    }
}

/// Sends all flows at the same time, none of which waits for another, from the core for
/// loading; requests become due for so long. `busy` tells the CPU time of the server, of
/// which what connections take when they are made is not counted.
pub(crate) fn load(
    flows: &[Flow],
    lasts: Duration,
    busy: impl Fn() -> Result<Duration> + Sync,
) -> Result<Done> {
    let on_its_core = || {
        Place::Loading.keep_this_thread()?;
        block_on(carry_out(flows, lasts, &busy))
    };
    thread::scope(|scope| scope.spawn(on_its_core).join().expect("the loader does not panic"))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some millions")]
async fn carry_out(
    flows: &[Flow],
    lasts: Duration,
    busy: &impl Fn() -> Result<Duration>,
) -> Result<Done> {
    let connect = |flow: &Flow| {
        try_join_all(vec![flow.address; flow.connections].into_iter().map(Channel::connect))
    };
    let channels = try_join_all(flows.iter().map(connect)).await?;
    let before = busy()?;
    let began = Instant::now();
    let mut pace = Pace::since(began)?;
    let call = async |flow, on, channel: &Channel, message, due| {
        let sent = began.elapsed();
        let granted = channel.call(CHECK, message).await?.status == 0;
        Result::Ok(Call { flow, on, due, sent, answered: began.elapsed(), granted })
    };
    let mut sent = vec![0; flows.len()];
    let mut open: Vec<_> = flows.iter().map(|flow| vec![0; flow.connections]).collect();
    // To make room later would take milliseconds.
    let room = flows.iter().map(|flow| flow.rate * lasts.as_secs_f64()).sum::<f64>() as usize;
    let (mut under_way, mut ended) = (FuturesUnordered::new(), Vec::with_capacity(room));
    loop {
        let now = began.elapsed();
        let mut is_idle = true;
        for (at, flow) in flows.iter().enumerate() {
            while let Some(due) = flow.due(sent[at], lasts).filter(|due| *due <= now) {
                let message = flow.messages[sent[at] % flow.messages.len()].clone();
                let on = sent[at] % flow.connections;
                let channel = &channels[at][on];
                // Later than it was due where the server takes no more at once.
                if open[at][on] >= channel.most_at_once() {
                    break;
                }
                open[at][on] += 1;
                under_way.push(call(at, on, channel, message, due));
                (sent[at], is_idle) = (sent[at] + 1, false);
            }
        }
        pace.look(under_way.len())?;
        while let Some(Some(call)) = under_way.next().now_or_never() {
            let call = call?;
            open[call.flow][call.on] -= 1;
            ended.push(call);
            is_idle = false;
        }
        let all_sent = flows.iter().zip(&sent).all(|(flow, sent)| flow.due(*sent, lasts).is_none());
        if all_sent && under_way.is_empty() {
            break;
        }
        if now > lasts + PATIENCE {
            let (left, all) = (under_way.len(), sent.iter().sum::<usize>());
            return Err(format!("{left} of {all} are not answered: {flows:?}").into());
        }
        if is_idle {
            // To whatever else must run on this core.
            thread::yield_now();
        }
        // To the connections.
        yield_now().await;
    }
    let busy = busy()?.saturating_sub(before);
    let took = ended.iter().map(|call: &Call| call.answered).max().unwrap_or_default();
    let disturbed = pace.disturbed();
    let tally = |at| {
        let calls: Vec<_> = ended.iter().filter(|call| call.flow == at).collect();
        Tally::of(&calls, &disturbed)
    };
    Ok(Done { tallies: (0..flows.len()).map(tally).collect(), took, busy })
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} a second over {} connections", self.rate, self.connections)
    }
}

impl Flow {
    /// When the next request is due, after so many, if there is one.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn due(&self, sent: usize, lasts: Duration) -> Option<Duration> {
        Some(Duration::from_secs_f64(sent as f64 / self.rate)).filter(|due| *due < lasts)
    }
}
