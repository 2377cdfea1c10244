//! How much memory a cached key takes.
//!
//! Each count is measured in a process of its own, which fills the memory of the
//! service to its bound: what is resident then, less what was resident before there
//! was one, divided by the keys that are held. The tables of the cache and what the
//! allocator cannot use are so counted; what a process takes anyway is not.

use std::{fs, num::NonZeroUsize, process::Command, sync::Arc, time::Duration};

use keystead::{
    cache::{CacheConfig, Coverage, Memory},
    suspect::{SuspectConfig, Suspicion},
    time::Clock,
};
use serde::{Deserialize, Serialize};

use crate::{
    Result, Run,
    figures::{count, grouped, median},
    population::{self, Kind},
    report::{Goal, Section, Table},
};

/// What the first argument is to a process that measures.
pub(crate) const CHILD: &str = "memory-child";

/// At its bound the parts of the cache are unevenly full, and some have begun to
/// make room; more than this share of what there is room for is held.
const FULL: f64 = 0.95;

/// Bytes for each key with typical records at the most keys that are measured.
const MUST: f64 = 250.0;
const AIM: f64 = 160.0;

/// The part `memory`.
pub(crate) fn measure(run: Run) -> Result<Section> {
    let (counts, times): (&[u64], _) =
        if run.quick { (&[10_000, 100_000], 1) } else { (&[10_000, 100_000, 1_000_000], 3) };
    let columns = ["records", "room for", "keys held", "bytes each", "replaced: bytes each"];
    let mut table = Table::new("", &columns);
    let mut goals = Vec::new();
    for kind in Kind::ALL {
        for &keys in counts {
            let all = (0..times).map(|_| in_a_process(kind, keys)).collect::<Result<Vec<_>>>()?;
            let middle = |held: fn(&Measured) -> Held| {
                median(all.iter().map(|measured| held(measured).bytes_each()))
            };
            let (filled, replaced) = (middle(|it| it.filled), middle(|it| it.replaced));
            let held = all.iter().map(|it| it.filled.keys).min().unwrap_or_default();
            table.rows.push(vec![
                kind.as_str().to_owned(),
                count(keys),
                count(held),
                grouped(filled),
                grouped(replaced),
            ]);
            if kind == Kind::Typical && Some(&keys) == counts.last() {
                goals.push(Goal {
                    what: format!("memory per cached key, typical record, {}", count(keys)),
                    must: format!("{MUST} bytes, aiming at {AIM}"),
                    measured: format!("{} bytes", grouped(filled)),
                    reached: filled <= MUST,
                });
            }
        }
    }
    Ok(Section {
        title: "Memory".to_owned(),
        about: "What a process that fills the cache to its bound has resident (`Rss`), less what it had \
                before, divided by the keys that are held; the median of several processes. In records \
                with *own metadata* two values are of that key alone. *Replaced* is after as many \
                other keys have come and made the first ones go."
            .to_owned(),
        tables: vec![table],
        goals,
    })
}

/// What was found in one process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Measured {
    /// How many keys were put in.
    keys: u64,
    /// When all were put in.
    filled: Held,
    /// When as many others had been put in after them, one by one.
    replaced: Held,
}

/// What is in memory.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Held {
    keys: u64,
    /// Resident, more than before there was a memory.
    bytes: u64,
}

impl Held {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn bytes_each(self) -> f64 {
        self.bytes as f64 / self.keys as f64
    }
}

/// Measures in a process of its own.
fn in_a_process(kind: Kind, keys: u64) -> Result<Measured> {
    let program = std::env::current_exe()?;
    let output = Command::new(program)
        .args([CHILD, kind.as_str(), &keys.to_string()])
        .env_clear()
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the process that measures failed: {said}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What the process does that measures; prints one line of JSON.
pub(crate) fn child(kind: &str, keys: &str) -> Result<()> {
    let kind = Kind::parse(kind).ok_or("there is no such kind of record")?;
    println!("{}", serde_json::to_string(&fill(kind, keys.parse()?)?)?);
    Ok(())
}

fn fill(kind: Kind, keys: u64) -> Result<Measured> {
    let clock = Clock::System;
    let now = clock.moment();
    // What records are made with is there before.
    drop(population::record(kind, 0, now.wall)?);
    let before = resident()?;
    let memory = empty(keys)?;
    let put = |numbers: std::ops::Range<u64>| -> Result<Held> {
        for number in numbers {
            let record = population::record(kind, number, now.wall)?;
            population::take(&memory, population::digest(number), &record, now.monotonic)?;
        }
        let held = memory.len() as u64;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let share = held as f64 / keys as f64;
        assert!((FULL..=1.0).contains(&share), "{held} of {keys} are held");
        Ok(Held { keys: held, bytes: resident()?.saturating_sub(before) })
    };
    let (filled, replaced) = (put(0..keys)?, put(keys..2 * keys)?);
    Ok(Measured { keys, filled, replaced })
}

/// A memory with room for so many keys.
fn empty(keys: u64) -> Result<Memory> {
    let max_entries = NonZeroUsize::new(usize::try_from(keys)?).ok_or("no keys to measure")?;
    let config = CacheConfig { max_entries, ..CacheConfig::default() };
    let coverage = Arc::new(Coverage::new(Duration::from_secs(1)));
    let suspicion = Arc::new(Suspicion::new(SuspectConfig::default()));
    Ok(Memory::new(config, coverage, suspicion, Clock::System))
}

/// The bytes of this process that are in memory, to the page: unlike `VmRSS`,
/// which lags behind by up to 64 pages a thread.
fn resident() -> Result<u64> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")).ok_or("no Rss")?;
    Ok(kilobytes.trim().parse::<u64>()? * 1024)
}
