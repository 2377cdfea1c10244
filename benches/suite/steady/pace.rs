//! Whether the loader itself is what makes an answer late.
//!
//! Where processors are shared, all cores may run at a tenth of their speed for some
//! hundredths of a second. Nobody is told: no thread waits for a core, and no time is
//! stolen. All that is seen is that the same computation takes longer. So the loader
//! does one now and then, which knows nothing of the server. And it may have to leave
//! its core to others, such as a database beside it. What was under way meanwhile is
//! set aside.

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
pub(super) const USUAL: usize = 4;

/// How many times as long as it was disturbed what has gathered meanwhile may take: at
/// 80 % of capacity four times is enough. What waits longer waits for the server.
const SETTLED: u32 = 10;

/// What was seen.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    /// How many requests are under way where nothing has gathered.
    usual: usize,
    /// When it was looked at last, and how much CPU time the loader had used.
    seen: (Duration, Duration),
    /// When the computation was done last.
    computed: Duration,
    /// How long it took at best.
    fastest: Duration,
    slow: bool,
    /// Since when the loader is disturbed, and when it last was.
    disturbed: Option<(Duration, Duration)>,
    spans: Vec<(Duration, Duration)>,
}

/// When the loader was disturbed, in order, until what had gathered meanwhile was
/// answered.
#[derive(Debug)]
pub(super) struct Disturbed(Vec<(Duration, Duration)>);

impl Pace {
    pub(super) fn since(began: Instant, usual: usize) -> Result<Self> {
        let now = began.elapsed();
        Ok(Self {
            began,
            usual,
            seen: (now, used()?),
            computed: now,
            fastest: Duration::MAX,
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
        let mut from = before;
        if at >= self.computed + EVERY {
            compute();
            let took = self.began.elapsed().saturating_sub(at);
            self.fastest = self.fastest.min(took);
            self.slow = took / SLOW > self.fastest;
            from = std::mem::replace(&mut self.computed, at);
        }
        if away || self.slow {
            let ended = self.spans.last().map_or(Duration::ZERO, |&(_, end)| end);
            let (from, _) = self.disturbed.unwrap_or((from.max(ended), at));
            self.disturbed = Some((from, at));
        } else if let Some((from, to)) = self.disturbed
            && (open <= self.usual || at > to + to.saturating_sub(from) * SETTLED)
        {
            self.spans.push((from, at));
            self.disturbed = None;
        }
        Ok(())
    }

    pub(super) fn disturbed(mut self) -> Disturbed {
        self.spans.extend(self.disturbed.map(|(from, _)| (from, Duration::MAX)));
        Disturbed(self.spans)
    }
}

impl Disturbed {
    /// Whether any of this time was.
    pub(super) fn touches(&self, from: Duration, to: Duration) -> bool {
        let first = self.0.partition_point(|&(_, end)| end < from);
        self.0.get(first).is_some_and(|&(begin, _)| begin <= to)
    }

    /// How much of the time until `end` was not.
    pub(super) fn calm(&self, end: Duration) -> Duration {
        let spans = self.0.iter().map(|&(from, to)| to.min(end).saturating_sub(from));
        end.saturating_sub(spans.sum())
    }
}

/// The CPU time of this thread.
fn used() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Each step waits for the last one: Knuth's generator. It touches no memory, which
/// would take another time each time.
fn compute() {
    let mut state = black_box(1_u64);
    for _ in 0..STEPS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    black_box(state);
}
