//! What the part tells.

use std::time::Duration;

use super::{Case, FLOOD, IN_MEMORY, MISSES, Row, SHARES, TURN, WARM};
use crate::{
    ground::{CONNECTIONS, UNDER_WAY},
    report::{Axis, Chart, Goal, Line, Section, Table},
    shown,
    statistics::{grouped, median},
    steady::Tally,
};

/// How many times as long p99 may be as with nothing else.
const MUST: f64 = 2.0;

pub(super) fn section(rows: &[Row], turns: usize) -> Section {
    Section {
        title: "The slowest checks".to_owned(),
        intro: intro(rows, turns),
        tables: vec![table(rows)],
        charts: vec![chart(rows)],
        remarks: remarks(rows),
        goals: goals(rows),
    }
}

fn intro(rows: &[Row], turns: usize) -> String {
    let served = rows.iter().filter(|row| row.case != Case::Bare).flat_map(|row| &row.cells);
    let capacity = median(served.map(|cell| cell.capacity));
    format!(
        "How long warm `Check`s take while something else goes on, with the program as it ships \
         and PostgreSQL behind a network that makes a round trip 1 ms longer. The service has one \
         core for itself; loader, PostgreSQL and network are on the others: on two cores they \
         would otherwise take each other's place, and nothing could be told of the service. {WARM} \
         keys are asked for by turns over {CONNECTIONS} connections; {} are in memory.\n\
         \n\
         Capacity is what the server answers with {UNDER_WAY} requests under way at all times: {} \
         a second in the middle, learned anew in each process. Then requests become due evenly, at a share of that, whatever comes back, \
         and a time is counted from the moment at which its request was *due* until its answer \
         was complete: what waits because the service stalls, or because the loader is late, \
         counts in full. `sent late` is how late the loader itself was, at p99; it is part of the \
         times. All warm checks are answered with OK, \
         which is asserted, as is that what goes on did, by the service's own counters.\n\
         \n\
         Each row had {turns} turns of {:.1} s, and a process of its own for every few of them; rows \
         took turns. This machine makes any server wait several times a second, by far more than a \
         check takes: see the row of the bare server, which has tonic and a constant, at the same \
         share of its own capacity. What the server itself does is seen where the machine keeps \
         still. So the times of the best turn are shown, that with the lowest p99, and beside them \
         the p99 of the turn in the middle. `×` compares either to that with nothing else.\n\
         \n\
         *Misses*: {MISSES} a second, of keys in the store that nobody has asked for, with time-outs \
         that are patient with a store that stands back behind the loader (`nice`). \
         *Snapshots*: again one second after the last, where the default is 30. *Flood*: keys of the \
         right form with a wrong tag, as many as {:.0} % of capacity, beside which *more warm checks* \
         are as many of another kind: what takes all that is left of a core makes everybody wait \
         for it, whatever it is. *Hangs*: PostgreSQL is stopped by SIGSTOP, and records are fresh for one second and \
         revalidated for another, so that after that each is to be asked for first.",
        shown::count(IN_MEMORY),
        grouped(capacity),
        TURN.as_secs_f64(),
        FLOOD * 100.0,
    )
}

impl Row {
    /// The turn with the lowest p99, and how many checks were due a second.
    fn best(&self) -> (Tally, f64) {
        let best = self.cells.iter().min_by_key(|cell| cell.warm.p99);
        best.map(|cell| (cell.warm, cell.due)).unwrap_or_default()
    }

    /// p99 of that turn.
    fn best_p99(&self) -> f64 {
        micros(self.best().0.p99)
    }

    /// p99 of the turn in the middle.
    fn middle(&self) -> f64 {
        median(self.cells.iter().map(|cell| micros(cell.warm.p99)))
    }

    fn queries(&self) -> f64 {
        self.cells.iter().map(|cell| cell.queries).sum()
    }

    /// What went on, as the service has counted it.
    fn events(&self) -> String {
        let events = grouped(self.cells.iter().map(|cell| cell.events).sum());
        let refused: u64 = self.cells.iter().map(|cell| cell.refused).sum();
        let besides = self.cells.iter().map(|cell| cell.besides).fold(0.0, f64::max);
        match self.case {
            Case::Bare | Case::Nothing => String::new(),
            Case::Misses if refused == 0 => format!("{events} misses"),
            Case::Misses => format!("{events} misses, {} refused", shown::count(refused)),
            Case::Snapshot => format!("{events} written"),
            Case::More => format!("{events} more, {}/s", grouped(besides)),
            Case::Flood => format!("{events} refused, {}/s", grouped(besides)),
            Case::Hang => format!("{events} lookups failed"),
        }
    }

