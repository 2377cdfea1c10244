//! The table or view that keys are read from, as an identifier.

use std::fmt;

/// A table or view, with its schema or without: validated, and written so that
/// no text in it can be anything but a name.
///
/// Reads what SQL reads: a plain name is folded to lower case, a name in double
/// quotes is taken as it is, `""` in it is one quote. Control characters are
/// refused, as no name has any on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation {
    schema: Option<String>,
    name: String,
}

impl Relation {
    /// The longest name that PostgreSQL keeps, in bytes (`NAMEDATALEN - 1`). A
    /// longer one would be cut, and could then be another table's.
    pub(crate) const MAX_LEN: usize = 63;

    /// Reads `table` or `schema.table`. `None` when it is neither.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (first, rest) = identifier(text.trim())?;
        if rest.is_empty() {
            return Some(Self { schema: None, name: first });
        }
        let (name, rest) = identifier(rest.strip_prefix('.')?)?;
        rest.is_empty().then_some(Self { schema: Some(first), name })
    }

    /// Our own table.
    pub(super) fn own() -> Self {
        Self { schema: Some("keystead".to_owned()), name: "api_keys".to_owned() }
    }
}

/// As it stands in a statement: quoted.
impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quoted(schema))?;
        }
        f.write_str(&quoted(&self.name))
    }
}

/// A name as SQL takes it as it is.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// One identifier, and what stands after it.
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
    fn names_are_read_as_sql_reads_them_and_written_quoted() {
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
    fn what_is_no_name_is_refused() {
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
