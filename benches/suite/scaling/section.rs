//! What the part tells.

use std::time::Duration;

use super::{FIXED, Growth, Point, WARM, WITH_MISSES, replicas::Replicas};
use crate::{
    environment::CONNECTIONS,
    format,
    report::{Axis, Chart, Line, Section, Table},
    statistics::grouped,
};

/// One thing that grows.
struct Grown<'a> {
    /// The name of its files.
    name: &'static str,
    /// Above its table.
    title: String,
    /// The first column, and the axis.
    what: &'static str,
    /// How the first column is shown, and whether the axis is logarithmic.
    shown: fn(f64) -> String,
    logarithmic: bool,
    points: &'a [Point],
}

pub(super) fn section(growth: &Growth, each: Duration) -> Section {
    let all = all(growth);
    let mut tables: Vec<_> = all.iter().map(Grown::table).collect();
    tables.push(instances(&growth.replicas));
    let mut charts: Vec<_> = all.iter().flat_map(Grown::charts).collect();
    charts.push(queries(&growth.replicas));
    Section {
        title: "What grows with what".to_owned(),
        intro: intro(growth, each),
        tables,
        charts,
        remarks: remarks(growth),
        goals: Vec::new(),
    }
}

fn intro(growth: &Growth, each: Duration) -> String {
    format!(
        "The CPU time that the service takes for a warm `Check`, user and system, and how long \
         checks take from the moment at which they are due, in the same set-up as for the slowest \
         checks: one core for the service, the others for loader, PostgreSQL and network, and what \
         became due while the loader was disturbed set aside. One \
         thing grows at a time; where it is not said otherwise, {WARM} keys are asked for by turns \
         over {CONNECTIONS} connections. Capacity is what the service answers with 256 requests \
         under way at all times: {}. Requests that come evenly share less of what a read and a \
         write cost, so that the core is full (`core used`) long before capacity is reached. Each row \
         is {:.1} s, once: a tenth more or less between two rows says nothing.",
        growth.capacity,
        each.as_secs_f64(),
    )
}

fn all(growth: &Growth) -> [Grown<'_>; 4] {
    let percent = |at: f64| format!("{at} %");
    [
        Grown {
            name: "rate",
            title: "Offered load, as a share of capacity:".to_owned(),
            what: "% of capacity",
            shown: |at| format!("{at:.0} %"),
            logarithmic: false,
            points: &growth.rates,
        },
        Grown {
            name: "keys",
            title: format!(
                "Keys in memory, all of which are asked for by turns, at {:.0} % of capacity:",
                FIXED * 100.0
            ),
            what: "keys in memory",
            shown: grouped,
            logarithmic: true,
            points: &growth.keys,
        },
        Grown {
            name: "connections",
            title: format!("Connections, at {:.0} % of capacity:", FIXED * 100.0),
            what: "connections",
            shown: grouped,
            logarithmic: true,
            points: &growth.connections,
        },
        Grown {
            name: "misses",
            title: format!(
                "Checks of keys that nobody has asked for, each of which is looked up in \
                 PostgreSQL, at {:.0} % of capacity. The cost is that of all checks, the times \
                 those of the warm ones:",
                WITH_MISSES * 100.0
            ),
            what: "% misses",
            shown: percent,
            logarithmic: false,
            points: &growth.misses,
        },
    ]
}

impl Grown<'_> {
    fn table(&self) -> Table {
        let columns = [
            self.what,
            "checks/s",
            "µs of CPU each",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "sent late µs",
            "set aside %",
            "core used %",
        ];
        let mut table = Table::new(self.title.clone(), &columns);
        for point in self.points {
            let micros = |time: Duration| grouped(time.as_secs_f64() * 1e6);
            table.rows.push(vec![
                (self.shown)(point.at),
                grouped(point.rate),
                format!("{:.2}", point.micros),
                micros(point.warm.p50),
                micros(point.warm.p99),
                micros(point.warm.p999),
                micros(point.warm.sent_late),
                grouped(point.warm.aside() * 100.0),
                grouped(point.used * 100.0),
            ]);
        }
        table
    }

    fn charts(&self) -> [Chart; 2] {
        let x = || {
            let axis = if self.logarithmic { Axis::logarithmic } else { Axis::linear };
            axis(self.what)
        };
        let line = |name: &str, of: fn(&Point) -> f64| Line {
            name: name.to_owned(),
            points: self.points.iter().map(|point| (point.at, of(point))).collect(),
        };
        let cost = Chart {
            file: format!("growth-{}-cost", self.name),
            title: format!("What a check costs, by {}", self.what),
            x: x(),
            y: Axis::linear("µs of the service's CPU time"),
            lines: vec![line("a check", |point| point.micros)],
        };
        let times = Chart {
            file: format!("growth-{}-times", self.name),
            title: format!("How long warm checks take, by {}", self.what),
            x: x(),
            y: Axis::logarithmic("microseconds since it was due"),
            lines: vec![
                line("p50", |point| point.warm.p50.as_secs_f64() * 1e6),
                line("p99", |point| point.warm.p99.as_secs_f64() * 1e6),
                line("sent late at p99", |point| point.warm.sent_late.as_secs_f64() * 1e6),
            ],
        };
        [cost, times]
    }
}

