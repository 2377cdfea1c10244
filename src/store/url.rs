//! `store.url`: engine and location. Its password is never shown.

mod redact;

use std::{fmt, path::PathBuf, str::FromStr};

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// Location of the keys.
///
/// `Display`, `Debug` and `Serialize` show [`StoreUrl::redacted`].
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(
    with = "String",
    description = "Which engine, and where. A password in it is never shown.",
    title = "`sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`",
    extend("pattern" = "^(sqlite:|postgres(ql)?://).+", "writeOnly" = true)
)]
pub enum StoreUrl {
    /// A file, created on first start.
    Sqlite {
        /// Path relative to the working directory.
        path: PathBuf,
    },
    /// URL of a PostgreSQL server. Only its scheme has been checked; the engine parses the
    /// rest, as it knows parameters that the driver does not.
    Postgres(SecretString),
}

/// Not a store URL. Never repeats the text, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// Unknown scheme.
    #[error("it begins with neither `sqlite:` nor `postgres://`")]
    Scheme,
    /// `sqlite:` without a path.
    #[error("it names no file")]
    NoPath,
    /// `sqlite::memory:`.
    #[error(
        "a database in memory would lose every key with the process, and `keystead keys` could not reach it"
    )]
    InMemory,
    /// `sqlite://…` or `sqlite:file:…`.
    #[error("what follows `sqlite:` is a plain path, with no `//` or `file:` before it")]
    NotAPath,
    /// A control character such as a line break.
    #[error("it holds a line break or another control character")]
    ControlCharacter,
    /// `postgres://` without a server.
    #[error("it names no server")]
    NoServer,
}

impl StoreUrl {
    /// The URL without secrets.
    ///
    /// Of a PostgreSQL URL, it shows what is known to be harmless: user, hosts, ports, database
    /// and the connection parameters. The password and every other parameter is `***`; if the
    /// parts cannot be separated with certainty, everything is.
    #[must_use]
    pub fn redacted(&self) -> String {
        match self {
            Self::Sqlite { path } => format!("sqlite:{}", path.display()),
            Self::Postgres(url) => redact::postgres(url.expose_secret()),
        }
    }
}

impl Default for StoreUrl {
    /// `keystead.db` in the working directory.
    fn default() -> Self {
        Self::Sqlite { path: "keystead.db".into() }
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        if text.contains(char::is_control) {
            return Err(StoreUrlError::ControlCharacter);
        }
        if let Some(path) = text.strip_prefix("sqlite:") {
            return sqlite(path);
        }
        let server = redact::SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme));
        match server {
            None => Err(StoreUrlError::Scheme),
            Some("") => Err(StoreUrlError::NoServer),
            Some(_) => Ok(Self::Postgres(text.into())),
        }
    }
}

fn sqlite(path: &str) -> Result<StoreUrl, StoreUrlError> {
    if path.is_empty() {
        return Err(StoreUrlError::NoPath);
    }
    if path.starts_with(":memory:") {
        return Err(StoreUrlError::InMemory);
    }
    // SQLite reads `file:` as a URI with its own parameters; `//` is how other programs write a
    // URL, and would name a file in the root folder.
    if path.starts_with("//") || path.starts_with("file:") {
        return Err(StoreUrlError::NotAPath);
    }
    Ok(StoreUrl::Sqlite { path: path.into() })
}

impl TryFrom<String> for StoreUrl {
    type Error = StoreUrlError;

    fn try_from(text: String) -> Result<Self, StoreUrlError> {
        text.parse()
    }
}

impl Serialize for StoreUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({})", self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn refused(text: &str) -> StoreUrlError {
        text.parse::<StoreUrl>().expect_err(text)
    }

    #[test]
    fn plain_path_is_a_file() {
        for path in ["keystead.db", "./a b.db", "/var/lib/keystead/keystead.db", "ä?x=#1.db"] {
            let url: StoreUrl = format!("sqlite:{path}").parse().unwrap();
            assert!(matches!(&url, StoreUrl::Sqlite { path: read } if read == Path::new(path)));
            assert_eq!(url.to_string(), format!("sqlite:{path}"));
        }
    }

    #[test]
    fn postgres_url_is_kept_unchanged_for_the_engine() {
        for text in [
            "postgres://u:p@h/d?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            "postgresql://h",
            "postgres:///keystead?host=/run/postgresql",
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert!(matches!(&url, StoreUrl::Postgres(url) if url.expose_secret() == text));
        }
    }

    #[test]
    fn neither_file_nor_server_is_refused() {
        for text in ["", "keystead.db", "mysql://u:p@h/d", "postgres:u@h", "SQLITE:a", " sqlite:a"]
        {
            assert_eq!(refused(text), StoreUrlError::Scheme);
        }
        assert_eq!(refused("sqlite:"), StoreUrlError::NoPath);
        assert_eq!(refused("sqlite::memory:"), StoreUrlError::InMemory);
        assert_eq!(refused("sqlite:///keystead.db"), StoreUrlError::NotAPath);
        assert_eq!(refused("sqlite:file:a?mode=memory"), StoreUrlError::NotAPath);
        assert_eq!(refused("postgresql://"), StoreUrlError::NoServer);
        assert_eq!(refused("postgres://h/d\n"), StoreUrlError::ControlCharacter);
        assert_eq!(refused("sqlite:a\0b"), StoreUrlError::ControlCharacter);
    }

    #[test]
    fn password_is_hidden_in_every_representation() {
        let url: StoreUrl = "postgres://u:hunter2@h/d?password=hunter2".parse().unwrap();
        let shown = [
            url.to_string(),
            format!("{url:?}"),
            format!("{url:#?}"),
            serde_json::to_string(&url).unwrap(),
        ];
        for shown in shown {
            assert!(
                !shown.contains("hunter2") && shown.contains("postgres://u:***@h/d"),
                "{shown}"
            );
        }
    }
}
