//! What came of a run. Times are in milliseconds.

use crate::{
    discipline::BUDGET,
    simulation::{Scenario, count, whole},
};

/// The width of a bin of answer times.
const FINE: f64 = 0.1;

/// The width of a bin of the course of time, which recovery is timed with.
const BIN: f64 = 100.0;

/// For how many bins all is well before it counts as recovered.
const STEADY: usize = 10;

/// The part of those who come in a bin that is answered when all is well.
const WELL: f64 = 0.99;

/// What happened in a bin.
#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    offered: u32,
    answered: u32,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Results {
    counts: (f64, f64),
    over: f64,
    capacity: f64,
    offered: u32,
    answered: u32,
    refused: u32,
    /// How long they waited for it, all together.
    refused_after: f64,
    late: u32,
    queries: u32,
    wasted: u32,
    times: Vec<u32>,
    course: Vec<Bin>,
}

impl Results {
    pub(crate) fn new(scenario: &Scenario, capacity: f64) -> Self {
        Self {
            counts: scenario.counts,
            over: scenario.over,
            capacity,
            offered: 0,
            answered: 0,
            refused: 0,
            refused_after: 0.0,
            late: 0,
            queries: 0,
            wasted: 0,
            times: vec![0; whole(BUDGET / FINE) + 2],
            course: vec![Bin::default(); whole(scenario.ends / BIN) + 1],
        }
    }

    fn counts(&self, at: f64) -> bool {
        (self.counts.0..self.counts.1).contains(&at)
    }

    pub(crate) fn offered(&mut self, at: f64) {
        self.offered += u32::from(self.counts(at));
        self.course[whole(at / BIN)].offered += 1;
    }

    pub(crate) fn answered(&mut self, at: f64, took: f64) {
        // In the bin of its arrival, so that the two can be compared.
        self.course[whole((at - took).max(0.0) / BIN)].answered += 1;
        if self.counts(at) {
            self.answered += 1;
            self.times[whole(took / FINE)] += 1;
        }
    }

    /// Printed that there is no answer, by us or by the caller's own clock.
    pub(crate) fn refused(&mut self, at: f64, after: f64) {
        if self.counts(at) {
            self.refused += 1;
            self.refused_after += after;
        }
    }

    /// Asked about for nobody: given up, or answered too late.
    pub(crate) fn late(&mut self, at: f64) {
        self.late += u32::from(self.counts(at));
    }

    pub(crate) fn query(&mut self, at: f64, of_use: bool) {
        self.queries += u32::from(self.counts(at));
        self.wasted += u32::from(self.counts(at) && !of_use);
    }

    /// Answered in time, as a part of what the store can do.
    pub(crate) fn goodput(&self) -> f64 {
        f64::from(self.answered) / ((self.counts.1 - self.counts.0) / 1e3 * self.capacity)
    }

    /// As a part of all that was offered.
    pub(crate) fn answered_share(&self) -> f64 {
        f64::from(self.answered) / f64::from(self.offered.max(1))
    }

    pub(crate) fn refused_share(&self) -> f64 {
        f64::from(self.refused) / f64::from(self.offered.max(1))
    }

    /// The mean wait for a refusal.
    pub(crate) fn refused_after(&self) -> f64 {
        self.refused_after / f64::from(self.refused.max(1))
    }

    /// Keys that were asked about for nobody, as a part of all that were.
    pub(crate) fn late_share(&self) -> f64 {
        f64::from(self.late) / f64::from((self.late + self.answered).max(1))
    }

    /// Queries of which no answer was of use, as a part of all.
    pub(crate) fn wasted_share(&self) -> f64 {
        f64::from(self.wasted) / f64::from(self.queries.max(1))
    }

    pub(crate) fn percentile(&self, part: f64) -> f64 {
        let rank = part * f64::from(self.answered);
        let mut below = 0.0;
        for (bin, answers) in self.times.iter().enumerate() {
            below += f64::from(*answers);
            if below >= rank {
                return count(bin) * FINE;
            }
        }
        BUDGET
    }

    /// From the end of the trouble until all is well and stays so; `None` when
    /// that did not happen.
    pub(crate) fn recovery(&self) -> Option<f64> {
        let from = whole(self.over / BIN);
        // Those who came last may still wait.
        let until = self.course.len().checked_sub(5)?;
        let well = |bin: &Bin| f64::from(bin.answered) >= WELL * f64::from(bin.offered);
        let after = self.course.get(from..until)?;
        let at = after.windows(STEADY).position(|bins| bins.iter().all(well))?;
        Some(count(at) * BIN)
    }
}
