//! Credential sources as written in the configuration.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where to look for a key, in this order: 1 to 8 distinct sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(into = "Vec<String>", try_from = "Vec<String>")]
#[schemars(
    title = "a list of `authorization:SCHEME`, `header:NAME`, `query:NAME` or `cookie:NAME`"
)]
pub struct CredentialSources(Vec<Source>);

/// A part of a request that may carry a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// What follows this scheme in the header `authorization`.
    Authorization(String),
    /// A header, by its lower-case name.
    Header(String),
    /// A query parameter.
    Query(String),
    /// A cookie.
    Cookie(String),
}

/// The text is not a list of sources.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourcesError {
    /// The list is empty.
    #[error("there is none")]
    None,
    /// The list is too long.
    #[error("there are {0}, and {max} are allowed", max = CredentialSources::MAX)]
    TooMany(usize),
    /// A source is repeated.
    #[error("`{0}` is there twice")]
    Twice(String),
    /// The kind of source is unknown.
    #[error("{0:?} is no source")]
    Unknown(String),
    /// The name is not valid for this kind of source.
    #[error("{name:?} is no {what}")]
    Name {
        /// The kind of name.
        what: &'static str,
        /// The text.
        name: String,
    },
    /// A header that has another meaning, to proxies or to Keystead.
    #[error("`{name}` holds {holds}, and no key")]
    Taken {
        /// The header, in lower case.
        name: String,
        /// What it holds.
        holds: &'static str,
    },
    /// A header that has its own kind of source.
    #[error("`{name}` holds {why}, so write `{instead}`")]
    OwnKind {
        /// The header.
        name: &'static str,
        /// Why the whole header cannot be a key.
        why: &'static str,
        /// The right kind.
        instead: &'static str,
    },
}

impl CredentialSources {
    /// The maximum number of sources. Each costs every request a search.
    pub const MAX: usize = 8;

    pub(super) fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }
}

impl Default for CredentialSources {
    fn default() -> Self {
        Self(vec![
            Source::Authorization("Bearer".to_owned()),
            Source::Header("x-api-key".to_owned()),
        ])
    }
}

impl TryFrom<Vec<String>> for CredentialSources {
    type Error = SourcesError;

    fn try_from(texts: Vec<String>) -> Result<Self, SourcesError> {
        if texts.is_empty() {
            return Err(SourcesError::None);
        }
        if texts.len() > Self::MAX {
            return Err(SourcesError::TooMany(texts.len()));
        }
        let mut sources: Vec<Source> = Vec::with_capacity(texts.len());
        for text in texts {
            let source: Source = text.parse()?;
            if sources.iter().any(|other| other.is_same(&source)) {
                return Err(SourcesError::Twice(source.to_string()));
            }
            sources.push(source);
        }
        Ok(Self(sources))
    }
}

impl From<CredentialSources> for Vec<String> {
    fn from(sources: CredentialSources) -> Self {
        sources.iter().map(ToString::to_string).collect()
    }
}

impl Source {
    /// Whether both find the same values.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            // Schemes are case-insensitive (RFC 9110, 11.1).
            (Self::Authorization(a), Self::Authorization(b)) => a.eq_ignore_ascii_case(b),
            (a, b) => a == b,
        }
    }
}

impl FromStr for Source {
    type Err = SourcesError;

