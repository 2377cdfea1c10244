//! What the part tells.

use std::time::Duration;

use super::{Case, Cell, IN_MEMORY, MISSES, Row, SHARES, TURN, WARM};
use crate::{
    environment::CONNECTIONS,
    format,
    open_loop::Tally,
    report::{Axis, Chart, Goal, Line, Section, Table},
    statistics::{grouped, median, middle_half},
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
    let most = median(rows.iter().map(|row| row.load.most));
    let loads: Vec<_> = rows.iter().filter(|row| row.case == Case::Nothing).collect();
    let loads = loads.iter().map(|row| {
        format!("{} a second for {:.0} %", grouped(row.load.rate), row.load.share * 100.0)
    });
    let loads = loads.collect::<Vec<_>>().join(", ");
    format!(
        "How long warm `Check`s take while something else goes on, with the program as it ships \
         and PostgreSQL behind a network that makes a round trip 1 ms longer. The service has one \
         core for itself; loader, PostgreSQL and network are on the others: on two cores they \
         would otherwise take each other's place, and nothing could be told of the service. {WARM} \
         keys are asked for by turns over {CONNECTIONS} connections; {} are in memory.\n\
         \n\
         Requests become due evenly, whatever comes back, as many as let the service use about \
         half of its core, or 80 % of it, while nothing else goes on: {loads}. Requests that come one by one \
         take more than those that find others to be read and answered with: without rest it answers \
         {} a second. A time is counted from the moment at which its request was *due* until its answer \
         was complete, whenever it was sent. `sent late` is how late that was, at p99; it is part of the \
         times. All warm checks are answered with OK, which is asserted, as is that what goes on did, by \
         the services' own counters.\n\
         \n\
         Two things are not the service's. The clock of this machine falls to a tenth now and then, for \
         some hundredths of a second and on both cores, which no counter of the kernel tells; a \
         computation of 3 µs does, which the loader does every 200 µs. And the loader may have to leave its \
         core to others. While that computation takes more than twice its best time, or when the loader has \
         been off its core for 30 µs, it is disturbed, and stays so until no more than a few requests are \
         under way, or for four times as long. Requests that become due meanwhile are *set aside*; from the \
         times of those that are under way already, that span is taken off.\n\
         \n\
         Each row had {turns} turns of {:.0} s, and a process of its own for every few of them; rows \
         took turns. Of each figure the one of the turn in the middle is shown, and for p99 also what half \
         of the turns are between: a snapshot goes on in some turns only, and while the store hangs, \
         time-outs come first and the breaker later. The bare server has tonic and a constant, at the same \
         rate.\n\
         \n\
         *Misses*: {MISSES} a second, of keys in the store that nobody has asked for, with time-outs \
         that are patient with a store that stands back behind the loader (`nice`). The store works \
         for them on the loader's core, so that in a row of their own another service is asked for \
         them there: what that does to the first one's checks is the loader's, though with a service \
         more beside it. \
         *Snapshots*: again one second after the last, where the default is 30. *Flood*: keys of the \
         right form with a wrong tag, a tenth of what would use all of the core, beside which *more warm checks* \
         are as many of another kind: what takes all that is left of a core makes everybody wait \
         for it, whatever it is. *Hangs*: PostgreSQL is stopped by SIGSTOP, and records are fresh for one second and \
         revalidated for another, so that after that each is to be asked for first.",
        format::count(IN_MEMORY),
        grouped(most),
        TURN.as_secs_f64(),
    )
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
        let besides = self.load.flood();
        match self.case {
            Case::Bare | Case::Nothing => String::new(),
            Case::Elsewhere | Case::Misses if refused == 0 => format!("{events} misses"),
            Case::Elsewhere | Case::Misses => {
                format!("{events} misses, {} refused", format::count(refused))
            }
            Case::Snapshot => format!("{events} written"),
            Case::More => format!("{events} more, {}/s", grouped(besides)),
            Case::Flood => format!("{events} refused, {}/s", grouped(besides)),
            Case::Hang => format!("{events} lookups failed"),
        }
    }

    /// p99 against that of another case under the same load.
    fn ratio(&self, all: &[Self], to: Case) -> Option<f64> {
        let share = self.load.share;
        let normal =
            all.iter().find(|row| row.case == to && row.load.share.total_cmp(&share).is_eq())?;
        (self.case != to).then(|| self.p99() / normal.p99())
    }

    fn shown(&self, all: &[Self]) -> Vec<String> {
        let shown =
            |of: fn(&Tally) -> Duration| grouped(self.middle(|cell| micros(of(&cell.warm))));
        let percent = |share: f64| format!("{:.0}", share * 100.0);
        vec![
            format!("{} %, {}", percent(self.load.share), self.case),
            shown(|warm| warm.p50),
            shown(|warm| warm.p99),
            self.ratio(all, Case::Nothing).map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            middle_half(self.cells.iter().map(|cell| cell.warm.p99.as_secs_f64() * 1e3)),
            shown(|warm| warm.p999),
            shown(|warm| warm.sent_late),
            percent(self.middle(|cell| cell.warm.aside())),
            percent(self.middle(|cell| cell.busy)),
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
    table
}

fn chart(rows: &[Row]) -> Chart {
    // Of the share that was measured and loads most.
    let share = rows.iter().map(|row| row.load.share).fold(SHARES[0], f64::max);
    let line = |row: &Row| {
        let at = |of: fn(&Tally) -> Duration| row.middle(|cell| micros(of(&cell.warm)));
        Line {
            name: row.case.to_string(),
            // How many of a thousand take longer: one of so many.
            points: vec![
                (2.0, at(|warm| warm.p50)),
                (100.0, at(|warm| warm.p99)),
                (1000.0, at(|warm| warm.p999)),
            ],
        }
    };
    Chart {
        file: "tail".to_owned(),
        title: format!("Warm checks where {:.0} % of the core are used", share * 100.0),
        x: Axis::logarithmic(
            "one check of so many takes longer: p50 is 2, p99 is 100, p99.9 is 1000",
        ),
        y: Axis::logarithmic("microseconds since it was due"),
        lines: rows.iter().filter(|row| row.load.share >= share).map(line).collect(),
    }
}

fn remarks(rows: &[Row]) -> Vec<String> {
    let late =
        rows.iter().map(|row| row.middle(|cell| micros(cell.warm.sent_late))).fold(0.0, f64::max);
    vec![
        format!(
            "While it was not disturbed, the loader was {} µs late at p99 in its worst row: where `sent late` is near p99, \
             what is told is the loader, and whatever shares its core, more than the service.",
            grouped(late),
        ),
        "Beside misses, for which PostgreSQL works on the loader's core, most checks are set aside: \
         what is told is of the others, and p99.9 of few."
            .to_owned(),
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
        let worst = |to| here().filter_map(|row| row.ratio(rows, to)).fold(0.0, f64::max);
        let beside = |to| match case {
            Case::Misses | Case::Flood => format!(", {:.2} × as with {to}", worst(to)),
            _ => String::new(),
        };
        // What misses do to the loader, and as many checks of another kind to anybody.
        let other = beside(if case == Case::Misses { Case::Elsewhere } else { Case::More });
        let worst = worst(Case::Nothing);
        // A flood of them must not reach the store at all.
        let queries: f64 = here().map(Row::queries).sum();
        let also = |text: String| if case == Case::Flood { text } else { String::new() };
        Goal {
            what: format!("p99 of warm checks, counted from when they were due, while: {case}"),
            must: format!("{MUST} × as with nothing else{}", also(", 0 store queries".to_owned())),
            aim: None,
            measured: format!(
                "{worst:.2} ×{other}{}",
                also(format!(", {queries:.0} store queries"))
            ),
            reached: worst <= MUST && (case != Case::Flood || queries == 0.0),
        }
    };
    [Case::Misses, Case::Snapshot, Case::Flood, Case::Hang].map(goal).to_vec()
}
