//! JSON lines: an object on each.

use std::{
    collections::BTreeMap,
    fmt,
    io::{BufRead, Read},
};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;

use super::{
    ImportError,
    field::Field,
    line::{Draft, Value, shown},
};
use crate::key::NewKey;

/// The longest line, in bytes: several times one that has all that a key may
/// carry.
const MAX_LINE: u64 = 1 << 20;

/// Reads all lines. Blank ones do not count.
pub(super) fn read(
    mut input: impl BufRead,
    take: &mut impl FnMut(u64, Result<NewKey, String>),
) -> Result<(), ImportError> {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let limit = MAX_LINE + 1;
        let length = input.by_ref().take(limit).read_until(b'\n', &mut bytes)? as u64;
        if length == 0 {
            break;
        }
        if length == limit && !bytes.ends_with(b"\n") {
            input.skip_until(b'\n')?;
            take(number, Err(format!("it is longer than {MAX_LINE} bytes; shorten it")));
        } else if !bytes.trim_ascii().is_empty() {
            take(number, line(bytes.trim_ascii()));
        }
    }
    Ok(())
}

fn line(bytes: &[u8]) -> Result<NewKey, String> {
    if !bytes.starts_with(b"{") {
        return Err("it is no JSON object; write {\"sha256\": …, \"principal\": …}".to_owned());
    }
    let Pairs(pairs) = serde_json::from_slice(bytes).map_err(|error| not_json(&error))?;
    let mut draft = Draft::default();
    for (position, (name, value)) in pairs.iter().enumerate() {
        if pairs[..position].iter().any(|(earlier, _)| earlier == name) {
            return Err(format!("{} is there twice; remove one of the two", shown(name)));
        }
        let field = Field::parse(name, || format!("field number {}", position + 1))?;
        if *value != Json::Null {
            draft.set(name, field, value)?;
        }
    }
    draft.finish()
}

/// Where the line stops being JSON. The parser counts lines within the line.
fn not_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("it is no JSON: {what} at character {}; correct it", error.column())
}

/// The fields of an object in their order, those that are there twice too.
struct Pairs(Vec<(String, Json)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

const NO_TEXT: &str = "that is no text; write it in quotation marks";

impl Value for &Json {
    fn text(self) -> Result<String, String> {
        self.as_str().map(str::to_owned).ok_or_else(|| NO_TEXT.to_owned())
    }

    fn list(self) -> Result<Vec<String>, String> {
        let entries = self.as_array().ok_or("write an array of texts, such as [\"read\"]")?;
        entries.iter().map(Value::text).collect()
    }

    fn map(self) -> Result<BTreeMap<String, String>, String> {
        let pairs = self.as_object().ok_or("write an object of texts, such as {\"a\": \"b\"}")?;
        pairs.iter().map(|(name, value)| Ok((name.clone(), value.text()?))).collect()
    }
}
