//! Records as text for people. Pure.

use std::fmt::Write;

use jiff::Timestamp;

use crate::key::{KeyId, KeyRecord, State};

/// What stands where there is nothing.
const NOTHING: &str = "-";

/// The heads of the columns of a table of keys. What may be long stands last.
const HEADS: [&str; 7] = ["ID", "PRINCIPAL", "STATE", "EXPIRES", "LAST USED", "HINT", "SCOPES"];

/// Where the principal is among them.
const PRINCIPAL: usize = 1;

/// How wide a table may be.
const WIDTH: usize = 100;

/// The most that a principal takes of it, and the least that is left to the scopes.
const PRINCIPAL_WIDTH: usize = 16;
const SCOPES_WIDTH: usize = 8;

/// A table of keys, or nothing if there are none.
///
/// Fits in [`WIDTH`] columns: a principal and scopes that are too long are cut. Ids are
/// not, as they are what other commands take.
pub(super) fn table(records: &[KeyRecord], now: Timestamp) -> String {
    if records.is_empty() {
        return String::new();
    }
    let heads = HEADS.map(str::to_owned);
    let mut rows: Vec<_> =
        [heads].into_iter().chain(records.iter().map(|record| cells(record, now))).collect();
    let mut widths = [0; HEADS.len()];
    for row in &mut rows {
        row[PRINCIPAL] = cut(&row[PRINCIPAL], PRINCIPAL_WIDTH);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let [before @ .., scopes] = &mut widths;
    let taken = before.iter().map(|width| width + GAP.len()).sum();
    *scopes = WIDTH.saturating_sub(taken).max(SCOPES_WIDTH);
    rows.iter().map(|row| line(row, &widths)).collect()
}

/// What stands between two columns.
const GAP: &str = "  ";

fn line(row: &[String; HEADS.len()], widths: &[usize; HEADS.len()]) -> String {
    let cells = row.iter().zip(widths);
    let padded = cells.map(|(cell, &width)| format!("{:width$}", cut(cell, width)));
    let line = padded.collect::<Vec<_>>().join(GAP);
    format!("{}\n", line.trim_end())
}

/// The beginning of a text that is longer than so many characters.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

fn cells(record: &KeyRecord, now: Timestamp) -> [String; HEADS.len()] {
    let rights = &record.rights;
    [
        record.id.to_string(),
        cell(&rights.principal),
        found(record, now),
        day(rights.expires_at),
        day(record.last_used_at),
        cell(record.hint.rsplit_once('…').map_or(&record.hint, |(_, end)| end)),
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

/// The state, and whether the time of the key is over or has yet to come.
fn state(record: &KeyRecord, now: Timestamp) -> String {
    match (record.state, untimely(record, now)) {
        (state @ State::Revoked, _) | (state, None) => state.to_string(),
        (state, Some(why)) => format!("{state}, {why}"),
    }
}

/// What a check would find, in a word or few.
fn found(record: &KeyRecord, now: Timestamp) -> String {
    match (record.state, untimely(record, now)) {
        (State::Active, Some(why)) => why.to_owned(),
        (state, _) => state.to_string(),
    }
}

fn untimely(record: &KeyRecord, now: Timestamp) -> Option<&'static str> {
    let over = record.rights.expires_at.is_some_and(|end| end <= now);
    let to_come = record.rights.not_before.is_some_and(|start| now < start);
    if over { Some("expired") } else { to_come.then_some("not yet valid") }
}

/// A point in time to the second, which is never later than the true one.
pub(super) fn instant(at: Option<Timestamp>, none: &str) -> String {
    at.map_or_else(|| none.to_owned(), |at| format!("{at:.0}"))
}

/// A day, in UTC.
fn day(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
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
    fn table_is_aligned_and_fits_in_a_hundred_columns() {
        let mut long = record(&format!("key_{}", "x".repeat(22)));
        long.rights.principal = "größer, a very long principal, as some are".to_owned();
        long.rights.scopes = vec!["orders:read".to_owned(), "orders:write".to_owned()];
        long.rights.not_before = Some(NOW + 1.second());
        long.rights.expires_at = Some(NOW + 60.seconds());
        long.last_used_at = Some(NOW);
        let text = table(&[record("key_1"), long], NOW);
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert_eq!((text.lines().count(), widest), (3, Some(100)), "{text}");
        assert_eq!(column(&text, "PRINCIPAL", 1), "acme");
        assert_eq!(column(&text, "PRINCIPAL", 2), "größer, a very …");
        assert_eq!(column(&text, "STATE", 2), "not yet valid");
        assert_eq!(column(&text, "EXPIRES", 1), "never");
        assert_eq!(column(&text, "EXPIRES", 2), "2027-01-15");
        assert_eq!(column(&text, "HINT", 1), "abcd");
        assert_eq!(column(&text, "SCOPES", 1), "-");
        assert_eq!(column(&text, "SCOPES", 2), "orders:r…");
    }

    #[test]
    fn ids_are_never_cut_and_no_keys_are_no_table() {
        let id = format!("a-key-that-was-brought-along-{}", "x".repeat(90));
        assert!(table(&[record(&id)], NOW).contains(&id));
        assert_eq!(table(&[], NOW), "");
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
        let table = table(&[key.clone()], NOW);
        assert!(!table.contains('\x1b') && table.lines().count() == 2, "{table:?}");
        assert!(!summary(&key, NOW).contains('\x1b'));
        assert!(!details(&key, NOW).contains('\x1b'));
    }
}
