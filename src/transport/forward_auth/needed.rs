//! The required scopes and audience, from the query of `/auth`.

use percent_encoding::percent_decode_str;

use crate::transport::{needs::not_blank, status::Refusal};

/// How many bytes of an unknown parameter an error message repeats.
const MAX_SHOWN: usize = 64;

/// The scopes and the audience that a request requires.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Needed {
    /// Separated by spaces.
    pub(super) scopes: String,
    /// Empty for none.
    pub(super) audience: String,
}

impl Needed {
    /// Parses `scopes`, separated by spaces, and `audience`, in form encoding: a space is `+` or
    /// `%20`.
    ///
    /// An unknown, repeated or empty parameter is an error: a misspelling in the proxy's
    /// configuration would otherwise let every key in.
    pub(super) fn read(query: &str) -> Result<Self, Refusal> {
        let (mut scopes, mut audience) = (None, None);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            let slot = match name.as_str() {
                "scopes" => &mut scopes,
                "audience" => &mut audience,
                _ => return Err(unknown(&name)),
            };
            not_blank(&name, &value)?;
            if slot.replace(value).is_some() {
                return Err(Refusal::invalid(format!("`{name}` of /auth is there twice")));
            }
        }
        let (scopes, audience) = (scopes.unwrap_or_default(), audience.unwrap_or_default());
        Ok(Self { scopes, audience })
    }
}

fn decoded(text: &str) -> Result<String, Refusal> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    let not_utf8 = |_| Refusal::invalid("the query of /auth is not UTF-8");
    decoded.map(String::from).map_err(not_utf8)
}

fn unknown(name: &str) -> Refusal {
    let shown = &name.as_bytes()[..name.len().min(MAX_SHOWN)];
    Refusal::invalid(format!(
        "`{}` is no parameter of /auth; write `scopes` or `audience`",
        shown.escape_ascii()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::needs;

    fn reads_as(query: &str, scopes: &[&str], audience: &str) {
        let needed = Needed::read(query).unwrap();
        assert_eq!(needs::scopes(&needed.scopes).unwrap(), scopes, "{query}");
        assert_eq!(needed.audience, audience, "{query}");
    }

    fn refusal(query: &str) -> String {
        let refusal = Needed::read(query).unwrap_err();
        assert_eq!(refusal.reason, "REQUEST_INVALID");
        refusal.message().to_owned()
    }

    #[test]
    fn parameters_are_form_decoded() {
        for query in [
            "scopes=read+orders:write",
            "scopes=read%20orders%3Awrite",
            "scopes=+read++orders:write+",
        ] {
            reads_as(query, &["read", "orders:write"], "");
        }
        let both = "audience=a+b&scopes=%C3%BC%2B";
        reads_as(both, &["ü+"], "a b");
        reads_as("%73copes=a=b", &["a=b"], "");
    }

    #[test]
    fn query_without_parameters_requires_nothing() {
        for query in ["", "&", "&&"] {
            reads_as(query, &[], "");
        }
    }

    #[test]
    fn misspelled_parameter_is_refused_by_name() {
        for (query, name) in [
            ("scope=read", "scope"),
            ("scopes=read&Audience=x", "Audience"),
            ("scopes%3Dread", "scopes=read"),
            ("=read", ""),
            ("r%C3%A9ad", r"r\xc3\xa9ad"),
            ("%0D%0A=", r"\r\n"),
        ] {
            let expected =
                format!("`{name}` is no parameter of /auth; write `scopes` or `audience`");
            assert_eq!(refusal(query), expected, "{query}");
        }
        assert!(refusal(&"é".repeat(40_000)).len() < 400);
    }

    #[test]
    fn empty_or_repeated_parameter_is_refused() {
        for query in ["scopes=", "scopes", "scopes=+%09", "audience=&scopes=read"] {
            assert!(refusal(query).contains("is empty"), "{query}");
        }
        for query in ["scopes=a&scopes=a", "audience=a&audience=b"] {
            assert!(refusal(query).contains("twice"), "{query}");
        }
        assert_eq!(refusal("scopes=%ff"), "the query of /auth is not UTF-8");
    }
}