    fn from_str(text: &str) -> Result<Self, SourcesError> {
        let unknown = || SourcesError::Unknown(text.to_owned());
        let (kind, name) = text.split_once(':').ok_or_else(unknown)?;
        let named = |what, is_name: fn(u8) -> bool| {
            let valid =
                !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_name);
            let error = SourcesError::Name { what, name: name.to_owned() };
            if valid { Ok(name.to_owned()) } else { Err(error) }
        };
        match kind {
            "authorization" => named("scheme", is_token).map(Self::Authorization),
            "header" => header(&named("name of a header", is_token)?),
            "query" => named("name of a query parameter", is_parameter).map(Self::Query),
            "cookie" => named("name of a cookie", is_token).map(Self::Cookie),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorization(scheme) => write!(f, "authorization:{scheme}"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

/// Maximum length of a name, in bytes: longer than any in use, and short enough for an error
/// message.
const MAX_NAME_BYTES: usize = 64;

fn header(name: &str) -> Result<Source, SourcesError> {
    match name.to_ascii_lowercase().as_str() {
        "authorization" => Err(SourcesError::OwnKind {
            name: "authorization",
            why: "a scheme too",
            instead: "authorization:SCHEME",
        }),
        "cookie" => Err(SourcesError::OwnKind {
            name: "cookie",
            why: "many cookies",
            instead: "cookie:NAME",
        }),
        name => match reserved_for(name) {
            Some(holds) => Err(SourcesError::Taken { name: name.to_owned(), holds }),
            None => Ok(Source::Header(name.to_owned())),
        },
    }
}

/// Describes the content of a header that cannot be a source: proxies write it, or it shapes the
/// response, so a key in it would be lost, or removing it would do harm.
fn reserved_for(name: &str) -> Option<&'static str> {
    match name {
        "host" => Some("the name of the server"),
        "x-forwarded-for" => Some("the addresses of clients"),
        "x-forwarded-uri" | "x-original-uri" => Some("the path that a client asked for"),
        "accept" | "content-type" => Some("a media type"),
        name if name.starts_with("x-keystead-") => Some("what Keystead sets"),
        _ => None,
    }
}

/// A character of a `token` (RFC 9110, 5.6.2), of which names of headers, schemes and cookies
/// consist.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// A character of a query parameter's name: the unreserved ones (RFC 3986, 2.3), which every server
/// decodes alike.
const fn is_parameter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_kind_of_source_is_parsed_and_formatted() {
        for (text, source) in [
            ("authorization:Bearer", Source::Authorization("Bearer".to_owned())),
            ("header:x-api-key", Source::Header("x-api-key".to_owned())),
            ("query:api_key", Source::Query("api_key".to_owned())),
            ("query:a-B.~1", Source::Query("a-B.~1".to_owned())),
            ("cookie:__Host-key", Source::Cookie("__Host-key".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(source.clone()));
            assert_eq!(source.to_string(), text);
        }
        assert_eq!("header:X-Api-Key".parse(), Ok(Source::Header("x-api-key".to_owned())));
    }

    #[test]
    fn equivalent_sources_are_refused() {
        let refused = |texts: [&str; 2]| {
            CredentialSources::try_from(texts.map(str::to_owned).to_vec()).is_err()
        };
        assert!(refused(["authorization:Bearer", "authorization:bearer"]));
        assert!(refused(["header:a", "header:A"]));
        assert!(!refused(["cookie:a", "cookie:A"]));
        assert!(!refused(["query:a", "cookie:a"]));
    }

    #[test]
    fn header_with_another_meaning_is_refused() {
        for (name, message) in [
            ("x-keystead-key-id", "what Keystead sets"),
            ("X-Keystead-Anything", "what Keystead sets"),
            ("Host", "the name of the server"),
            ("x-forwarded-for", "the addresses of clients"),
            ("x-forwarded-uri", "the path"),
            ("x-original-uri", "the path"),
            ("accept", "a media type"),
            ("content-type", "a media type"),
            ("Authorization", "write `authorization:SCHEME`"),
            ("cookie", "write `cookie:NAME`"),
        ] {
            let error = format!("header:{name}").parse::<Source>().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        for name in ["x-keystead", "x-host", "accept-key"] {
            assert!(format!("header:{name}").parse::<Source>().is_ok(), "{name}");
        }
    }

    #[test]
    fn parameter_that_servers_may_decode_differently_is_refused() {
        for name in ["key[0]", "a b", "a;b", "a%62", "a+b", "schlüssel", "a/b", "", "a,b"] {
            assert!(format!("query:{name}").parse::<Source>().is_err(), "{name}");
        }
    }

    #[test]
    fn name_length_is_limited() {
        let long = |len: usize| format!("cookie:{}", "x".repeat(len)).parse::<Source>();
        assert!(long(MAX_NAME_BYTES).is_ok());
        assert!(long(MAX_NAME_BYTES + 1).is_err());
    }

    proptest! {
        #[test]
        fn every_parsed_list_is_formatted_so_that_it_parses_again(
            texts in prop::collection::vec("(authorization|header|query|cookie)?:?\\PC{0,6}", 0..4),
        ) {
            if let Ok(sources) = CredentialSources::try_from(texts) {
                let written = Vec::from(sources.clone());
                prop_assert_eq!(CredentialSources::try_from(written), Ok(sources));
            }
        }
    }
}
