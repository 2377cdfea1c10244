//! Who is asked about next, and who has waited too long: the rules that are
//! compared. Times are in milliseconds.

use std::collections::VecDeque;

/// From a caller's arrival until it has gone.
pub(crate) const BUDGET: f64 = 150.0;

/// After which a query is given up.
pub(crate) const QUERY_TIMEOUT: f64 = 100.0;

/// The last moment, seen from the arrival, to start a query that ends in time
/// even when it takes all that it may.
const FIXED: f64 = BUDGET - QUERY_TIMEOUT;

/// How long a queue is never empty before it counts as standing, and no longer
/// as a burst: the interval of RFC 8289.
const INTERVAL: f64 = 100.0;

/// The target of RFC 8289, section 4.3: 5 % of the interval.
const TARGET: f64 = 5.0;

/// How long a queue is never empty before adaptive LIFO turns it round.
const TURN_AFTER: f64 = 20.0;

/// A caller's question that waits for the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lookup {
    pub(crate) arrived: f64,
    /// How often it was refused before.
    pub(crate) tries: usize,
}

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Discipline {
    /// Oldest first, whether its caller is still there or not.
    Fifo,
    /// Oldest first; refused when it has waited for 50 ms.
    Fixed,
    /// Oldest first; refused when a query like the recent ones would be late.
    Adaptive,
    /// As adaptive; as fixed once the queue is a standing one.
    Controlled,
    /// RFC 8289 at dequeue; callers that have gone leave.
    CoDel,
    /// RFC 8289 at dequeue, and fixed.
    CoDelFixed,
    /// Newest first while a queue builds up; fixed.
    Lifo,
    /// As adaptive; newest first once the queue is a standing one.
    LifoAdaptive,
}

impl Discipline {
    pub(crate) const ALL: [Self; 8] = [
        Self::Fifo,
        Self::Fixed,
        Self::Adaptive,
        Self::Controlled,
        Self::CoDel,
        Self::CoDelFixed,
        Self::Lifo,
        Self::LifoAdaptive,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fifo => "FIFO",
            Self::Fixed => "FIFO, by 50 ms",
            Self::Adaptive => "FIFO, in time",
            Self::Controlled => "FIFO, in time, 50 standing",
            Self::CoDel => "CoDel 5/100",
            Self::CoDelFixed => "CoDel 5/100, by 50 ms",
            Self::Lifo => "adaptive LIFO, by 50 ms",
            Self::LifoAdaptive => "adaptive LIFO, in time",
        }
    }
}

/// What waits.
#[derive(Debug)]
pub(crate) struct Queue {
    discipline: Discipline,
    waiting: VecDeque<Lookup>,
    bound: usize,
    /// Since when it has not been empty.
    not_empty_since: f64,
    /// How long queries took of late.
    query_time: RecentHigh,
    codel: CoDel,
    /// How many at the front have lost their callers: of plain FIFO alone.
    gone: usize,
}

