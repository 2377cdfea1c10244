//! CSV with a header (RFC 4180).

use std::{
    collections::BTreeMap,
    io::{self, BufRead},
};

use csv::{ByteRecord, ReaderBuilder, Terminator};

use super::{
    ImportError,
    field::Field,
    line::{Draft, Value, shown},
};
use crate::key::NewKey;

/// Stands as a line of its own after the last line, so that every record ends
/// with `\n` and one that takes the rest of the file is recognised.
const END: &[u8] = b"\n\0";

/// Reads all lines after the header. Blank ones do not count.
pub(super) fn read(
    input: impl BufRead,
    take: &mut impl FnMut(u64, Result<NewKey, String>),
) -> Result<(), ImportError> {
    // A `\r` before the `\n` is trimmed with its cell.
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .terminator(Terminator::Any(b'\n'))
        .from_reader(input.chain(END));
    let mut record = ByteRecord::new();
    let mut columns: Option<Vec<Column>> = None;
    while reader.read_byte_record(&mut record).map_err(io::Error::from)? {
        let next = reader.position().line();
        let breaks: u64 = record.iter().map(breaks).sum();
        let cells: Result<Vec<_>, _> = record.iter().map(str::from_utf8).collect();
        let cells = cells.map(|cells| cells.into_iter().map(str::trim).collect::<Vec<_>>());
        match (cells.as_deref(), &columns) {
            (Ok(["" | "\0"]), _) => {}
            (Ok([.., last]), _) if last.ends_with('\0') => {
                let what = "a quotation mark is not closed, and takes all lines below with it";
                take(next - breaks, Err(format!("{what}; close it")));
            }
            (Ok(names), None) => columns = Some(header(names)?),
            (Ok(cells), Some(columns)) => take(next - 1 - breaks, line(columns, cells)),
            (Err(_), None) => return Err(form("the header is not UTF-8; save the file as UTF-8")),
            (Err(_), Some(_)) => {
                let what = "it is not UTF-8; save the file as UTF-8";
                take(next - 1 - breaks, Err(what.to_owned()));
            }
        }
    }
    Ok(())
}

fn breaks(cell: &[u8]) -> u64 {
    cell.split(|byte| *byte == b'\n').skip(1).count() as u64
}

fn form(what: impl Into<String>) -> ImportError {
    ImportError::Form(what.into())
}

/// What other programs write between columns.
const SEPARATORS: [char; 2] = [';', '\t'];

/// A column and its name.
type Column = (String, Field);

/// The columns, in their order.
fn header(names: &[&str]) -> Result<Vec<Column>, ImportError> {
    // Without a header the first line may be a key and whose it is.
    if names.iter().all(|name| Field::nearest(name).is_none() && !name.contains(SEPARATORS)) {
        return Err(form(
            "the first line names no column; begin with a header such as sha256,principal",
        ));
    }
    let mut columns = Vec::new();
    let mut problems = Vec::new();
    for (position, name) in names.iter().enumerate() {
        if names[..position].contains(name) {
            problems
                .push(format!("the column {} is there twice; remove one of the two", shown(name)));
        }
        match Field::parse(name, || format!("number {}", position + 1)) {
            Ok(field) => columns.push(((*name).to_owned(), field)),
            Err(_) if name.contains(SEPARATORS) => {
                problems.push("the columns are not separated by commas; do so".to_owned());
            }
            Err(what) => problems.push(format!("the column {what}")),
        }
    }
    for name in ["sha256", "principal"] {
        if problems.is_empty() && !columns.iter().any(|(column, _)| column == name) {
            problems.push(format!("the header has no column `{name}`; add it"));
        }
    }
    if problems.is_empty() { Ok(columns) } else { Err(form(problems.join("\n"))) }
}

fn line(columns: &[Column], cells: &[&str]) -> Result<NewKey, String> {
    if cells.len() != columns.len() {
        return Err(format!(
            "it has {} cells where the header has {}; put quotation marks around a cell with a \
             comma in it",
            cells.len(),
            columns.len()
        ));
    }
    let mut draft = Draft::default();
    for ((name, field), cell) in columns.iter().zip(cells).filter(|(_, cell)| !cell.is_empty()) {
        draft.set(name, *field, *cell)?;
    }
    draft.finish()
}

impl Value for &str {
    fn text(self) -> Result<String, String> {
        Ok(self.to_owned())
    }

    fn list(self) -> Result<Vec<String>, String> {
        let mut entries: Vec<_> = self.split_whitespace().map(str::to_owned).collect();
        // There are many lists, and most are short.
        entries.shrink_to_fit();
        Ok(entries)
    }

    fn map(self) -> Result<BTreeMap<String, String>, String> {
        serde_json::from_str(self).map_err(|_| {
            r#"metadata is a JSON object of texts, in CSV written as "{""plan"":""gold""}""#
                .to_owned()
        })
    }
}
