//! The table or view that keys are read from, as an SQL identifier.

use std::fmt;

/// A validated table or view name, with or without schema. Displays quoted, so it cannot inject
/// SQL.
///
/// Parses like SQL: a plain name is folded to lower case, a double-quoted name is taken
/// literally, and `""` in it is one quote. Refuses control characters, which no name contains
/// on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation {
    schema: Option<String>,
    name: String,
}

impl Relation {
    /// Maximum length of a name in PostgreSQL in bytes (`NAMEDATALEN - 1`). A longer one would
    /// be truncated, and could then name another table.
    pub(crate) const MAX_LEN: usize = 63;

    /// Parses `table` or `schema.table`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (first, rest) = identifier(text.trim())?;
        if rest.is_empty() {
            return Some(Self { schema: None, name: first });
        }
        let (name, rest) = identifier(rest.strip_prefix('.')?)?;
        rest.is_empty().then_some(Self { schema: Some(first), name })
    }

    /// Keystead's own table.
    pub(super) fn own() -> Self {
        Self { schema: Some("keystead".to_owned()), name: "api_keys".to_owned() }
    }
}

/// Quoted, for use in a statement.
impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quoted(schema))?;
        }
        f.write_str(&quoted(&self.name))
    }
}

/// Quotes an identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Parses one identifier; returns the rest of the text.
fn identifier(text: &str) -> Option<(String, &str)> {
    let (name, rest) = match text.strip_prefix('"') {
        Some(inside) => quoted_identifier(inside)?,
        None => plain_identifier(text),
    };
    let fits =
        !name.is_empty() && name.len() <= Relation::MAX_LEN && !name.contains(char::is_control);
    fits.then_some((name, rest))
}

fn quoted_identifier(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        name.push_str(before);
        let Some(after_pair) = after.strip_prefix('"') else {
            return Some((name, after));
        };
        name.push('"');
        rest = after_pair;
    }
}

fn plain_identifier(text: &str) -> (String, &str) {
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
    let goes_on = |c: char| begins(c) || c.is_ascii_digit() || c == '$';
    let end =
        if text.starts_with(begins) { text.find(|c| !goes_on(c)).unwrap_or(text.len()) } else { 0 };
    (text[..end].to_ascii_lowercase(), &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_like_sql_and_display_quoted() {
        for (text, written) in [
            ("api_keys", r#""api_keys""#),
            ("Billing.API_Keys", r#""billing"."api_keys""#),
            (r#""Billing"."API Keys""#, r#""Billing"."API Keys""#),
            (r#"billing."a.b""#, r#""billing"."a.b""#),
            (r#""say ""hi""""#, r#""say ""hi""""#),
            (" t$1 ", r#""t$1""#),
        ] {
            let relation = Relation::parse(text).unwrap();
            assert_eq!(relation.to_string(), written, "{text}");
            assert_eq!(Relation::parse(written), Some(relation), "{text}");
        }
    }

    #[test]
    fn invalid_names_are_refused() {
        let long = "a".repeat(64);
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a.b.c",
            "a b",
            "a;drop table b",
            "1a",
            "a-b",
            r#""a"#,
            r#""""#,
            r#""a"b"#,
            "(select 1)",
            "\"a\0b\"",
            "\"a\nb\"",
            &long,
        ] {
            assert_eq!(Relation::parse(text), None, "{text}");
        }
    }
}
