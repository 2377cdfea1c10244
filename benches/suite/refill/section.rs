//! What is told of a refill.

use super::{Answered, CONNECTIONS, Round};
use crate::{
    figures::{count, grouped, median, seconds},
    report::{Goal, Section, Table},
};

/// How often faster than one query for each miss.
const MUST: f64 = 8.0;

const COLUMNS: [&str; 8] = [
    "",
    "keys",
    "time",
    "keys/s",
    "as one by one",
    "queries",
    "most at once",
    "refused, asked again",
];

pub(super) fn section(rounds: &[Round], keys: u64) -> Section {
    let naive = median(rounds.iter().map(|round| round.naive.per_second()));
    let mut table = Table::new("", &COLUMNS);
    for round in rounds {
        table.rows.push(row("one by one".to_owned(), &round.naive, naive, 0));
        let name = format!("Keystead, {} callers", count(round.callers as u64));
        table.rows.push(row(name, &round.keystead, naive, round.refused));
    }
    // Of as many callers as it serves best: how fast, and how many there were.
    let rate = |callers: usize| {
        let alike = rounds.iter().filter(move |round| round.callers == callers);
        median(alike.map(|round| round.keystead.per_second()))
    };
    let loads = rounds.iter().map(|round| (rate(round.callers), round.callers));
    let (fastest, callers) =
        loads.max_by(|one, other| one.0.total_cmp(&other.0)).unwrap_or_default();
    let most = rounds.iter().map(|round| round.keystead.most_at_once).max();
    let (ratio, most) = (fastest / naive, most.unwrap_or_default());
    Section {
        title: "Refill".to_owned(),
        about: format!(
            "An instance without anything in memory is asked for {} keys in PostgreSQL, 1 ms away, \
             until each is answered with OK; {CONNECTIONS} queries at once (`store.guard.max_in_flight`). \
             *One by one* is a prepared statement for each key over as many connections, and no \
             gRPC before it. The number of callers that Keystead serves best counts.",
            count(keys),
        ),
        tables: vec![table],
        goals: vec![Goal {
            what: format!(
                "refill of {} distinct keys, {CONNECTIONS} store connections, 1 ms network",
                count(keys)
            ),
            must: format!(
                "{MUST} x one query per miss, never more than {CONNECTIONS} queries at once"
            ),
            measured: format!(
                "{ratio:.1} x with {} callers, at most {most} at once",
                count(callers as u64)
            ),
            reached: ratio >= MUST && most <= CONNECTIONS,
        }],
    }
}

fn row(name: String, answered: &Answered, naive: f64, refused: u64) -> Vec<String> {
    vec![
        name,
        count(answered.keys as u64),
        seconds(answered.took),
        grouped(answered.per_second()),
        format!("{:.2} x", answered.per_second() / naive),
        grouped(answered.queries),
        answered.most_at_once.to_string(),
        count(refused),
    ]
}
