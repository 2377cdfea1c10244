//! A page for people, in Markdown.

use std::fmt::Write as _;

use super::{Goal, Kept, Table};
use crate::machine::Origin;

const HEAD: &str = "\
# Performance

Made wholly by `scripts/bench`: do not edit it. Figures of one machine say little about another. What
can be compared is measured as a ratio, Keystead to another server in the same run, and by the CPU time
that the server itself used. The machine is faster at one time than at another: compare figures of one
table, not those of two sections.
";

/// The whole page.
pub(super) fn page(all: &[Kept]) -> String {
    let mut page = format!("{HEAD}\n## What must be reached\n\n{}", goals(all));
    let quick: Vec<_> = all.iter().filter(|kept| kept.quick).map(Kept::command).collect();
    if !quick.is_empty() {
        let commands = quick.join("`, `");
        let _ = write!(page, "\nMeasured in haste, so that they say little: `{commands}`.\n");
    }
    for kept in all {
        let _ = write!(page, "\n{}", section(kept));
        for chart in &kept.section.charts {
            let _ = write!(page, "\n![{}](performance/{}.svg)\n", chart.title, chart.file);
        }
    }
    page
}

/// What must be reached, and what was.
pub(super) fn goals(all: &[Kept]) -> String {
    let mut table = Table::new("", &["what", "must reach", "measured"]);
    for goal in all.iter().flat_map(|kept| &kept.section.goals) {
        let Goal { what, must, aim, measured, reached } = goal;
        let aim = aim.as_ref().map_or_else(String::new, |aim| format!(", aiming at {aim}"));
        let mark = if *reached { "" } else { " **(missed)**" };
        table.rows.push(vec![what.clone(), format!("{must}{aim}"), format!("{measured}{mark}")]);
    }
    self::table(&table, false)
}

/// A part, without its charts.
pub(super) fn section(kept: &Kept) -> String {
    let section = &kept.section;
    let mut text = format!("## {}\n\n{}\n", section.title, section.intro.trim());
    for table in &section.tables {
        if !table.title.is_empty() {
            let _ = write!(text, "\n{}\n", table.title);
        }
        let _ = write!(text, "\n{}", self::table(table, true));
    }
    if !section.remarks.is_empty() {
        text.push('\n');
    }
    for remark in &section.remarks {
        let _ = writeln!(text, "- {remark}");
    }
    let _ = write!(text, "\n{}\n", origin(&kept.command(), &kept.origin));
    text
}

fn origin(command: &str, origin: &Origin) -> String {
    let Origin { at, commit, machine } = origin;
    format!(
        "Measured by `{command}`, {at}, commit {commit}: {}, {} cores, {} GiB, {}, {}.",
        machine.processor, machine.cores, machine.memory_gib, machine.system, machine.compiler,
    )
}

/// Figures stand to the right.
fn table(table: &Table, figures: bool) -> String {
    let mut text = row(&table.columns);
    let rest = if figures { "---:" } else { "---" };
    let rule = (0..table.columns.len()).map(|column| if column == 0 { "---" } else { rest });
    let _ = writeln!(text, "|{}|", rule.collect::<Vec<_>>().join("|"));
    table.rows.iter().for_each(|cells| text.push_str(&row(cells)));
    text
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}
