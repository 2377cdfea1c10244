//! What the part tells.

use std::time::Duration;

use super::{FIXED, Growth, Point, WARM, WITH_MISSES};
use crate::{
    figures::{grouped, micros},
    load::CONNECTIONS,
    report::{Section, Table},
};

pub(super) fn section(growth: &Growth, each: Duration) -> Section {
    let at = |share: f64| format!("at {:.0} % of capacity", share * 100.0);
    let misses = format!(
        "Checks of keys that nobody has asked for, {}; the cost is that of all checks, the times \
         those of the warm ones:",
        at(WITH_MISSES)
    );
    Section {
        title: "What grows with what".to_owned(),
        about: format!(
            "The service's CPU time for a warm `Check`, and how long checks take from when they were \
             due, as in *The slowest checks*. Where it is not said otherwise {WARM} keys are asked \
             for by turns over {CONNECTIONS} connections. Capacity is {} checks/s, for which it was busy {:.0} % of the time. Each row is {:.1} s, once: \
             a tenth more or less between two rows says nothing.",
            grouped(growth.capacity.per_second),
            growth.capacity.busy * 100.0,
            each.as_secs_f64(),
        ),
        tables: vec![
            table("Offered load:".to_owned(), "% of capacity", &growth.rates),
            table(format!("Keys in memory, {}:", at(FIXED)), "keys in memory", &growth.keys),
            table(format!("Connections, {}:", at(FIXED)), "connections", &growth.connections),
            table(misses, "% misses", &growth.misses),
        ],
        goals: Vec::new(),
    }
}

fn table(title: String, what: &str, points: &[Point]) -> Table {
    let columns = [
        what,
        "checks/s",
        "µs of CPU each",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "sent late µs",
        "set aside %",
        "core used %",
        "refused",
    ];
    let mut table = Table::new(title, &columns);
    table.rows.extend(points.iter().map(|point| {
        let micros = |time| grouped(micros(time));
        vec![
            if point.at < 1.0 { point.at.to_string() } else { grouped(point.at) },
            grouped(point.rate),
            format!("{:.2}", point.micros),
            micros(point.warm.p50),
            micros(point.warm.p99),
            micros(point.warm.p999),
            micros(point.warm.sent_late),
            grouped(point.warm.aside() * 100.0),
            grouped(point.used * 100.0),
            point.refused.to_string(),
        ]
    }));
    table
}
