//! The list of all settings, derived from the schema of the configuration.

use std::{fmt, ops::RangeInclusive, sync::LazyLock, time::Duration};

use figment::{Figment, error::Kind as ErrorKind};
use humantime::{format_duration, parse_duration};
use schemars::schema_for;
use serde::Serialize;
use serde_json::Value;

use super::{Config, validate};

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let schema = schema_for!(Config).to_value();
    let mut sections = Vec::new();
    collect(&schema, &schema, String::new(), &mut sections);
    Settings { sections }
});

/// How much of an invalid value a message repeats, in characters.
const MAX_SHOWN: usize = 80;

/// All settings, in the order of declaration.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) sections: Vec<Section>,
}

/// A table of settings.
#[derive(Debug)]
pub(super) struct Section {
    /// For example `store.guard`.
    pub(super) key: String,
    /// Its doc comment.
    pub(super) description: String,
    /// Its settings, without those of nested sections.
    pub(super) settings: Vec<Setting>,
}

/// One setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// For example `store.guard.query_timeout`.
    pub(super) key: String,
    /// Its doc comment.
    pub(super) description: String,
    /// The default in TOML syntax; `None` if it is not set.
    pub(super) default: Option<String>,
    kind: Kind,
    /// For text: what to write.
    title: String,
    secret: bool,
}

#[derive(Debug)]
enum Kind {
    Boolean,
    Integer(RangeInclusive<i64>),
    /// A number with a fraction.
    Number(RangeInclusive<f64>),
    Duration(RangeInclusive<Duration>),
    Choice(Vec<(String, String)>),
    Text,
    /// A list of texts.
    List,
}

/// A value as read from a source.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Raw {
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    List(Vec<Self>),
    /// A value that no setting can have, as messages show it.
    Other(String),
}

impl Settings {
    pub(super) fn all() -> &'static Self {
        &SETTINGS
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.sections.iter().flat_map(|section| &section.settings)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Setting> {
        self.iter().find(|setting| setting.key == key)
    }

    pub(super) fn has_section(&self, key: &str) -> bool {
        self.sections.iter().any(|section| section.key == key)
    }

    /// The setting that the author of `key` most likely meant: the most similar one, both
    /// in whole and in its last part; one in the same section is preferred.
    pub(super) fn nearest(&self, key: &str) -> Option<&Setting> {
        const SAME_SECTION: f64 = 0.25;
        let similarity = strsim::normalized_damerau_levenshtein;
        let (section, name) = split_key(key);
        let score = |setting: &Setting| {
            let (its_section, its_name) = split_key(&setting.key);
            let bonus = if section == its_section { SAME_SECTION } else { 0.0 };
            similarity(key, &setting.key) + similarity(name, its_name) + bonus
        };
        self.iter().max_by(|a, b| score(a).total_cmp(&score(b)))
    }
}

impl Setting {
    /// The environment variable that sets it.
    pub(super) fn variable(&self) -> String {
        format!("KEYSTEAD_{}", self.key.to_ascii_uppercase().replace('.', "__"))
    }

    /// A description of valid values.
    pub(super) fn expected(&self) -> String {
        match &self.kind {
            Kind::Boolean => "`true` or `false`".to_owned(),
            Kind::Integer(range) => {
                format!("a whole number from {} to {}", range.start(), range.end())
            }
            Kind::Number(range) => format!("a number from {} to {}", range.start(), range.end()),
            Kind::Duration(range) => {
                let [from, to] = [range.start(), range.end()].map(|d| format_duration(*d));
                format!("a length of time from `{from}` to `{to}`")
            }
            Kind::Choice(words) => {
                let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
                format!("one of {}", words.join(", "))
            }
            Kind::Text | Kind::List => self.title.clone(),
        }
    }

    /// The allowed words and their meanings, if it is a choice.
    pub(super) fn choices(&self) -> &[(String, String)] {
        if let Kind::Choice(words) = &self.kind { words } else { &[] }
    }

    /// Parses text from a source that has only text. Text that cannot be parsed stays
    /// text, which [`Setting::validate`] refuses. List items are separated by commas, with
    /// optional spaces.
    pub(super) fn read(&self, text: &str) -> Raw {
        let read = match self.kind {
            Kind::Boolean => text.parse().ok().map(Raw::Boolean),
            Kind::Integer(_) => text.parse().ok().map(Raw::Integer),
            Kind::Number(_) => text.parse().ok().map(Raw::Number),
            Kind::List => {
                let items = text.split(',').map(|item| Raw::Text(item.trim().to_owned()));
                Some(Raw::List(items.collect()))
            }
            Kind::Duration(_) | Kind::Choice(_) | Kind::Text => None,
        };
        read.unwrap_or_else(|| Raw::Text(text.to_owned()))
    }

