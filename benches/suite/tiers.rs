//! What each step of a check costs by itself: what `benches/tiers.rs` and
//! `benches/cost.rs` print, as tables.

use crate::{
    Result, Run,
    report::{Section, Table, kept},
};

/// What is told of one of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Printed {
    name: String,
    median: String,
    allocations: u32,
    bytes: Vec<String>,
}

/// Reads what `scripts/bench` has kept: cargo does not run one benchmark inside
/// another.
pub(crate) fn measure(_: Run) -> Result<Section> {
    let printed = |by: &str| {
        std::fs::read_to_string(kept(format!("{by}.txt"))).map_err(|error| {
            format!("{error}: what benches/{by}.rs printed; run: scripts/bench tiers")
        })
    };
    let (said, counted) = (printed("tiers")?, printed("cost")?);
    let mut table = Table::new("", &["step", "median", "allocations", "of bytes"]);
    for Printed { name, median, allocations, bytes } in read(&said) {
        table.rows.push(vec![name, median, allocations.to_string(), bytes.join(" + ")]);
    }
    Ok(Section {
        title: "The steps of a check".to_owned(),
        intro: "\
Each step by itself, and all of them from the headers of a request to the trailers of its answer, \
without a socket: `cargo bench --bench tiers`. Allocations are those that the step makes, with \
those that grow; what they cost to count, some nanoseconds each, is in the times."
            .to_owned(),
        tables: vec![table, counts(&counted)],
        remarks: vec![
            "`look in memory` takes another key each time, so that those of a large memory are not \
             in the caches of the processor."
                .to_owned(),
            "`a miss` is behind the memory: a query that finds nothing, for one key or for 256, \
             with the threads that the embedded store has, and the same through the fill."
                .to_owned(),
        ],
        ..Section::default()
    })
}

/// The table that is printed with the instructions, without the rule below its head.
fn counts(printed: &str) -> Table {
    let mut rows = printed.lines().map(|line| line.split(" | ").map(str::to_owned).collect());
    Table {
        title: "Instructions as Valgrind counts them, which offers no SHA instructions, in the \
                profile `release`; `scripts/test` holds these counts to the bounds (`benches/cost.rs`):"
            .to_owned(),
        columns: rows.next().unwrap_or_default(),
        rows: rows.skip(1).collect(),
    }
}

/// Reads the tree that divan prints: a line for each group or benchmark, and below
/// a benchmark lines for its allocations. The figures are in columns, between
/// lines that the tree has too.
fn read(tree: &str) -> Vec<Printed> {
    let (mut all, mut groups, mut counting) =
        (Vec::<Printed>::new(), Vec::new(), Counting::Nothing);
    for line in tree.lines() {
        let columns: Vec<_> = line.rsplitn(6, '│').collect();
        let [_, _, _, median, _, rest] = columns[..] else { continue };
        let median = median.trim();
        if let Some((depth, name)) = entry(rest) {
            groups.truncate(depth);
            groups.push(name);
            if !median.is_empty() {
                let (name, median) = (groups.join(": "), median.to_owned());
                all.push(Printed { name, median, ..Printed::default() });
            }
            counting = Counting::Nothing;
            continue;
        }
        let Some(told) = all.last_mut() else { continue };
        let label = rest.trim_matches(|c: char| c == '│' || c.is_whitespace());
        counting = match (label, counting) {
            ("alloc:" | "grow:", _) => Counting::Allocations,
            (other, _) if other.ends_with(':') => Counting::Nothing,
            (_, Counting::Allocations) => {
                told.allocations += median.parse::<f64>().map_or(0, rounded);
                Counting::Bytes
            }
            (_, Counting::Bytes) => {
                told.bytes.push(median.to_owned());
                Counting::Nothing
            }
            (_, Counting::Nothing) => Counting::Nothing,
        };
    }
    all
}

/// What the next line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counting {
    Nothing,
    Allocations,
    Bytes,
}

/// How deep in the tree an entry stands, and its name.
fn entry(rest: &str) -> Option<(usize, String)> {
    let (before, after) = rest.split_once("─ ")?;
    let name = after.split("  ").next()?.trim();
    Some(((before.chars().count() - 1) / 3, name.replace('_', " ")))
}

fn rounded(count: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let count = count.round() as u32;
    count
}