impl Replicas {
    /// The least and the most of its instances.
    fn range(&self, of: impl Fn(&super::replicas::Replica) -> f64) -> String {
        let all: Vec<_> = self.each.iter().map(of).collect();
        let least = all.iter().copied().fold(f64::INFINITY, f64::min);
        let most = all.iter().copied().fold(0.0, f64::max);
        let (least, most) = (grouped(least), grouped(most));
        if least == most { most } else { format!("{least}–{most}") }
    }

    fn sum(&self, of: impl Fn(&super::replicas::Replica) -> f64) -> f64 {
        self.each.iter().map(of).sum()
    }
}

fn instances(all: &[Replicas]) -> Table {
    let title = format!(
        "Instances on one PostgreSQL, which all share the one core: each is asked for the same \
         {WARM} keys, first once and then for 2\u{202f}000 checks a second, while records are \
         fresh for one second. *Of each* is a range over the instances. A \
         query for keys that are new also asks for one that the store should have, so that an \
         emptied store is noticed; that one counts as looked up:"
    );
    let columns = [
        "instances",
        "first: keys looked up, of each",
        "first: queries, of each",
        "then: keys/s, of each",
        "then: queries/s, of each",
        "then: queries/s in all",
        "p99 µs",
    ];
    let mut table = Table::new(title, &columns);
    for replicas in all {
        table.rows.push(vec![
            replicas.each.len().to_string(),
            replicas.range(|it| it.cold[1]),
            replicas.range(|it| it.cold[0]),
            replicas.range(|it| it.steady[1]),
            replicas.range(|it| it.steady[0]),
            grouped(replicas.sum(|it| it.steady[0])),
            replicas.range(|it| it.tally.p99.as_secs_f64() * 1e6),
        ]);
    }
    table
}

#[expect(clippy::cast_precision_loss, reason = "some instances")]
fn queries(all: &[Replicas]) -> Chart {
    let line = |name: &str, of: fn(&Replicas) -> f64| Line {
        name: name.to_owned(),
        points: all.iter().map(|it| (it.each.len() as f64, of(it))).collect(),
    };
    Chart {
        file: "growth-instances".to_owned(),
        title: "What instances ask one PostgreSQL for the same keys".to_owned(),
        x: Axis::linear("instances"),
        y: Axis::linear("per second, in all"),
        lines: vec![
            line("queries", |it| it.sum(|it| it.steady[0])),
            line("keys in them", |it| it.sum(|it| it.steady[1])),
        ],
    }
}

fn remarks(growth: &Growth) -> Vec<String> {
    let mut remarks = limits();
    let refused: u64 = growth.misses.iter().map(|point| point.refused).sum();
    if refused > 0 {
        let refused = format::count(refused);
        remarks
            .push(format!("{refused} misses were refused: PostgreSQL did not keep up with them."));
    }
    remarks
}

/// What limits each of them.
fn limits() -> Vec<String> {
    [
        "*Load* is limited by the one core: a check alone pays for a read, a write and a wake-up, \
         which those share that come together, and for its part of what the service does anyway, so \
         that it costs less where there are more, and times grow when requests find the core busy.",
        "*Keys* are limited by the processor's caches, then by memory: each check touches lines of \
         the table and of an entry that nobody has touched since the last turn, and that is all \
         that grows.",
        "*Connections* are limited by how few requests come in one read: at the same rate, more \
         connections means fewer requests each time one is ready, and the loader, which has them \
         all, pays the same.",
        "*Misses* are limited by the store and the way to it: a warm check waits for none, but a \
         query, its answer and what is kept of it take CPU time of the core that all share.",
        "*Instances* are limited by the store: none knows what another holds, so that what \
         PostgreSQL is asked grows with their number; by default each key is asked for again every \
         ten minutes, here every second.",
    ]
    .map(str::to_owned)
    .to_vec()
}