impl Queue {
    pub(crate) fn new(discipline: Discipline, bound: usize) -> Self {
        Self {
            discipline,
            waiting: VecDeque::with_capacity(bound),
            bound,
            not_empty_since: 0.0,
            query_time: RecentHigh::default(),
            codel: CoDel::default(),
            gone: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// False when it is full.
    pub(crate) fn push(&mut self, lookup: Lookup) -> bool {
        if self.waiting.len() >= self.bound {
            return false;
        }
        if self.waiting.is_empty() {
            self.not_empty_since = lookup.arrived;
        }
        self.waiting.push_back(lookup);
        true
    }

    /// Those who have waited too long, with the time when that was.
    pub(crate) fn expire(&mut self, now: f64, mut expired: impl FnMut(Lookup, f64)) {
        if self.discipline == Discipline::Fifo {
            while let Some(lookup) = self.waiting.get(self.gone)
                && lookup.arrived + BUDGET <= now
            {
                expired(*lookup, lookup.arrived + BUDGET);
                self.gone += 1;
            }
            return;
        }
        let patience = self.patience(now);
        while let Some(lookup) = self.waiting.front()
            && lookup.arrived + patience <= now
        {
            expired(*lookup, lookup.arrived + patience);
            self.waiting.pop_front();
        }
    }

    /// How long a lookup may wait before its query starts.
    fn patience(&self, now: f64) -> f64 {
        let in_time = BUDGET - self.query_time.value().min(QUERY_TIMEOUT);
        match self.discipline {
            Discipline::Fifo | Discipline::CoDel => BUDGET,
            Discipline::Fixed | Discipline::CoDelFixed | Discipline::Lifo => FIXED,
            Discipline::Controlled if self.stands(now, INTERVAL) => FIXED,
            Discipline::Adaptive | Discipline::Controlled | Discipline::LifoAdaptive => in_time,
        }
    }

    /// Whether it was not empty for so long.
    fn stands(&self, now: f64, how_long: f64) -> bool {
        now - self.not_empty_since > how_long
    }

    /// The next batch. What RFC 8289 drops from it goes to `dropped`.
    pub(crate) fn take(
        &mut self,
        now: f64,
        at_most: usize,
        mut dropped: impl FnMut(Lookup, f64),
    ) -> Vec<Lookup> {
        let codel = matches!(self.discipline, Discipline::CoDel | Discipline::CoDelFixed);
        let newest_first = match self.discipline {
            Discipline::Lifo => self.stands(now, TURN_AFTER),
            Discipline::LifoAdaptive => self.stands(now, INTERVAL),
            Discipline::Fifo
            | Discipline::Fixed
            | Discipline::Adaptive
            | Discipline::Controlled
            | Discipline::CoDel
            | Discipline::CoDelFixed => false,
        };
        let mut batch = Vec::with_capacity(at_most.min(self.waiting.len()));
        while batch.len() < at_most {
            let next =
                if newest_first { self.waiting.pop_back() } else { self.waiting.pop_front() };
            let Some(lookup) = next else {
                break;
            };
            self.gone = self.gone.saturating_sub(1);
            if codel && self.codel.drops(now, now - lookup.arrived, self.waiting.len()) {
                dropped(lookup, now);
            } else {
                batch.push(lookup);
            }
        }
        batch
    }

    pub(crate) fn observe(&mut self, query_time: f64) {
        self.query_time.observe(query_time);
    }
}

/// The query time of late, on the high side: follows a longer one by a quarter
/// of the difference and a shorter one by a 64th.
#[derive(Debug, Default)]
struct RecentHigh(f64);

impl RecentHigh {
    fn observe(&mut self, query_time: f64) {
        let gain = if query_time > self.0 { 1.0 / 4.0 } else { 1.0 / 64.0 };
        self.0 += (query_time - self.0) * gain;
    }

    const fn value(&self) -> f64 {
        self.0
    }
}

/// The state of RFC 8289, section 5.
#[derive(Debug, Default)]
struct CoDel {
    first_above: Option<f64>,
    dropping: bool,
    drop_next: f64,
    count: u32,
    last_count: u32,
}

impl CoDel {
    /// Whether to drop what has just been taken out, with so many behind it.
    fn drops(&mut self, now: f64, waited: f64, behind: usize) -> bool {
        let above = self.is_above(now, waited, behind);
        if self.dropping {
            if !above {
                self.dropping = false;
                return false;
            }
            if now < self.drop_next {
                return false;
            }
            self.count += 1;
            self.drop_next = self.control_law(self.drop_next);
            return true;
        }
        if !above {
            return false;
        }
        self.dropping = true;
        // Soon after the last time, at the rate that was right then.
        let delta = self.count.saturating_sub(self.last_count);
        let recently = now - self.drop_next < 16.0 * INTERVAL;
        self.count = if delta > 1 && recently { delta } else { 1 };
        self.drop_next = self.control_law(now);
        self.last_count = self.count;
        true
    }

    /// Whether the wait has been above the target for an interval.
    fn is_above(&mut self, now: f64, waited: f64, behind: usize) -> bool {
        if waited < TARGET || behind == 0 {
            self.first_above = None;
            return false;
        }
        let first_above = *self.first_above.get_or_insert(now + INTERVAL);
        now >= first_above
    }

    fn control_law(&self, from: f64) -> f64 {
        from + INTERVAL / f64::from(self.count).sqrt()
    }
}
