//! What is told of a refill.

use super::{Answered, CONNECTIONS, Round, callers::CHANNELS};
use crate::{
    report::{Goal, Section, Table},
    shown,
    statistics::{grouped, median},
};

/// How often faster than one query for each miss.
const MUST: f64 = 20.0;

const COLUMNS: [&str; 9] = [
    "",
    "keys",
    "time",
    "keys/s",
    "as one by one",
    "queries",
    "most at once",
    "given up",
    "refused, asked again",
];

pub(super) fn section(rounds: &[Round], keys: u64) -> Section {
    let naive = median(rounds.iter().map(|round| round.naive.per_second()));
    let mut table = Table::new("", &COLUMNS);
    for round in rounds {
        table.rows.push(row("one by one".to_owned(), &round.naive, naive, "0".to_owned()));
        let name = format!("Keystead, {} callers", shown::count(round.callers as u64));
        table.rows.push(row(name, &round.keystead, naive, refusals(&round.refused)));
    }
    // Of as many callers as it serves best: how fast, and how many there were.
    let rate = |callers: usize| {
        let alike = rounds.iter().filter(move |round| round.callers == callers);
        median(alike.map(|round| round.keystead.per_second()))
    };
    let loads = rounds.iter().map(|round| (rate(round.callers), round.callers));
    let (fastest, callers) =
        loads.max_by(|one, other| one.0.total_cmp(&other.0)).unwrap_or_default();
    let most = rounds.iter().map(|round| round.keystead.counted.most_at_once).max();
    let (ratio, most) = (fastest / naive, most.unwrap_or_default());
    Section {
        title: "Refill".to_owned(),
        intro: intro(keys, rounds.first().map_or(0, |round| round.naive.keys)),
        tables: vec![table],
        remarks: vec![cpu_time(rounds, keys, callers), GIVEN_UP.to_owned()],
        goals: vec![Goal {
            what: format!(
                "refill of {} distinct keys, {CONNECTIONS} store connections, 1 ms network",
                shown::count(keys)
            ),
            must: format!(
                "{MUST} x one query per miss, never more than {CONNECTIONS} queries at once"
            ),
            aim: None,
            measured: format!(
                "{ratio:.1} x with {} callers, at most {most} at once",
                shown::count(callers as u64)
            ),
            reached: ratio >= MUST && most <= CONNECTIONS,
        }],
        ..Section::default()
    }
}

fn row(name: String, answered: &Answered, naive: f64, refused: String) -> Vec<String> {
    vec![
        name,
        shown::count(answered.keys as u64),
        shown::seconds(answered.took),
        grouped(answered.per_second()),
        format!("{:.2} x", answered.per_second() / naive),
        shown::count(answered.counted.lookups),
        answered.counted.most_at_once.to_string(),
        answered.counted.given_up.to_string(),
        refused,
    ]
}

fn refusals(refused: &[(&str, f64)]) -> String {
    let refused = refused.iter().filter(|(_, count)| *count > 0.0);
    let each: Vec<_> =
        refused.map(|(reason, count)| format!("{} {reason}", grouped(*count))).collect();
    if each.is_empty() { "0".to_owned() } else { each.join(", ") }
}

fn cpu_time(rounds: &[Round], keys: u64, callers: usize) -> String {
    let cpu = |of: usize| {
        let alike = rounds.iter().filter(|round| round.callers == callers);
        let middle = shown::median_time(alike.map(|round| round.cpu[of]));
        shown::seconds(middle.unwrap_or_default())
    };
    format!(
        "CPU time for {} keys and {} callers: Keystead {}, PostgreSQL {}, callers and network {}. All share the machine.",
        shown::count(keys),
        shown::count(callers as u64),
        cpu(0),
        cpu(1),
        cpu(2),
    )
}

const GIVEN_UP: &str = "\
    A query is *given up* when Keystead closes its connection before the answer, after `store.guard.query_timeout`; it \
    counts as under way until PostgreSQL has learned of that, so that another may begin beside it. Without any, more than \
    four at once would end the measurement.";

fn intro(keys: u64, slice: usize) -> String {
    format!(
        "An instance that has just started, as its users run it, with nothing in memory and {keys} keys in PostgreSQL. Callers \
         over {CHANNELS} gRPC connections ask for each key once, as fast as they are answered; whoever is refused waits as long \
         as the refusal says and asks again, until every key was answered with OK. Between Keystead and PostgreSQL a proxy \
         delays what is asked by 1 ms, so that a round trip takes 1 ms longer, and counts in PostgreSQL's protocol the queries \
         that are sent and not yet wholly answered, on all connections but the one that listens for changes. \
         `store.guard.max_in_flight` is {CONNECTIONS}, everything else is as by default. *One by one* is what a service without a \
         fill does at a miss: before each round, {slice} of the keys over {CONNECTIONS} connections through the same proxy, a \
         prepared statement for each key, one at a time on each connection, without gRPC or anything else before it. What must \
         be reached is reached with as many callers as Keystead serves best; beyond that it is overloaded, as it would be by the \
         callers of a fleet.",
        keys = shown::count(keys),
        slice = shown::count(slice as u64),
    )
}
