//! Keys that nobody has asked for: each is looked up in the store, once.

use std::time::Duration;

use super::stage::Stage;
use crate::{
    Result, h2load,
    keystead::{CHECK, typical_request},
    load::{Plan, Pressure, Until},
    process::Place,
    report::Table,
    statistics::{grouped, median},
};

/// How misses went, in all rounds.
pub(super) struct Missed {
    pub(super) rounds: Vec<Round>,
    pub(super) requests: f64,
    pub(super) queries: f64,
}

/// How misses went in one round.
pub(super) struct Round {
    /// Microseconds of CPU time for a request, those of SQLite included.
    pub(super) micros: f64,
    per_second: f64,
    median: Duration,
    p99: Duration,
}

/// Asks for every key of the stage that nobody has asked for, in so many rounds.
pub(super) fn measure(stage: &Stage, rounds: usize) -> Result<Missed> {
    let mut missed = Missed { rounds: Vec::new(), requests: 0.0, queries: 0.0 };
    let service = &stage.warm;
    for keys in stage.unasked.chunks(stage.unasked.len().div_ceil(rounds)) {
        let requests: Vec<_> =
            keys.iter().map(|key| typical_request(key)).collect::<Result<_>>()?;
        let plan = Plan {
            address: service.grpc,
            path: CHECK.to_owned(),
            messages: stage.file("misses", requests.concat())?,
            turns: (0..h2load::CONNECTIONS).collect(),
            pressure: Pressure::UnderWay(h2load::CONNECTIONS * h2load::STREAMS),
            until: Until::AllSent,
        };
        let (before, idle) = (service.counted()?, service.process.busy()?);
        let (tally, ()) = plan.run(Place::Loading, || Ok(()))?;
        let tally = tally.all(0)?;
        let (after, busy) = (service.counted()?, service.process.busy()?.saturating_sub(idle));
        let count = f64::from(u32::try_from(tally.count())?);
        let looked_up = after.grown(&before, "keystead_cache_lookups_total", &[("result", "miss")]);
        if looked_up < count {
            return Err(format!("only {looked_up} of {count} keys were not in memory").into());
        }
        missed.requests += count;
        missed.queries += after.grown(&before, "keystead_store_queries_total", &[]);
        missed.rounds.push(Round {
            micros: busy.as_secs_f64() * 1e6 / count,
            per_second: count / tally.took.as_secs_f64(),
            median: tally.median,
            p99: tally.p99,
        });
    }
    Ok(missed)
}

impl Missed {
    /// Microseconds of CPU time for a request.
    pub(super) fn micros(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.micros))
    }

    pub(super) fn table(&self) -> Table {
        let title = "Misses alone, each key asked for once, as fast as they are answered:";
        let columns = ["", "answers/s", "keys a query", "median ms", "p99 ms"];
        let mut table = Table::new(title, &columns);
        let millis = |time: fn(&Round) -> Duration| {
            let all = self.rounds.iter().map(|round| time(round).as_secs_f64() * 1e3);
            format!("{:.2}", median(all))
        };
        table.rows.push(vec![
            "median of the rounds".to_owned(),
            grouped(median(self.rounds.iter().map(|round| round.per_second))),
            format!("{:.1}", self.requests / self.queries),
            millis(|round| round.median),
            millis(|round| round.p99),
        ]);
        table
    }
}
