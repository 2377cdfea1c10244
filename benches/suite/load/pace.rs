//! Whether the loader itself is what makes an answer late.
//!
//! Where processors are shared, all cores may run at a tenth of their speed for some
//! hundredths of a second. Nobody is told: no thread waits for a core, and no time is
//! stolen. All that is seen is that the same computation takes longer. So the loader
//! does one now and then, which knows nothing of the server. And it may have to leave
//! its core to others, such as a database beside it. What becomes due meanwhile is set
//! aside, and what is under way then takes as much less: whether an answer counts does not
//! depend on how long it takes.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use crate::Result;

/// How often the machine's speed is looked at.
const EVERY: Duration = Duration::from_micros(200);

/// How long the computation is: three microseconds, far less than lies between two.
const STEPS: u64 = 2_000;

/// How many times as long as at best it takes where the machine is slow. Up to 1.4 is
/// usual, and 7 to 14 where it is not.
const SLOW: u32 = 2;

/// How long the loader is not on its core where that counts: less than a check takes.
const AWAY: Duration = Duration::from_micros(30);

/// How many requests are under way where nothing has gathered.
const USUAL: usize = 4;

/// How many times as long as it was disturbed what has gathered meanwhile may take: at
/// 80 % of capacity four times is enough. What waits longer waits for the server.
const SETTLED: u32 = 4;

/// What was seen.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    /// When it was looked at last, and how much CPU time the loader had used.
    seen: (Duration, Duration),
    /// When the computation was done last.
    computed: Duration,
    /// How long it took at best.
    fastest: Duration,
    slow: bool,
    disturbed: Option<Disturbance>,
    spans: Vec<(Duration, Duration)>,
}

/// The loader is disturbed, or what has gathered then is not yet answered.
#[derive(Debug, Clone, Copy)]
struct Disturbance {
    since: Duration,
    /// When it last was.
    last: Duration,
    /// For how long it was, in all.
    took: Duration,
}

/// When the loader was disturbed, in order, until what had gathered meanwhile was
/// answered.
#[derive(Debug)]
pub(super) struct Disturbed(Vec<(Duration, Duration)>);

impl Pace {
    pub(super) fn since(began: Instant) -> Result<Self> {
        // What is usual, before anything is due.
        let fastest = (0..100).map(|_| compute()).min().unwrap_or(Duration::MAX);
        let now = began.elapsed();
        Ok(Self {
            began,
            seen: (now, used()?),
            computed: now,
            fastest,
            slow: false,
            disturbed: None,
            spans: Vec::new(),
        })
    }

    /// Looks at it, so many requests being under way. The loader, which never waits,
    /// calls this whenever it has sent what is due.
    pub(super) fn look(&mut self, open: usize) -> Result<()> {
        let (at, used) = (self.began.elapsed(), used()?);
        let (before, used_before) = std::mem::replace(&mut self.seen, (at, used));
        let away = at.saturating_sub(before) > used.saturating_sub(used_before) + AWAY;
        let mut since = before;
        if at >= self.computed + EVERY {
            let before = std::mem::replace(&mut self.computed, at);
            // Twice where it was slow: it may have been interrupted.
            let took = Some(compute()).filter(|&took| took / SLOW <= self.fastest);
            let took = took.unwrap_or_else(compute);
            self.fastest = self.fastest.min(took);
            self.slow = took / SLOW > self.fastest;
            since = if self.slow { before } else { since };
        }
        if away || self.slow {
            self.disturb(since, at);
        } else if let Some(Disturbance { since, last, took }) = self.disturbed
            && (open <= USUAL || at > last + took * SETTLED)
        {
            self.spans.push((since, at));
            self.disturbed = None;
        }
        Ok(())
    }

    fn disturb(&mut self, since: Duration, until: Duration) {
        let ended = self.spans.last().map_or(Duration::ZERO, |&(_, end)| end);
        let since = since.max(ended);
        let so_far = Disturbance { since, last: since, took: Duration::ZERO };
        let so_far = self.disturbed.unwrap_or(so_far);
        let took = until.saturating_sub(since.max(so_far.last));
        self.disturbed = Some(Disturbance { last: until, took: so_far.took + took, ..so_far });
    }

    pub(super) fn disturbed(mut self) -> Disturbed {
        self.spans.extend(self.disturbed.map(|it| (it.since, Duration::MAX)));
        Disturbed(self.spans)
    }
}

impl Disturbed {
    /// How much of this time it was not; `None` if it was at the beginning.
    pub(super) fn calm(&self, from: Duration, to: Duration) -> Option<Duration> {
        let first = self.0.partition_point(|&(_, end)| end < from);
        let touched = || self.0[first..].iter().take_while(|&&(begin, _)| begin < to);
        if touched().any(|&(begin, _)| begin <= from) {
            return None;
        }
        let lost = touched().map(|&(begin, end)| end.min(to).saturating_sub(begin)).sum();
        Some(to.saturating_sub(from).saturating_sub(lost))
    }
}

/// The CPU time of this thread.
fn used() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// How long it takes to compute something where each step waits for the last one: Knuth's
/// generator. It touches no memory, which would take another time each time.
fn compute() -> Duration {
    let began = Instant::now();
    let mut state = black_box(1_u64);
    for _ in 0..STEPS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    black_box(state);
    began.elapsed()
}
