//! Which of the callers that wait for the store is asked about next, and who
//! has waited too long? A simulation, the same on every machine.
//!
//! ```text
//! cargo bench --bench queue_discipline
//! cargo bench --bench queue_discipline -- --measure postgres://…
//! ```
//!
//! The second fills `keystead.api_keys` of a migrated, empty database with a
//! million keys, and measures the numbers that the simulation rests on.
//! `docs/adr/2026-11-22-queue-discipline.md` says what follows from both.

mod discipline;
mod measure;
mod random;
mod results;
mod simulation;
mod store;

use std::process::ExitCode;

use discipline::Discipline;
use results::Results;
use simulation::{Batch, Scenario, Simulation, count};

/// The places at the store.
const PLACES: usize = 8;

/// How many keys a query asks about at most.
const BATCH: usize = 256;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(at) = arguments.iter().position(|argument| argument == "--measure") else {
        simulate();
        return ExitCode::SUCCESS;
    };
    let Some(url) = arguments.get(at + 1) else {
        eprintln!("--measure takes the URL of a migrated, empty PostgreSQL database");
        return ExitCode::FAILURE;
    };
    match measure::run(url) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the store could not be measured: {error}");
            ExitCode::FAILURE
        }
    }
}

fn simulate() {
    for batch in [Batch::Adaptive(BATCH), Batch::Fixed(BATCH), Batch::Off] {
        let most = count(batch.most());
        let capacity = store::capacity(count(PLACES), most);
        println!("\n# {}: {PLACES} places look up {capacity:.0} keys/s\n", title(batch));
        for scenario in scenarios() {
            println!("{}", scenario.name);
            println!(
                "  {:<27} {:>8} {:>7} {:>7} {:>7} {:>8} {:>8} {:>7} {:>7} {:>9}",
                "",
                "goodput",
                "of all",
                "p50 ms",
                "p99 ms",
                "refused",
                "after ms",
                "late",
                "wasted",
                "recovery"
            );
            for discipline in Discipline::ALL {
                print(discipline, &Simulation::run(&scenario, discipline, batch), &scenario);
            }
        }
    }
}

const fn title(batch: Batch) -> &'static str {
    match batch {
        Batch::Off => "One key a query",
        Batch::Fixed(_) => "Up to 256 keys a query",
        Batch::Adaptive(_) => "Up to 256 keys a query, fewer while queries are slow",
    }
}

fn print(discipline: Discipline, results: &Results, scenario: &Scenario) {
    let recovery = match results.recovery() {
        _ if scenario.over.is_infinite() => String::new(),
        None => "never".to_owned(),
        Some(millis) => format!("{:.1} s", millis / 1e3),
    };
    println!(
        "  {:<27} {:>8.3} {:>7.3} {:>7.1} {:>7.1} {:>8.3} {:>8.1} {:>7.4} {:>7.4} {recovery:>9}",
        discipline.name(),
        results.goodput(),
        results.answered_share(),
        results.percentile(0.5),
        results.percentile(0.99),
        results.refused_share(),
        results.refused_after(),
        results.late_share(),
        results.wasted_share(),
    );
}

fn scenarios() -> Vec<Scenario> {
    let steady = |name, load| Scenario {
        name,
        places: PLACES,
        load: vec![(11e3, load)],
        herd: 0,
        retries: false,
        slow: (0.0, 0.0, 1.0),
        over: f64::INFINITY,
        counts: (1e3, 11e3),
        ends: 11e3,
    };
    let slowed = |name, times| Scenario {
        load: vec![(20e3, 0.5)],
        slow: (5e3, 10e3, times),
        over: 10e3,
        counts: (5e3, 10e3),
        ends: 20e3,
        ..steady(name, 0.0)
    };
    vec![
        steady("0.5 x of capacity", 0.5),
        steady("0.9 x of capacity", 0.9),
        steady("1.2 x of capacity", 1.2),
        steady("3 x of capacity", 3.0),
        Scenario {
            load: vec![(30e3, 3.0), (60e3, 0.5)],
            retries: true,
            over: 30e3,
            counts: (30e3, 60e3),
            ends: 60e3,
            ..steady("3 x for 30 s with retries, then 0.5 x (counted from then on)", 0.0)
        },
        Scenario {
            load: Vec::new(),
            places: 4,
            herd: 10_000,
            counts: (0.0, 1e3),
            ends: 1e3,
            ..steady("a cold herd: 10,000 at once, 4 places", 0.0)
        },
        slowed("0.5 x, store 10 x slower for 5 s (counted meanwhile)", 10.0),
        Scenario {
            retries: true,
            counts: (10e3, 20e3),
            ..slowed("the same with retries (counted afterwards)", 10.0)
        },
        slowed("0.5 x, store 30 x slower for 5 s (counted meanwhile)", 30.0),
    ]
}
