//! What the part tells.

use std::time::Duration;

use super::{Case, Cell, FLOODED, IN_MEMORY, MISSES, Pair, SHARES, WARM};
use crate::{
    ground::{CONNECTIONS, Capacity},
    report::{Axis, Chart, Goal, Line, Section, Table},
    shown,
    statistics::{grouped, median},
};

/// How many times as long p99 may be as with nothing else.
const MUST: f64 = 2.0;

pub(super) fn section(pairs: &[Pair], capacity: Capacity, each: Duration) -> Section {
    Section {
        title: "The slowest checks".to_owned(),
        intro: intro(capacity, each),
        tables: vec![table(pairs)],
        charts: vec![chart(pairs)],
        remarks: remarks(pairs),
        goals: goals(pairs),
    }
}

fn intro(capacity: Capacity, each: Duration) -> String {
    format!(
        "How long warm `Check`s take while something else goes on, with the program as it ships \
         and PostgreSQL behind a network that makes a round trip 1 ms longer. The service has one \
         core for itself; loader, PostgreSQL and network are on the others: on two cores they \
         would otherwise take each other's place, and nothing could be told of the service. {WARM} \
         keys are asked for by turns over {CONNECTIONS} connections; {} are in memory.\n\
         \n\
         Capacity is what the same service answers with 256 requests under way at all times: {}. \
         Then requests become due evenly, at a share of that, whatever comes back, \
         and a time is counted from the moment at which its request was *due* until its answer \
         was complete: what waits because the service stalls, or because the loader is late, \
         counts in full. `sent late` is how late the loader itself was, at p99; it is part of the \
         times. Each row is {:.1} s of a process of its own, and just before each there is one \
         with nothing else, to which `×` compares p99. All warm checks are answered with OK, \
         which is asserted, as is that what goes on did, by the service's own counters.\n\
         \n\
         *Misses*: {MISSES} a second, of keys in the store that nobody has asked for. \
         *Snapshots*: one every second, where the default is 30. *Flood*: so many keys of the \
         right form with a wrong tag that they take, with the warm checks, {:.0} % of capacity. \
         *Hangs*: PostgreSQL is stopped by SIGSTOP, and records are fresh for one second, so that \
         each is to be asked for again.",
        shown::count(IN_MEMORY),
        capacity,
        each.as_secs_f64(),
        FLOODED * 100.0,
    )
}

impl Cell {
    fn p99(&self) -> f64 {
        self.warm.p99.as_secs_f64() * 1e6
    }

    /// What went on, as the service has counted it.
    fn events(&self) -> String {
        let events = grouped(self.events);
        match self.case {
            Case::Nothing => String::new(),
            Case::Misses if self.refused == 0 => format!("{events} misses"),
            Case::Misses => format!("{events} misses, {} refused", shown::count(self.refused)),
            Case::Snapshot => format!("{events} written"),
            Case::Flood => format!("{events} refused, {}/s", grouped(self.besides)),
            Case::Hang => format!("{events} lookups failed"),
        }
    }

    fn row(&self, ratio: Option<f64>) -> Vec<String> {
        let micros = |time: Duration| grouped(time.as_secs_f64() * 1e6);
        vec![
            format!("{:.0} %, {}", self.share * 100.0, self.case),
            micros(self.warm.p50),
            micros(self.warm.p99),
            micros(self.warm.p999),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            micros(self.warm.sent_late),
            self.events(),
            grouped(self.queries),
        ]
    }
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.disturbed.p99() / self.normal.p99()
    }
}

fn table(pairs: &[Pair]) -> Table {
    let columns = [
        "load, and what goes on",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "× p99",
        "sent late µs",
        "counted",
        "store queries",
    ];
    let mut table = Table::new("", &columns);
    for pair in pairs {
        table.rows.push(pair.normal.row(None));
        table.rows.push(pair.disturbed.row(Some(pair.ratio())));
    }
    table
}

fn chart(pairs: &[Pair]) -> Chart {
    let at = [(50.0, 0), (99.0, 1), (99.9, 2)];
    let times = |cell: &Cell| [cell.warm.p50, cell.warm.p99, cell.warm.p999];
    // How many of a hundred thousand take longer.
    let points = |cells: &[&Cell]| {
        at.map(|(percent, number)| {
            let all = cells.iter().map(|cell| times(cell)[number].as_secs_f64() * 1e6);
            (100.0 / (100.0 - percent), median(all))
        })
        .to_vec()
    };
    // Of the share that was measured and loads most.
    let share = pairs.iter().map(|pair| pair.normal.share).fold(SHARES[0], f64::max);
    let here = || pairs.iter().filter(|pair| pair.normal.share >= share);
    let normal: Vec<_> = here().map(|pair| &pair.normal).collect();
    let nothing = Line { name: Case::Nothing.to_string(), points: points(&normal) };
    let others = here().map(|pair| Line {
        name: pair.disturbed.case.to_string(),
        points: points(&[&pair.disturbed]),
    });
    Chart {
        file: "tail".to_owned(),
        title: format!("Warm checks at {:.0} % of capacity", share * 100.0),
        x: Axis::logarithmic(
            "one check of so many takes longer: p50 is 2, p99 is 100, p99.9 is 1000",
        ),
        y: Axis::logarithmic("microseconds since it was due"),
        lines: [nothing].into_iter().chain(others).collect(),
    }
}

fn remarks(pairs: &[Pair]) -> Vec<String> {
    let late = pairs.iter().flat_map(|pair| [&pair.normal, &pair.disturbed]);
    let late = late.map(|cell| cell.warm.sent_late).max().unwrap_or_default();
    vec![
        format!(
            "The loader was {} µs late at p99 in its worst row: where `sent late` is near p99, \
             what is told is the loader, and whatever shares its core, more than the service.",
            grouped(late.as_secs_f64() * 1e6),
        ),
        "`store queries` are those that look up keys. No made-up key is looked up, not even in \
         memory, which is asserted."
            .to_owned(),
        "A snapshot is written on the one core that also answers. With more of them it would be on \
         another."
            .to_owned(),
    ]
}

fn goals(pairs: &[Pair]) -> Vec<Goal> {
    let goal = |case: Case| {
        let worst = pairs.iter().filter(|pair| pair.disturbed.case == case);
        let worst = worst.map(Pair::ratio).fold(0.0, f64::max);
        // A flood of them must not reach the store at all.
        let queries: f64 = pairs
            .iter()
            .filter(|pair| pair.disturbed.case == case && case == Case::Flood)
            .map(|pair| pair.disturbed.queries)
            .sum();
        let also = |text: String| if case == Case::Flood { text } else { String::new() };
        Goal {
            what: format!("p99 of warm checks, counted from when they were due, while: {case}"),
            must: format!("{MUST} × as with nothing else{}", also(", 0 store queries".to_owned())),
            aim: None,
            measured: format!("{worst:.2} ×{}", also(format!(", {queries:.0} store queries"))),
            reached: worst <= MUST && queries == 0.0,
        }
    };
    Case::DISTURBED.map(goal).to_vec()
}
