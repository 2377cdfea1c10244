//! How well Keystead performs, as ratios to other servers in the same run on the
//! same machine.
//!
//! ```text
//! cargo bench --bench suite -- [--quick] PART…   measures, into target/bench/PART.json
//! cargo bench --bench suite -- report            writes docs/performance.md from all of them
//! cargo bench --bench suite -- train PROGRAM     loads a program that counts what it does
//! ```
//!
//! `scripts/bench` does the first two, `scripts/pgo` the last. A part is a module here: it
//! measures one thing and tells it as a [`report::Section`].

mod bare;
mod environment;
mod figures;
mod grpc;
mod h2load;
mod hit;
mod keystead;
mod load;
mod memory;
mod network;
mod population;
mod postgres;
mod process;
mod refill;
mod report;
mod scaling;
mod snapshot;
mod start;
mod tail;
mod tiers;
mod typical;

use std::process::ExitCode;

use report::Section;

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

type Measure = fn(Run) -> Result<Section>;

/// What can be measured, in the order of the page.
const PARTS: [(&str, Measure); 9] = [
    ("hit", hit::measure),
    ("tiers", tiers::measure),
    ("tail", tail::measure),
    ("scaling", scaling::measure),
    ("memory", memory::measure),
    ("refill", refill::measure),
    ("snapshot", snapshot::measure),
    ("start", start::measure),
    ("pgo", hit::guided),
];

fn main() -> ExitCode {
    // `cargo bench` adds a flag of its own.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        // What the suite begins as processes of their own.
        ["bare", ref rest @ ..] => bare::serve(rest),
        [memory::CHILD, kind, keys] => memory::child(kind, keys),
        ["train", program] => train(program),
        ["--quick", ref parts @ ..] => measure(parts, Run { quick: true }),
        ref parts => measure(parts, Run { quick: false }),
    };
    if let Err(error) = done {
        eprintln!("suite: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn measure(parts: &[&str], run: Run) -> Result<()> {
    for &name in parts {
        if name == "report" {
            report::write(PARTS.iter().map(|(name, _)| *name))?;
            continue;
        }
        let part = PARTS.iter().find(|(known, _)| *known == name);
        let (_, measure) = part.ok_or_else(|| format!("there is no part `{name}`"))?;
        report::keep(name, run.quick, measure(run)?)?;
    }
    Ok(())
}

/// Loads a program as it is when it is measured: with checks from memory of all kinds, and
/// with lookups. What was measured is not kept.
fn train(program: &str) -> Result<()> {
    keystead::run_instead(program.into())?;
    for measure in [hit::measure, refill::measure] {
        measure(Run { quick: true })?;
    }
    Ok(())
}
