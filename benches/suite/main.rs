//! How well Keystead performs, as ratios to other servers in the same run on the
//! same machine.
//!
//! ```text
//! cargo bench --bench suite -- [--quick] PART…   measures, into target/bench/PART.json
//! cargo bench --bench suite -- report            writes docs/performance.md from all of them
//! cargo bench --bench suite -- train PROGRAM     loads a program that counts what it does
//! ```
//!
//! `scripts/bench` does the first two, `scripts/pgo` the last; [`capture`] makes what is
//! sent. A part is a module here: it measures one thing and tells it as a
//! [`report::Section`].

mod bare;
mod capture;
mod environment;
mod format;
mod grpc;
mod h2load;
mod hit;
mod keystead;
mod load;
mod loader;
mod machine;
mod memory;
mod open_loop;
mod population;
mod process;
mod refill;
mod report;
mod scaling;
mod servers;
mod snapshot;
mod start;
mod statistics;
mod tail;
mod tiers;
mod typical;

use std::{path::PathBuf, process::ExitCode};

use report::{Kept, Section};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whatever ends a part: each says by itself what was tried.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How a part is to be measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// In a quarter of the time or less, to see whether it works; its figures are
    /// not for the page.
    pub(crate) quick: bool,
}

/// What can be measured.
struct Part {
    name: &'static str,
    measure: fn(Run) -> Result<Section>,
}

/// In the order of the page.
const PARTS: &[Part] = &[
    Part { name: "hit", measure: hit::measure },
    Part { name: "tiers", measure: tiers::measure },
    Part { name: "tail", measure: tail::measure },
    Part { name: "scaling", measure: scaling::measure },
    Part { name: "memory", measure: memory::measure },
    Part { name: "refill", measure: refill::measure },
    Part { name: "snapshot", measure: snapshot::measure },
    Part { name: "start", measure: start::measure },
    Part { name: "pgo", measure: hit::guided },
];

fn main() -> ExitCode {
    // `cargo bench` adds a flag of its own.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match run_child(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("suite: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_child(arguments: &[String]) -> Result<()> {
    match arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        // What the suite begins as processes of their own.
        Some(("bare", rest)) => return bare::serve(rest),
        Some((load::CHILD, [])) => return load::run_child(),
        Some(("capture", [])) => return capture::capture(),
        Some(("train", [program])) => return train(program.into()),
        Some((open_loop::CHILD, [])) => return open_loop::run_child(),
        Some((memory::CHILD, rest)) => return memory::child(rest),
        _ => {}
    }
    let quick = arguments.iter().any(|word| word == "--quick");
    for name in arguments.iter().filter(|word| *word != "--quick") {
        if name == "report" {
            report::write(PARTS.iter().map(|part| part.name))?;
            continue;
        }
        let part = PARTS.iter().find(|part| part.name == name);
        let part = part.ok_or_else(|| format!("there is no part `{name}`; {}", parts()))?;
        let section = (part.measure)(Run { quick })?;
        let kept = Kept::now(part.name, quick, section)?;
        kept.print();
        kept.store()?;
    }
    Ok(())
}

/// Loads a program as it is when it is measured: with checks from memory of all kinds, and
/// with lookups in both stores. What was measured is not kept.
fn train(program: PathBuf) -> Result<()> {
    keystead::run_instead(program)?;
    for measure in [hit::measure, refill::measure] {
        measure(Run { quick: true })?;
    }
    Ok(())
}

fn parts() -> String {
    let names: Vec<_> = PARTS.iter().map(|part| part.name).collect();
    format!("there are {}, and `report`", names.join(", "))
}