    /// A time against that of the same load with nothing else.
    fn ratio(&self, all: &[Self], of: impl Fn(&Self) -> f64) -> Option<f64> {
        let normal = all
            .iter()
            .find(|row| row.case == Case::Nothing && row.share.total_cmp(&self.share).is_eq())?;
        (self.case != Case::Nothing).then(|| of(self) / of(normal))
    }

    fn shown(&self, all: &[Self]) -> Vec<String> {
        let times = |ratio: Option<f64>| ratio.map_or_else(String::new, |r| format!("{r:.2}"));
        let (best, due) = self.best();
        vec![
            format!("{:.0} %, {}", self.share * 100.0, self.case),
            grouped(due),
            grouped(micros(best.p50)),
            grouped(micros(best.p99)),
            times(self.ratio(all, Self::best_p99)),
            grouped(micros(best.p999)),
            grouped(micros(best.sent_late)),
            grouped(self.middle()),
            times(self.ratio(all, Self::middle)),
            self.events(),
            if self.case == Case::Bare { String::new() } else { grouped(self.queries()) },
        ]
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn table(rows: &[Row]) -> Table {
    let columns = [
        "load, and what goes on",
        "checks/s",
        "p50 µs",
        "p99 µs",
        "×",
        "p99.9 µs",
        "sent late µs",
        "p99 µs, middle turn",
        "×",
        "counted",
        "store queries",
    ];
    let mut table = Table::new("", &columns);
    table.rows.extend(rows.iter().map(|row| row.shown(rows)));
    table
}

fn chart(rows: &[Row]) -> Chart {
    // Of the share that was measured and loads most.
    let share = rows.iter().map(|row| row.share).fold(SHARES[0], f64::max);
    let line = |row: &Row| {
        let (best, _) = row.best();
        Line {
            name: row.case.to_string(),
            // How many of a thousand take longer: one of so many.
            points: vec![
                (2.0, micros(best.p50)),
                (100.0, micros(best.p99)),
                (1000.0, micros(best.p999)),
            ],
        }
    };
    Chart {
        file: "tail".to_owned(),
        title: format!("Warm checks at {:.0} % of capacity, best turns", share * 100.0),
        x: Axis::logarithmic(
            "one check of so many takes longer: p50 is 2, p99 is 100, p99.9 is 1000",
        ),
        y: Axis::logarithmic("microseconds since it was due"),
        lines: rows.iter().filter(|row| row.share >= share).map(line).collect(),
    }
}

fn remarks(rows: &[Row]) -> Vec<String> {
    let late = rows.iter().map(|row| micros(row.best().0.sent_late)).fold(0.0, f64::max);
    vec![
        format!(
            "The loader was {} µs late at p99 in its worst row: where `sent late` is near p99, \
             what is told is the loader, and whatever shares its core, more than the service.",
            grouped(late),
        ),
        "`store queries` are those that look up keys. No made-up key is looked up, not even in \
         memory, which is asserted."
            .to_owned(),
        "A snapshot is written on the one core that also answers. With more of them it would be on \
         another."
            .to_owned(),
    ]
}

fn goals(rows: &[Row]) -> Vec<Goal> {
    let goal = |case: Case| {
        let here = || rows.iter().filter(move |row| row.case == case);
        let worst =
            |of: fn(&Row) -> f64| here().filter_map(|row| row.ratio(rows, of)).fold(0.0, f64::max);
        let (best, middle) = (worst(Row::best_p99), worst(Row::middle));
        // A flood of them must not reach the store at all.
        let queries: f64 = here().map(Row::queries).sum();
        let also = |text: String| if case == Case::Flood { text } else { String::new() };
        Goal {
            what: format!("p99 of warm checks, counted from when they were due, while: {case}"),
            must: format!("{MUST} × as with nothing else{}", also(", 0 store queries".to_owned())),
            aim: None,
            measured: format!(
                "{best:.2} × in the best turn, {middle:.2} × in the middle one{}",
                also(format!(", {queries:.0} store queries"))
            ),
            reached: best <= MUST && (case != Case::Flood || queries == 0.0),
        }
    };
    [Case::Misses, Case::Snapshot, Case::Flood, Case::Hang].map(goal).to_vec()
}
