//! What was measured, kept as JSON beside the build and shown as a page.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use keystead::time::Clock;
use serde::{Deserialize, Serialize};

use crate::Result;

const HEAD: &str = "\
# Performance

Made wholly by `scripts/bench`: do not edit it. Figures of one machine say little about another. What
can be compared is measured as a ratio, Keystead to another server in the same run, and by the CPU time
that the server itself used. The machine is faster at one time than at another: compare figures of one
table, not those of two sections.

## What must be reached

";

/// What a part tells.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Section {
    /// The heading.
    pub(crate) title: String,
    /// What is measured, in a sentence or two of Markdown.
    pub(crate) about: String,
    pub(crate) tables: Vec<Table>,
    pub(crate) goals: Vec<Goal>,
}

/// Figures, ready to be read.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Table {
    /// A sentence above it; may be empty.
    pub(crate) title: String,
    /// The first column is text, the others are figures.
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// A line of the table of what must be reached.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) must: String,
    pub(crate) measured: String,
    pub(crate) reached: bool,
}

/// A section with what made it.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// The command.
    by: String,
    quick: bool,
    /// When, of which commit, and on which machine.
    origin: String,
    section: Section,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { title: title.into(), columns, rows: Vec::new() }
    }

    fn markdown(&self) -> String {
        let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|---|{}\n", "---:|".repeat(self.columns.len() - 1));
        self.rows.iter().fold(row(&self.columns) + &rule, |text, cells| text + &row(cells))
    }
}

impl Kept {
    fn markdown(&self) -> String {
        let Self { by, origin, section: Section { title, about, tables, .. }, .. } = self;
        let mut text = format!("## {title}\n\n{about}\n");
        for table in tables {
            if !table.title.is_empty() {
                let _ = write!(text, "\n{}\n", table.title);
            }
            let _ = write!(text, "\n{}", table.markdown());
        }
        text + &format!("\nMeasured by `{by}`, {origin}.\n")
    }
}

/// Shows a section on stdout, and keeps it for the page.
pub(crate) fn keep(part: &str, quick: bool, section: Section) -> Result<()> {
    let by = format!("scripts/bench {}{part}", if quick { "--quick " } else { "" });
    let kept = Kept { by, quick, origin: origin()?, section };
    println!("{}", kept.markdown());
    fs::create_dir_all(path(""))?;
    Ok(fs::write(path(format!("{part}.json")), serde_json::to_vec_pretty(&kept)?)?)
}

/// Writes `docs/performance.md` from what is kept of these parts, and shows what was
/// reached.
pub(crate) fn write<'a>(parts: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut all: Vec<Kept> = Vec::new();
    for part in parts {
        match fs::read(path(format!("{part}.json"))) {
            Ok(kept) => all.push(serde_json::from_slice(&kept)?),
            Err(_) => eprintln!("suite: `{part}` is not measured; run: scripts/bench {part}"),
        }
    }
    let mut goals = Table::new("", &["what", "must reach", "measured"]);
    for Goal { what, must, measured, reached } in all.iter().flat_map(|it| &it.section.goals) {
        let mark = if *reached { "" } else { " **(missed)**" };
        goals.rows.push(vec![what.clone(), must.clone(), format!("{measured}{mark}")]);
    }
    let goals = goals.markdown().replace("---:", "---");
    let mut page = format!("{HEAD}{goals}");
    let quick: Vec<_> = all.iter().filter(|kept| kept.quick).map(|kept| &*kept.by).collect();
    if !quick.is_empty() {
        let _ = write!(
            page,
            "\nMeasured in haste, so that they say little: `{}`.\n",
            quick.join("`, `")
        );
    }
    for kept in &all {
        let _ = write!(page, "\n{}", kept.markdown());
    }
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md"), page)?;
    println!("{goals}");
    Ok(())
}

/// Where a file is kept.
pub(crate) fn path(name: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench").join(name)
}

/// The commit has a `+` when files were changed since.
fn origin() -> Result<String> {
    let changed = said("git", &["status", "--porcelain", "--untracked-files=no"])?;
    let mark = if changed.is_empty() { "" } else { "+" };
    let (processors, memory) =
        (fs::read_to_string("/proc/cpuinfo")?, fs::read_to_string("/proc/meminfo")?);
    let kib = field(&memory, "MemTotal").and_then(|value| value.split(' ').next()?.parse().ok());
    Ok(format!(
        "{}, commit {}{mark}: {}, {} cores, {} GiB, {}, {}",
        Clock::System.wall().strftime("%Y-%m-%d %H:%M UTC"),
        said("git", &["rev-parse", "--short=12", "HEAD"])?,
        field(&processors, "model name").unwrap_or("unknown"),
        std::thread::available_parallelism()?,
        (kib.unwrap_or(0_u64) + (1 << 19)) >> 20,
        said("uname", &["-srm"])?,
        said("rustc", &["--version"])?,
    ))
}

/// The value behind `name:` in one of the lists of `/proc`.
pub(crate) fn field<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    list.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// What a program prints.
fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {arguments:?}: {said}").into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
