//! The TOML file.

use std::{fs::File, io::Read, path::Path};

use toml::de::{DeTable, DeValue};

use super::{
    Problem,
    settings::{Raw, Settings},
    sources::Reading,
};

/// The longest file that is read, in bytes: a hundred times a file with all settings
/// and a comment for each.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a file. An unreadable file is one problem, and makes all settings doubtful.
pub(super) fn read(path: &Path, reading: &mut Reading) {
    let name = path.display().to_string();
    match load(path) {
        Ok(text) => parse(&text, &name, reading),
        Err(why) => {
            reading.doubtful.all = true;
            let problem = format!("cannot be read: {why}; name a TOML file that can");
            reading.problems.push(Problem::at(&name, problem));
        }
    }
}

fn load(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// Parses the text of a file, which messages call `name`.
pub(super) fn parse(text: &str, name: &str, reading: &mut Reading) {
    let (table, mut errors) = DeTable::parse_recoverable(text);
    let start = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    errors.sort_by_key(start);
    for error in &errors {
        // The error's own `Display` shows the line, which may hold a password.
        let line = line_of(text, start(error));
        let what = format!("this is no TOML: {}; see https://toml.io", error.message());
        reading.problems.push(Problem::at(&format!("{name} line {line}"), what));
    }
    if errors.is_empty() {
        let mut walk = Walk { text, name, reading };
        walk.table(table.get_ref(), "");
    } else {
        reading.doubtful.all = true;
    }
}

/// The line number of a byte position, counted from 1.
fn line_of(text: &str, position: usize) -> usize {
    1 + text.bytes().take(position).filter(|byte| *byte == b'\n').count()
}

/// A traversal of all values of a file.
struct Walk<'a> {
    text: &'a str,
    name: &'a str,
    reading: &'a mut Reading,
}

impl Walk<'_> {
    /// Its depth is bounded by the parser's own limit.
    fn table(&mut self, table: &DeTable<'_>, above: &str) {
        let settings = Settings::all();
        for (name, value) in table {
            let line = line_of(self.text, name.span().start);
            let origin = format!("{} line {line}", self.name);
            let key = join(above, name.get_ref());
            let section = settings.has_section(&key);
            match (value.get_ref(), settings.get(&key)) {
                (DeValue::Table(_), Some(setting)) => {
                    let what = format!("`{key}` is a table; write {}", setting.expected());
                    self.reading.wrong(setting, Problem::at(&origin, what));
                }
                (value, Some(setting)) => self.reading.value(setting, raw(value), &origin),
                (DeValue::Table(table), None) if section || !table.is_empty() => {
                    self.table(table, &key);
                }
                (_, None) if section => {
                    let what = format!(
                        "`{key}` is a section; write `[{key}]` and its settings in the lines below"
                    );
                    self.reading.doubtful.all = true;
                    self.reading.problems.push(Problem::at(&origin, what));
                }
                (_, None) => self.reading.unknown(&key, &origin),
            }
        }
    }
}

/// Joins a dotted key. Parts that TOML would quote are quoted, so that a top-level
/// `"store.url"` is not mistaken for `url` in `[store]`.
fn join(above: &str, name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let name = if !name.is_empty() && name.bytes().all(bare) {
        name.to_owned()
    } else {
        format!("{name:?}")
    };
    if above.is_empty() { name } else { format!("{above}.{name}") }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Raw::Other(number.to_string()), Raw::Integer),
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Float(number) => {
            let text = number.as_str();
            text.parse().map_or_else(|_| Raw::Other(text.to_owned()), Raw::Number)
        }
        DeValue::Datetime(time) => Raw::Other(time.to_string()),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Table(_) => Raw::Other("a table".to_owned()),
    }
}
