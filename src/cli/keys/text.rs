//! Records as text for people. Pure.

use std::fmt::Write;

use jiff::Timestamp;

use crate::key::{KeyId, KeyRecord, State};

/// What stands where there is nothing.
const NOTHING: &str = "-";

/// The heads of the columns of a table of keys. What may be long stands last.
const HEADS: [&str; 9] =
    ["ID", "PRINCIPAL", "STATE", "EXPIRES", "LAST USED", "HINT", "SECRET", "NAME", "SCOPES"];

/// A table of keys that is written page by page.
///
/// Nothing is cut. A column is as wide as its widest cell so far, so that a
/// table of one page is aligned throughout, and a longer one within each page.
#[derive(Debug)]
pub(super) struct Table {
    widths: [usize; HEADS.len()],
    begun: bool,
}

impl Table {
    /// A table with no rows yet.
    pub(super) const fn new() -> Self {
        Self { widths: [0; HEADS.len()], begun: false }
    }

    /// The next rows, after the heads of the columns if they are the first.
    pub(super) fn page<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a KeyRecord>,
        now: Timestamp,
    ) -> String {
        let mut rows: Vec<_> = records.into_iter().map(|record| cells(record, now)).collect();
        if rows.is_empty() {
            return String::new();
        }
        if !self.begun {
            rows.insert(0, HEADS.map(str::to_owned));
            self.begun = true;
        }
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        rows.iter().map(|row| self.line(row)).collect()
    }

    fn line(&self, row: &[String; HEADS.len()]) -> String {
        let padded = row.iter().zip(self.widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = padded.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    }
}

fn cells(record: &KeyRecord, now: Timestamp) -> [String; HEADS.len()] {
    let rights = &record.rights;
    [
        record.id.to_string(),
        cell(&rights.principal),
        state(record, now),
        instant(rights.expires_at, "never"),
        instant(record.last_used_at, "never"),
        cell(&record.hint),
        secret(record),
        cell(&rights.name),
        cell(&rights.scopes.join(" ")),
    ]
}

/// All that is stored of a key, a line for each field.
pub(super) fn details(record: &KeyRecord, now: Timestamp) -> String {
    let rights = &record.rights;
    let networks: Vec<_> = rights.allowed_networks.iter().map(ToString::to_string).collect();
    let mut lines = String::new();
    let mut line = |head: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{head:<11} {value}");
    };
    line("id", record.id.as_str());
    line("principal", &cell(&rights.principal));
    line("name", &cell(&rights.name));
    line("state", &state(record, now));
    line("scopes", &list(&rights.scopes, "none"));
    line("networks", &list(&networks, "any"));
    line("audiences", &list(&rights.audiences, "any"));
    line("not before", &instant(rights.not_before, NOTHING));
    line("expires", &instant(rights.expires_at, "never"));
    line("created", &instant(Some(record.created_at), NOTHING));
    line("last used", &instant(record.last_used_at, "never"));
    line("hint", &cell(&record.hint));
    line("minted by", &secret(record));
    line("replaces", record.predecessor.as_ref().map_or(NOTHING, KeyId::as_str));
    line("replaced by", record.successor.as_ref().map_or(NOTHING, KeyId::as_str));
    line("revision", &record.revision.to_string());
    for (position, (name, value)) in rights.metadata.iter().enumerate() {
        let head = if position == 0 { "metadata" } else { "" };
        line(head, &printable(&format!("{name}={value}")));
    }
    lines
}

/// One line: which key, whose, and its state.
pub(super) fn summary(record: &KeyRecord, now: Timestamp) -> String {
    let principal = printable(&record.rights.principal);
    format!("{} of {principal} is {}\n", record.id, state(record, now))
}

/// The state, and whether the time of the key is over or has yet to come: what
/// a check would find.
fn state(record: &KeyRecord, now: Timestamp) -> String {
    let over = record.rights.expires_at.is_some_and(|end| end <= now);
    let to_come = record.rights.not_before.is_some_and(|start| now < start);
    match (record.state, over, to_come) {
        (State::Revoked, ..) => State::Revoked.to_string(),
        (state, true, _) => format!("{state}, expired"),
        (state, false, true) => format!("{state}, not yet valid"),
        (state, false, false) => state.to_string(),
    }
}

/// A point in time to the second, which is never later than the true one.
pub(super) fn instant(at: Option<Timestamp>, none: &str) -> String {
    at.map_or_else(|| none.to_owned(), |at| format!("{at:.0}"))
}

/// The fingerprint of the secret, or that there is none.
fn secret(record: &KeyRecord) -> String {
    record.secret.map_or_else(|| "imported".to_owned(), |secret| secret.to_string())
}

