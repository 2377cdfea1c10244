//! What the part tells.

use std::time::Duration;

use super::{Case, Cell, Row, TURN};
use crate::{
    figures::{count, grouped, median, micros, middle_half},
    load::Tally,
    report::{Goal, Section, Table},
};

/// How many times as long p99 may be as with nothing else.
const MUST: f64 = 2.0;

pub(super) fn section(rows: &[Row], turns: usize) -> Section {
    let columns = [
        "load, and what goes on",
        "p50 µs",
        "p99 µs",
        "×",
        "p99 ms, middle half",
        "p99.9 µs",
        "sent late µs",
        "set aside %",
        "core used %",
        "counted",
        "store queries",
    ];
    let mut table = Table::new("", &columns);
    table.rows.extend(rows.iter().map(|row| row.shown(rows)));
    Section {
        title: "The slowest checks".to_owned(),
        about: format!(
            "Warm `Check`s at rates at which the service uses 50 and 80 % of its core if nothing else \
             goes on, with PostgreSQL 1 ms away: from the moment at which each was due to its answer, \
             the median of {turns} turns of {:.0} s. `sent late` is p99 of what is the loader's of \
             that; `set aside` is what became due while the loader was held up \
             (`benches/suite/load/pace.rs`).",
            TURN.as_secs_f64(),
        ),
        tables: vec![table],
        goals: [Case::Misses, Case::Snapshot, Case::Flood, Case::Hang]
            .map(|case| goal(case, rows))
            .into(),
    }
}

impl Row {
    /// A figure of the turn in the middle.
    fn middle(&self, of: impl Fn(&Cell) -> f64) -> f64 {
        median(self.cells.iter().map(of))
    }

    fn p99(&self) -> f64 {
        self.middle(|cell| micros(cell.warm.p99))
    }

    fn queries(&self) -> f64 {
        self.cells.iter().map(|cell| cell.queries).sum()
    }

    /// What went on, as the service has counted it.
    fn events(&self) -> String {
        let events = grouped(self.cells.iter().map(|cell| cell.events).sum());
        let refused: u64 = self.cells.iter().map(|cell| cell.refused).sum();
        let besides = grouped(self.load.flood());
        match self.case {
            Case::Bare | Case::Nothing => String::new(),
            Case::Misses if refused == 0 => format!("{events} misses"),
            Case::Misses => {
                format!("{events} misses, {} refused", count(refused))
            }
            Case::Snapshot => format!("{events} written"),
            Case::Flood => format!("{events} refused, {besides}/s"),
            Case::Hang => format!("{events} lookups failed"),
        }
    }

    /// p99 against that with nothing else, under the same load.
    fn ratio(&self, all: &[Self]) -> Option<f64> {
        let alike = |row: &&Self| row.load.share.total_cmp(&self.load.share).is_eq();
        let normal = all.iter().filter(alike).find(|row| row.case == Case::Nothing)?;
        (self.case != Case::Nothing).then(|| self.p99() / normal.p99())
    }

    fn shown(&self, all: &[Self]) -> Vec<String> {
        let shown =
            |of: fn(&Tally) -> Duration| grouped(self.middle(|cell| micros(of(&cell.warm))));
        let percent = |share: f64| format!("{:.0}", share * 100.0);
        vec![
            format!("{} %, {}", percent(self.load.share), self.case),
            shown(|warm| warm.p50),
            shown(|warm| warm.p99),
            self.ratio(all).map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            middle_half(self.cells.iter().map(|cell| micros(cell.warm.p99) / 1e3)),
            shown(|warm| warm.p999),
            shown(|warm| warm.sent_late),
            percent(self.middle(|cell| cell.warm.aside())),
            percent(self.middle(|cell| cell.busy)),
            self.events(),
            if self.case == Case::Bare { String::new() } else { grouped(self.queries()) },
        ]
    }
}

fn goal(case: Case, rows: &[Row]) -> Goal {
    let here = || rows.iter().filter(|row| row.case == case);
    let times = here().filter_map(|row| row.ratio(rows)).fold(0.0, f64::max);
    let queries: f64 = here().map(Row::queries).sum();
    // A flood of made-up keys must not reach the store at all.
    let (also_must, also) = match case {
        Case::Flood => (", 0 store queries", format!(", {queries:.0} store queries")),
        _ => ("", String::new()),
    };
    Goal {
        what: format!("p99 of warm checks, counted from when they were due, while: {case}"),
        must: format!("{MUST} × as with nothing else{also_must}"),
        measured: format!("{times:.2} ×{also}"),
        reached: times <= MUST && (case != Case::Flood || queries == 0.0),
    }
}
