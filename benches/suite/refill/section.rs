//! What is told of a refill.

use std::time::Duration;

use super::{Answered, CONNECTIONS, Round, callers::CHANNELS};
use crate::{
    format,
    process::cores,
    report::{Goal, Section, Table},
    statistics::{grouped, median},
};

/// How often faster than one query for each miss.
const MUST: f64 = 20.0;

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
        table.rows.push(row("one by one".to_owned(), &round.naive, naive, "0".to_owned()));
        let name = format!("Keystead, {} callers", format::count(round.callers as u64));
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
        remarks: vec![cpu_time(rounds, keys, callers, naive)],
        goals: vec![Goal {
            what: format!(
                "refill of {} distinct keys, {CONNECTIONS} store connections, 1 ms network",
                format::count(keys)
            ),
            must: format!(
                "{MUST} x one query per miss, never more than {CONNECTIONS} queries at once"
            ),
            aim: None,
            measured: format!(
                "{ratio:.1} x with {} callers, at most {most} at once",
                format::count(callers as u64)
            ),
            reached: ratio >= MUST && most <= CONNECTIONS,
        }],
        ..Section::default()
    }
}

fn row(name: String, answered: &Answered, naive: f64, refused: String) -> Vec<String> {
    vec![
        name,
        format::count(answered.keys as u64),
        format::seconds(answered.took),
        grouped(answered.per_second()),
        format!("{:.2} x", answered.per_second() / naive),
        format::count(answered.counted.lookups),
        answered.counted.most_at_once.to_string(),
        refused,
    ]
}

fn refusals(refused: &[(&str, f64)]) -> String {
    let refused = refused.iter().filter(|(_, count)| *count > 0.0);
    let each: Vec<_> =
        refused.map(|(reason, count)| format!("{} {reason}", grouped(*count))).collect();
    if each.is_empty() { "0".to_owned() } else { each.join(", ") }
}

fn cpu_time(rounds: &[Round], keys: u64, callers: usize, naive: f64) -> String {
    let alike = || rounds.iter().filter(|round| round.callers == callers);
    let cpu = |of: usize| format::median_time(alike().map(|round| round.cpu[of]));
    let [keystead, postgres, others] = [0, 1, 2].map(|of| cpu(of).unwrap_or_default());
    let took = format::median_time(alike().map(|round| round.keystead.took)).unwrap_or_default();
    let cores = cores().map_or(1, |cores| cores.len());
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let (keys_there, cores_there) = (keys as f64, cores as f64);
    let all = (keystead + postgres + others).as_secs_f64();
    let each = |time: Duration| time.as_secs_f64() * 1e6 / keys_there;
    format!(
        "CPU time for {} keys and {} callers: Keystead {}, PostgreSQL {}, callers and network {}. All \
         share the machine: that is {:.0} % of what {cores} cores have in the time that it took. \
         {MUST} x leaves {:.0} µs of CPU for each key, of which PostgreSQL, callers and network take \
         {:.0} µs here, and Keystead {:.0} µs.",
        format::count(keys),
        format::count(callers as u64),
        format::seconds(keystead),
        format::seconds(postgres),
        format::seconds(others),
        all / (took.as_secs_f64() * cores_there) * 100.0,
        cores_there * 1e6 / (MUST * naive),
        each(postgres + others),
        each(keystead),
    )
}

fn intro(keys: u64, slice: usize) -> String {
    format!(
        "An instance that has just started, as its users run it, with nothing in memory and {keys} keys in PostgreSQL. Callers \
         over {CHANNELS} gRPC connections ask for each key once, as fast as they are answered; whoever is refused waits as long \
         as the refusal says and asks again, until every key was answered with OK. Between Keystead and PostgreSQL a proxy \
         delays what is asked by 1 ms, so that a round trip takes 1 ms longer, and counts in PostgreSQL's protocol the connections \
         on which a query is sent and not yet wholly answered, but for the one that listens for changes; a query that Keystead \
         has given up counts until its answer is there. \
         `store.guard.max_in_flight` is {CONNECTIONS}, everything else is as by default. *One by one* is what a service without a \
         fill does at a miss: before each round, {slice} of the keys over {CONNECTIONS} connections through the same proxy, a \
         prepared statement for each key, one at a time on each connection, without gRPC or anything else before it. What \
         counts is the number of callers that Keystead serves best, by the middle of its rounds.",
        keys = format::count(keys),
        slice = format::count(slice as u64),
    )
}
