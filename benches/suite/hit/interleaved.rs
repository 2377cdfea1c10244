//! Contenders in turn, round by round, so that what disturbs the machine for a
//! while disturbs all alike.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    Result,
    figures::median,
    grpc::ask,
    h2load::{Cost, load},
    keystead::Service,
    process::Process,
};

/// How many requests are sent before the first round, to warm up and to see how
/// long one takes.
const WARM_UP: u32 = 20_000;

/// A server and what it is asked.
pub(super) struct Contender<'a> {
    pub(super) name: &'static str,
    pub(super) process: &'a Process,
    /// If it is Keystead: the service, and the labels of its checks that are so
    /// answered.
    pub(super) ours: Option<(&'a Service, [(&'static str, &'static str); 3])>,
    pub(super) address: SocketAddr,
    pub(super) path: &'static str,
    /// The file with the request.
    pub(super) frame: PathBuf,
    /// The `grpc-status` of its answer.
    pub(super) status: i32,
}

/// How a contender did, round by round.
#[derive(Debug, Clone)]
pub(super) struct Performance {
    pub(super) name: &'static str,
    pub(super) rounds: Vec<Cost>,
    /// How many requests it was sent in all.
    pub(super) requests: u32,
    /// How many queries it sent to its store for them, if it has one.
    pub(super) queries: f64,
}

/// How many rounds, and for how much CPU time each contender works in one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    pub(super) rounds: usize,
    pub(super) busy_for: Duration,
}

impl Contender<'_> {
    /// Sends so many requests, and fails unless all are answered.
    fn run(&self, requests: u32) -> Result<Cost> {
        load(self.process, self.address, self.path, &self.frame, requests)
    }

    /// How many checks it has answered so, and how many queries its store was
    /// sent; nothing of servers that are not ours.
    fn counted(&self) -> Result<[f64; 2]> {
        let Some((service, labels)) = self.ours else { return Ok([0.0; 2]) };
        let counted = service.counted()?;
        let checks = counted.sum("keystead_checks_total", &labels);
        Ok([checks, counted.sum("keystead_store_queries_total", &[])])
    }

    /// Fails unless it answers as it should.
    fn prove(&self) -> Result<()> {
        let answer = ask(self.address, self.path, std::fs::read(&self.frame)?)?;
        if answer.status == self.status {
            return Ok(());
        }
        Err(format!("{}: grpc-status {}", self.name, answer.status).into())
    }
}

impl Performance {
    /// Microseconds of CPU time for a request.
    pub(super) fn micros(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.micros))
    }

    pub(super) fn busy(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.busy))
    }

    /// How many times as many requests it answers in the same CPU time, round by
    /// round.
    pub(super) fn over(&self, other: &Self) -> Vec<f64> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        pairs.map(|(ours, theirs)| theirs.micros / ours.micros).collect()
    }
}

/// Lets them run in turn. Fails unless Keystead has counted as many answers of
/// each kind as it was asked for.
pub(super) fn interleaved(
    contenders: &[Contender<'_>],
    course: Course,
) -> Result<Vec<Performance>> {
    let counted: Vec<_> = contenders.iter().map(Contender::counted).collect::<Result<_>>()?;
    let mut counts = Vec::new();
    for contender in contenders {
        contender.prove()?;
        let micros = contender.run(WARM_UP)?.micros;
        counts.push(whole(course.busy_for.as_secs_f64() * 1e6 / micros));
    }
    let begin = |it: &Contender<'_>| Performance {
        name: it.name,
        rounds: Vec::new(),
        requests: 0,
        queries: 0.0,
    };
    let mut all: Vec<_> = contenders.iter().map(begin).collect();
    for round in 0..course.rounds {
        let mut turns: Vec<_> = contenders.iter().zip(&counts).zip(&mut all).collect();
        // There and back, so that none always comes after the same other.
        if round % 2 == 1 {
            turns.reverse();
        }
        for ((contender, &requests), done) in turns {
            let [_, before] = contender.counted()?;
            done.rounds.push(contender.run(requests)?);
            let [_, after] = contender.counted()?;
            done.requests += requests;
            done.queries += after - before;
        }
    }
    for ((contender, done), [before, _]) in contenders.iter().zip(&all).zip(counted) {
        let sent = f64::from(done.requests + WARM_UP + 1);
        let [after, _] = contender.counted()?;
        let told = after - before;
        // Counts, which are exact.
        if contender.ours.is_some() && (told - sent).abs() > 0.5 {
            return Err(format!("{}: {told} of {sent} answers are such", done.name).into());
        }
    }
    Ok(all)
}

/// A number of requests, enough for all connections.
fn whole(count: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped")]
    let count = count.clamp(1000.0, 1e8) as u32;
    count
}
