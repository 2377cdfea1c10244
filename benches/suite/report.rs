//! What was measured, kept as JSON beside the build and shown as a page.

mod chart;
mod markdown;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) use chart::{Axis, Chart, Line};

use crate::{Result, machine::Origin};

/// What a part tells.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Section {
    /// The heading.
    pub(crate) title: String,
    /// What is measured and how, in Markdown.
    pub(crate) intro: String,
    pub(crate) tables: Vec<Table>,
    pub(crate) charts: Vec<Chart>,
    /// What the figures mean, and what to beware of; an item of a list each.
    pub(crate) remarks: Vec<String>,
    pub(crate) goals: Vec<Goal>,
}

/// Figures, ready to be read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Table {
    /// A sentence above it; may be empty.
    pub(crate) title: String,
    /// The first column is text, the others are figures.
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// A line of the table of what must be reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) must: String,
    /// More than it must.
    pub(crate) aim: Option<String>,
    pub(crate) measured: String,
    pub(crate) reached: bool,
}

/// A section with what made it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The name of the part.
    pub(crate) part: String,
    pub(crate) quick: bool,
    pub(crate) origin: Origin,
    pub(crate) section: Section,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { title: title.into(), columns, rows: Vec::new() }
    }
}

impl Kept {
    /// As measured here and just now.
    pub(crate) fn now(part: &str, quick: bool, section: Section) -> Result<Self> {
        Ok(Self { part: part.to_owned(), quick, origin: Origin::here_and_now()?, section })
    }

    /// The command that makes it.
    pub(crate) fn command(&self) -> String {
        let quick = if self.quick { "--quick " } else { "" };
        format!("scripts/bench {quick}{}", self.part)
    }

    /// Shows it on stdout, without its charts.
    pub(crate) fn print(&self) {
        println!("{}", markdown::section(self));
    }

    pub(crate) fn store(&self) -> Result<()> {
        fs::create_dir_all(kept(""))?;
        fs::write(kept(format!("{}.json", self.part)), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }
}

/// Writes `docs/performance.md` and its charts from what is kept of these parts,
/// and shows what was reached.
pub(crate) fn write<'a>(parts: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut all = Vec::new();
    for part in parts {
        match read::<Kept>(&kept(format!("{part}.json")))? {
            Some(kept) => all.push(kept),
            None => eprintln!("suite: `{part}` has not been measured; run: scripts/bench {part}"),
        }
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let charts = docs.join("performance");
    // Wholly: none of an earlier run stays behind.
    if charts.exists() {
        fs::remove_dir_all(&charts)?;
    }
    fs::create_dir_all(&charts)?;
    for chart in all.iter().flat_map(|kept| &kept.section.charts) {
        fs::write(charts.join(format!("{}.svg", chart.file)), chart.svg())?;
    }
    fs::write(docs.join("performance.md"), markdown::page(&all))?;
    println!("{}", markdown::goals(&all));
    Ok(())
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let value = serde_json::from_slice(&fs::read(path)?);
    Ok(Some(value.map_err(|error| format!("{}: {error}", path.display()))?))
}

/// Where a file is kept.
pub(crate) fn kept(name: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench").join(name)
}