    /// Checks a value. The error names the problem and the remedy.
    pub(super) fn validate(&self, value: &Raw) -> Result<(), String> {
        let (key, expected) = (&self.key, self.expected());
        let shown = if self.secret { "wrong".to_owned() } else { value.to_string() };
        if !self.kind.fits(value) {
            return Err(format!("`{key}` is {shown}; write {expected}"));
        }
        match Figment::from((key.as_str(), value)).extract::<Config>() {
            Ok(config) => validate::alone(key, &config).map_or(Ok(()), Err),
            Err(figment::Error { kind: ErrorKind::Message(why), .. }) => {
                Err(format!("`{key}` is {shown}: {why}; write {expected}"))
            }
            Err(_) => Err(format!("`{key}` is {shown}; write {expected}")),
        }
    }
}

impl Kind {
    /// Whether a value has the right type and is within bounds. The type of the setting
    /// parses texts.
    fn fits(&self, value: &Raw) -> bool {
        match (self, value) {
            (Self::Integer(range), Raw::Integer(number)) => range.contains(number),
            (Self::Number(range), Raw::Number(number)) => range.contains(number),
            // Within realistic bounds, every whole number is exact.
            (Self::Number(range), Raw::Integer(number)) => {
                i32::try_from(*number).is_ok_and(|number| range.contains(&f64::from(number)))
            }
            (Self::Duration(range), Raw::Text(text)) => {
                parse_duration(text).is_ok_and(|duration| range.contains(&duration))
            }
            (Self::Choice(words), Raw::Text(text)) => words.iter().any(|(word, _)| word == text),
            (Self::List, Raw::List(items)) => items.iter().all(|item| matches!(item, Raw::Text(_))),
            (Self::Boolean, Raw::Boolean(_)) | (Self::Text, Raw::Text(_)) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(text) if text.chars().count() > MAX_SHOWN => {
                write!(f, "{:?}…", text.chars().take(MAX_SHOWN).collect::<String>())
            }
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(ToString::to_string).collect();
                let list = format!("[{}]", items.join(", "));
                let shown: String = list.chars().take(MAX_SHOWN).collect();
                write!(f, "{shown}{}", if shown.len() < list.len() { "…" } else { "" })
            }
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// Adds the section that `object` describes, and its nested sections.
fn collect(root: &Value, object: &Value, key: String, sections: &mut Vec<Section>) {
    let mut settings = Vec::new();
    let mut within = Vec::new();
    for (name, property) in object["properties"].as_object().into_iter().flatten() {
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        let definition = definition(root, property);
        if definition["properties"].is_object() {
            collect(root, definition, key, &mut within);
        } else {
            settings.push(Setting::described(key, property, definition));
        }
    }
    if !key.is_empty() {
        sections.push(Section { key, description: text(&object["description"]), settings });
    }
    sections.append(&mut within);
}

/// Splits a key into section and name.
fn split_key(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

/// Resolves the reference of a property; without one, returns the property itself.
fn definition<'a>(root: &'a Value, property: &'a Value) -> &'a Value {
    let reference = property["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    reference.and_then(|pointer| root.pointer(pointer)).unwrap_or(property)
}

impl Setting {
    fn described(key: String, property: &Value, definition: &Value) -> Self {
        let property_or_definition = |name| property.get(name).or_else(|| definition.get(name));
        let duration = |name, or| {
            let bound = property[name].as_str().and_then(|text| parse_duration(text).ok());
            bound.unwrap_or(or)
        };
        let words = choices(definition);
        let kind = match definition["type"].as_str() {
            _ if !words.is_empty() => Kind::Choice(words),
            Some("boolean") => Kind::Boolean,
            Some("integer") => {
                let bound = |name, or| property[name].as_i64().unwrap_or(or);
                Kind::Integer(bound("minimum", 0)..=bound("maximum", i64::MAX))
            }
            Some("number") => {
                let bound = |name, or| property[name].as_f64().unwrap_or(or);
                Kind::Number(bound("minimum", 0.0)..=bound("maximum", f64::MAX))
            }
            Some("array") => Kind::List,
            _ if property.get("x-maximum").is_some() => Kind::Duration(
                duration("x-minimum", Duration::ZERO)..=duration("x-maximum", Duration::MAX),
            ),
            _ => Kind::Text,
        };
        Self {
            description: text(&property["description"]),
            default: property.get("default").filter(|d| !d.is_null()).map(in_toml),
            title: property_or_definition("title").map(text).unwrap_or_default(),
            secret: property_or_definition("writeOnly") == Some(&Value::Bool(true)),
            key,
            kind,
        }
    }
}

/// A default in TOML syntax.
fn in_toml(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(in_toml).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// The words of an enumeration, with their descriptions.
fn choices(definition: &Value) -> Vec<(String, String)> {
    let variants = definition["oneOf"].as_array().into_iter().flatten();
    variants.map(|variant| (text(&variant["const"]), text(&variant["description"]))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
