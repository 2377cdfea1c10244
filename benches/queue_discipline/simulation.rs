//! Callers, a queue and a store, event by event. Times are in milliseconds.

use std::collections::VecDeque;

use crate::{
    discipline::{BUDGET, Discipline, Lookup, QUERY_TIMEOUT, Queue},
    random::Random,
    results::Results,
    store,
};

/// How many may wait: `fill.max_queued`.
const BOUND: usize = 10_000;

/// How often a caller comes back after a refusal.
const RETRIES: usize = 3;

/// How long it stays away, between half of this and one and a half times it.
const RETRY_AFTER: f64 = 1000.0;

/// Retries are kept in so many slots a millisecond.
const SLOTS: f64 = 10.0;

/// What happens.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) places: usize,
    /// Until when, and how many arrive in a second, as a part of the capacity.
    pub(crate) load: Vec<(f64, f64)>,
    /// How many arrive at once at the start.
    pub(crate) herd: usize,
    pub(crate) retries: bool,
    /// From when to when the store is slower, and how many times.
    pub(crate) slow: (f64, f64, f64),
    /// When the trouble is over; from then on recovery is timed.
    pub(crate) over: f64,
    /// From when to when figures count.
    pub(crate) counts: (f64, f64),
    /// How long it goes on.
    pub(crate) ends: f64,
}

/// How the store is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Batch {
    /// One key a query.
    Off,
    /// Up to so many.
    Fixed(usize),
    /// Up to so many, as long as queries take less than half of what they may.
    Adaptive(usize),
}

impl Batch {
    pub(crate) const fn most(self) -> usize {
        match self {
            Self::Off => 1,
            Self::Fixed(most) | Self::Adaptive(most) => most,
        }
    }
}

/// A query that is under way.
#[derive(Debug)]
struct Query {
    ends: f64,
    given_up: bool,
    took: f64,
    keys: Vec<Lookup>,
}

/// One run.
#[derive(Debug)]
pub(crate) struct Simulation<'a> {
    scenario: &'a Scenario,
    batch: Batch,
    /// The most keys in the next query.
    size: usize,
    capacity: f64,
    random: Random,
    queue: Queue,
    at_store: Vec<Query>,
    /// Retries by slot, each by how often it was refused before.
    retries: VecDeque<[u32; RETRIES]>,
    first_slot: f64,
    results: Results,
}

impl<'a> Simulation<'a> {
    pub(crate) fn run(scenario: &'a Scenario, discipline: Discipline, batch: Batch) -> Results {
        let capacity = store::capacity(count(scenario.places), count(batch.most()));
        let mut run = Self {
            scenario,
            batch,
            size: batch.most(),
            capacity,
            random: Random::new(2026),
            queue: Queue::new(discipline, BOUND),
            at_store: Vec::new(),
            retries: VecDeque::new(),
            first_slot: 0.0,
            results: Results::new(scenario, capacity),
        };
        run.herd();
        run.events();
        run.results
    }

    fn herd(&mut self) {
        for _ in 0..self.scenario.herd {
            self.arrive(Lookup { arrived: 0.0, tries: 0 });
        }
        self.ask(0.0);
    }

    fn events(&mut self) {
        let mut arrives = self.next_arrival(0.0);
        loop {
            let retries = if self.retries.is_empty() { f64::INFINITY } else { self.first_slot };
            let ends = self.at_store.iter().map(|query| query.ends).fold(f64::INFINITY, f64::min);
            let now = arrives.min(retries).min(ends);
            if now >= self.scenario.ends {
                return;
            }
            self.expire(now);
            if now >= ends {
                self.end_query(now);
            } else if now >= retries {
                self.come_back(now);
            } else {
                self.arrive(Lookup { arrived: now, tries: 0 });
                arrives = self.next_arrival(now);
            }
            self.ask(now);
        }
    }

    /// When the next new caller comes.
    fn next_arrival(&mut self, now: f64) -> f64 {
        let mut from = now;
        for (until, load) in &self.scenario.load {
            if from >= *until {
                continue;
            }
            let at = from + self.random.exponential(1e3 / (load * self.capacity));
            if at < *until {
                return at;
            }
            from = *until;
        }
        f64::INFINITY
    }

