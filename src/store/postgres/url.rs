//! Parsing of the database URL.
//!
//! The driver knows only three of libpq's `sslmode`s and no `sslrootcert`. This module extracts
//! both and leaves the rest to the driver.

use std::{borrow::Cow, path::PathBuf};

use tokio_postgres::config::{Host, SslMode};

use super::{
    PostgresConfigError,
    tls::{Roots, Verification},
};

/// A parsed URL.
pub(super) struct Target {
    /// Hosts, user, password and the rest, with the driver's share of `sslmode`.
    pub(super) driver: tokio_postgres::Config,
    /// Verification of the server's certificate.
    pub(super) verification: Verification,
}

/// Parses `postgres://…` or `postgresql://…`. No error shows the text, as it contains the
/// password.
pub(super) fn read(text: &str) -> Result<Target, PostgresConfigError> {
    let Split { rest, sslmode, sslrootcert } =
        split(text).ok_or_else(|| PostgresConfigError::url("it is not well-formed"))?;
    let mut driver: tokio_postgres::Config =
        rest.parse().map_err(|error| PostgresConfigError::url(complaint(&error)))?;
    check_hosts(&driver)?;

    let roots = sslrootcert.map(|path| match path.as_str() {
        "system" => Roots::System,
        _ => Roots::File(PathBuf::from(path)),
    });
    let (mode, verification) = meaning(sslmode.as_deref(), roots)?;
    // As with libpq, `sslmode` is ignored over a Unix socket.
    let local = driver.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)))
        && driver.get_hostaddrs().is_empty();
    driver.ssl_mode(if local { SslMode::Disable } else { mode });
    Ok(Target { driver, verification })
}

/// Location of the database: hosts, ports and name. Empty for an invalid URL, which opens no
/// store.
pub(crate) fn place(text: &str) -> Vec<String> {
    const DEFAULT_PORT: u16 = 5432;
    let Ok(Target { driver, .. }) = read(text) else {
        return Vec::new();
    };
    let hosts = driver.get_hosts().iter().map(|host| format!("{host:?}"));
    let addresses = driver.get_hostaddrs().iter().map(ToString::to_string);
    let mut place: Vec<_> = hosts.chain(addresses).collect();
    let ports = match driver.get_ports() {
        [] => vec![DEFAULT_PORT],
        ports => ports.to_vec(),
    };
    place.extend(ports.iter().map(ToString::to_string));
    // The driver, like libpq, defaults the database name to the user name.
    place.extend(driver.get_dbname().or(driver.get_user()).map(str::to_owned));
    place
}

/// Meaning of each `sslmode` in libpq,
/// <https://www.postgresql.org/docs/current/libpq-ssl.html>.
fn meaning(
    sslmode: Option<&str>,
    roots: Option<Roots>,
) -> Result<(SslMode, Verification), PostgresConfigError> {
    let checked = |roots: Option<Roots>| roots.unwrap_or(Roots::System);
    Ok(match sslmode.unwrap_or("prefer") {
        "disable" => (SslMode::Disable, Verification::None),
        "prefer" => (SslMode::Prefer, Verification::None),
        "require" => match roots {
            None => (SslMode::Require, Verification::None),
            Some(roots) => (SslMode::Require, Verification::Chain(roots)),
        },
        "verify-ca" => (SslMode::Require, Verification::Chain(checked(roots))),
        "verify-full" => (SslMode::Require, Verification::ChainAndName(checked(roots))),
        other => return Err(PostgresConfigError::SslMode(other.to_owned())),
    })
}

fn check_hosts(driver: &tokio_postgres::Config) -> Result<(), PostgresConfigError> {
    let (hosts, addresses) = (driver.get_hosts().len(), driver.get_hostaddrs().len());
    if hosts == 0 && addresses == 0 {
        return Err(PostgresConfigError::url("it names no host"));
    }
    if hosts != 0 && addresses != 0 && hosts != addresses {
        return Err(PostgresConfigError::url("`host` and `hostaddr` are not equally many"));
    }
    let ports = driver.get_ports().len();
    if ports > 1 && ports != hosts.max(addresses) {
        return Err(PostgresConfigError::url("hosts and ports are not equally many"));
    }
    Ok(())
}

/// The driver's complaint, without anything that may be part of the password: a password with
/// an unescaped character may be parsed as an option.
fn complaint(error: &tokio_postgres::Error) -> String {
    let said = super::error::chain(error);
    let option = said.split('`').nth(1).unwrap_or_default();
    if said.contains("invalid value for option") {
        format!("the value of `{option}` is not understood")
    } else if said.contains("unknown option") && LIBPQ_ONLY.contains(&option) {
        format!("the option `{option}` is not supported")
    } else {
        "it is not well-formed; characters such as @ : / ? # in a password are written \
         as %40 %3A %2F %3F %23"
            .to_owned()
    }
}

/// Options of libpq that the driver lacks.
const LIBPQ_ONLY: [&str; 17] = [
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "passfile",
    "replication",
    "requirepeer",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcompression",
    "sslcrl",
    "sslkey",
    "sslpassword",
    "sslsni",
];

/// A URL without the two options.
#[derive(Debug, Default, PartialEq, Eq)]
struct Split {
    rest: String,
    sslmode: Option<String>,
    sslrootcert: Option<String>,
}

impl Split {
    /// Extracts a value if its key is one of the two. The last one wins, as with libpq.
    fn take(&mut self, key: &str, value: Cow<'_, str>) -> bool {
        let place = match key {
            "sslmode" => &mut self.sslmode,
            "sslrootcert" => &mut self.sslrootcert,
            _ => return false,
        };
        *place = Some(value.into_owned());
        true
    }
}

/// Finds the query like the driver: the first `?` after the first `@`, which ends the password.
/// `None` if the text is not a URL; the driver would parse it as libpq's `key=value` form.
fn split(text: &str) -> Option<Split> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        return None;
    }
    let authority = text.find('@').unwrap_or(0);
    let Some(mark) = text[authority..].find('?').map(|at| authority + at) else {
        return Some(Split { rest: text.to_owned(), ..Split::default() });
    };
    let mut split = Split::default();
    let mut kept = Vec::new();
    for pair in text[mark + 1..].split('&') {
        let ours = match pair.split_once('=') {
            Some((key, value)) => split.take(key, percent_decoded(value)?),
            None => false,
        };
        if !ours {
            kept.push(pair);
        }
    }
    text[..mark].clone_into(&mut split.rest);
    if !kept.is_empty() {
        split.rest.push('?');
        split.rest.push_str(&kept.join("&"));
    }
    Some(split)
}

fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let (digits, after) = tail.split_at_checked(2)?;
            let mut byte = [0];
            hex::decode_to_slice(digits, &mut byte).ok()?;
            bytes.push(byte[0]);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests;