fn list(entries: &[String], none: &str) -> String {
    if entries.is_empty() { none.to_owned() } else { printable(&entries.join(" ")) }
}

fn cell(text: &str) -> String {
    if text.is_empty() { NOTHING.to_owned() } else { printable(text) }
}

/// A table that was brought along, or one that was changed with plain SQL, may
/// hold anything: what would move the cursor is written as an escape.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;
    use crate::key::{Revision, Rights};

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 987_654_321);

    fn record(id: &str) -> KeyRecord {
        KeyRecord {
            id: id.parse().unwrap(),
            hint: "ks_live_…abcd".to_owned(),
            secret: Some("0011223344556677".parse().unwrap()),
            rights: Rights { principal: "acme".to_owned(), ..Rights::default() },
            state: State::Active,
            created_at: NOW,
            last_used_at: None,
            predecessor: None,
            successor: None,
            revision: Revision(7),
        }
    }

    /// Where the columns of a line begin, taken from the heads.
    fn column(table: &str, head: &str, line: usize) -> String {
        let start = table.lines().next().unwrap().find(head).unwrap();
        let line: Vec<char> = table.lines().nth(line).unwrap().chars().collect();
        let rest: String = line[start..].iter().collect();
        rest.split("  ").next().unwrap().to_owned()
    }

    #[test]
    fn columns_are_aligned_and_nothing_is_cut() {
        let mut long = record("key_2");
        long.rights.principal = "a very long principal, as some are".to_owned();
        long.rights.name = "größer".to_owned();
        long.rights.scopes = vec!["read".to_owned(), "write".to_owned()];
        long.secret = None;
        let table = Table::new().page([&record("key_1"), &long], NOW);
        assert_eq!(table.lines().count(), 3);
        assert_eq!(column(&table, "PRINCIPAL", 1), "acme");
        assert_eq!(column(&table, "PRINCIPAL", 2), "a very long principal, as some are");
        assert_eq!(column(&table, "EXPIRES", 1), "never");
        assert_eq!(column(&table, "SECRET", 1), "0011223344556677");
        assert_eq!(column(&table, "SECRET", 2), "imported");
        assert_eq!(column(&table, "NAME", 1), "-");
        assert_eq!(column(&table, "NAME", 2), "größer");
        assert_eq!(column(&table, "SCOPES", 2), "read write");
    }

    #[test]
    fn a_table_has_its_heads_once_and_no_rows_are_no_table() {
        let mut table = Table::new();
        assert_eq!(table.page([], NOW), "");
        assert!(table.page([&record("key_1")], NOW).starts_with("ID"));
        assert!(table.page([&record("key_2")], NOW).starts_with("key_2"));
    }

    #[test]
    fn what_a_check_would_find_is_told_beside_the_state() {
        let mut key = record("key_1");
        assert_eq!(state(&key, NOW), "active");
        key.rights.not_before = Some(NOW + 1.second());
        assert_eq!(state(&key, NOW), "active, not yet valid");
        key.rights.not_before = None;
        key.rights.expires_at = Some(NOW);
        assert_eq!(state(&key, NOW), "active, expired");
        key.state = State::Disabled;
        assert_eq!(state(&key, NOW), "disabled, expired");
        key.state = State::Revoked;
        assert_eq!(state(&key, NOW), "revoked");
    }

    #[test]
    fn details_show_every_field() {
        let mut key = record("key_1");
        key.rights.metadata =
            [("plan", "gold"), ("tier", "1")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        key.rights.allowed_networks = vec!["10.0.0.0/8".parse().unwrap()];
        key.rights.expires_at = Some(NOW);
        key.successor = Some("key_2".parse().unwrap());
        let text = details(&key, NOW);
        for line in [
            "id          key_1",
            "principal   acme",
            "name        -",
            "state       active, expired",
            "scopes      none",
            "networks    10.0.0.0/8",
            "audiences   any",
            "not before  -",
            "expires     2027-01-15T08:00:00Z",
            "created     2027-01-15T08:00:00Z",
            "last used   never",
            "hint        ks_live_…abcd",
            "minted by   0011223344556677",
            "replaces    -",
            "replaced by key_2",
            "revision    7",
            "metadata    plan=gold",
            "            tier=1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_stored_text_cannot_move_the_cursor() {
        let mut key = record("key_1");
        key.rights.principal = "a\x1b[2J\nb".to_owned();
        let table = Table::new().page([&key], NOW);
        assert!(!table.contains('\x1b') && table.lines().count() == 2, "{table:?}");
        assert!(!summary(&key, NOW).contains('\x1b'));
        assert!(!details(&key, NOW).contains('\x1b'));
    }
}