    fn arrive(&mut self, lookup: Lookup) {
        self.results.offered(lookup.arrived);
        if !self.queue.push(lookup) {
            self.refuse(lookup, lookup.arrived);
        }
    }

    fn come_back(&mut self, now: f64) {
        let slot = self.retries.pop_front().unwrap_or_default();
        self.first_slot += 1.0 / SLOTS;
        for (tries, count) in slot.into_iter().enumerate() {
            for _ in 0..count {
                self.arrive(Lookup { arrived: now, tries: tries + 1 });
            }
        }
    }

    fn expire(&mut self, now: f64) {
        let mut expired = Vec::new();
        self.queue.expire(now, |lookup, at| expired.push((lookup, at)));
        for (lookup, at) in expired {
            self.refuse(lookup, at);
        }
    }

    /// Starts queries while there are places and somebody waits.
    fn ask(&mut self, now: f64) {
        while self.at_store.len() < self.scenario.places && !self.queue.is_empty() {
            let mut dropped = Vec::new();
            let keys = self.queue.take(now, self.size, |lookup, _| dropped.push(lookup));
            for lookup in dropped {
                self.refuse(lookup, now);
            }
            if keys.is_empty() {
                continue;
            }
            let (from, to, times) = self.scenario.slow;
            let slowed = if (from..to).contains(&now) { times } else { 1.0 };
            let busy = count(self.at_store.len() + 1);
            let drawn = store::draw(&mut self.random, count(keys.len()), busy, slowed);
            let took = drawn.min(QUERY_TIMEOUT);
            let given_up = drawn > QUERY_TIMEOUT;
            self.at_store.push(Query { ends: now + took, given_up, took, keys });
        }
    }

    /// Ends the query whose time has come.
    fn end_query(&mut self, now: f64) {
        let Some(at) = self.at_store.iter().position(|query| query.ends <= now) else {
            return;
        };
        let query = self.at_store.swap_remove(at);
        self.queue.observe(query.took);
        self.fit(&query);
        let mut in_time = 0;
        for lookup in &query.keys {
            let took = now - lookup.arrived;
            if !query.given_up && took <= BUDGET {
                self.results.answered(now, took);
                in_time += 1;
            } else {
                self.results.late(now);
                // A caller of plain FIFO may have gone while it waited, and is
                // on its way back already.
                if now - query.took < lookup.arrived + BUDGET {
                    self.retry(*lookup, now.min(lookup.arrived + BUDGET));
                }
            }
        }
        self.results.query(now, in_time > 0);
    }

    /// Fits the size of batches to what the store can do in time: halved when a
    /// full one took more than half of what it may, a sixteenth of the most
    /// added when it took less than a quarter.
    fn fit(&mut self, query: &Query) {
        let Batch::Adaptive(most) = self.batch else {
            return;
        };
        if query.took > QUERY_TIMEOUT / 2.0 {
            self.size = self.size.min(query.keys.len().div_ceil(2));
        } else if query.took < QUERY_TIMEOUT / 4.0 {
            self.size = (self.size + most / 16).min(most);
        }
    }

    fn refuse(&mut self, lookup: Lookup, at: f64) {
        self.results.refused(at, at - lookup.arrived);
        self.retry(lookup, at);
    }

    fn retry(&mut self, lookup: Lookup, at: f64) {
        if !self.scenario.retries || lookup.tries == RETRIES {
            return;
        }
        let back = at + self.random.between(RETRY_AFTER / 2.0, RETRY_AFTER * 1.5);
        if self.retries.is_empty() {
            self.first_slot = at;
        }
        let slot = whole((back - self.first_slot) * SLOTS);
        if self.retries.len() <= slot {
            self.retries.resize(slot + 1, [0; RETRIES]);
        }
        self.retries[slot][lookup.tries] += 1;
    }
}

/// Exact: counts here are far below 2^32.
pub(crate) fn count(of: usize) -> f64 {
    f64::from(u32::try_from(of).expect("a small number"))
}

/// The whole part of a number that is not negative and far below 2^53.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "said above")]
pub(crate) fn whole(number: f64) -> usize {
    number as usize
}
