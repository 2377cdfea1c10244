//! Redacts what may be secret in a PostgreSQL URL.
//!
//! An allow list: an unforeseen URL is hidden, not leaked.

/// Schemes of a PostgreSQL URL.
pub(super) const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

const HIDDEN: &str = "***";

/// Parameters whose values are not secret. Excludes `options`, which can carry any server
/// setting.
const HARMLESS: [&str; 21] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "port",
    "sslcert",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// Parameters whose names are shown without their values. Any other name may be the rest of a
/// password that contains `&`.
const SECRET: [&str; 5] = ["options", "passfile", "password", "sslkey", "sslpassword"];

/// The URL with `***` for everything that may be secret.
pub(super) fn postgres(url: &str) -> String {
    for scheme in SCHEMES {
        if let Some(rest) = url.strip_prefix(scheme) {
            let rest = location(rest).unwrap_or_else(|| HIDDEN.to_owned());
            return format!("{scheme}{rest}");
        }
    }
    HIDDEN.to_owned()
}

/// `[user[:password]@]hosts[/database][?parameters]`, or `None` if the parts are ambiguous.
fn location(rest: &str) -> Option<String> {
    let (user, rest) = match rest.split_once('@') {
        // The driver ends the password at the first `@`. With a second one, or a `?` before it,
        // other parsers may not.
        Some((_, rest)) if rest.contains('@') => return None,
        Some((user, _)) if user.contains('?') => return None,
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    let (rest, parameters) = match rest.split_once('?') {
        Some((rest, parameters)) => (rest, Some(parameters)),
        None => (rest, None),
    };
    let (hosts, database) = match rest.split_once('/') {
        Some((hosts, database)) => (hosts, Some(database)),
        None => (rest, None),
    };
    if !hosts.split(',').all(is_host) {
        return None;
    }

    let mut shown = String::new();
    if let Some(user) = user {
        match user.split_once(':') {
            Some((user, _)) => shown.extend([user, ":", HIDDEN]),
            None => shown.push_str(user),
        }
        shown.push('@');
    }
    shown.push_str(hosts);
    if let Some(database) = database {
        shown.push('/');
        shown.push_str(if is_plain(database) { database } else { HIDDEN });
    }
    if let Some(parameters) = parameters {
        shown.push('?');
        let parameters: Vec<_> = parameters.split('&').map(parameter).collect();
        shown.push_str(&parameters.join("&"));
    }
    Some(shown)
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`. A non-numeric port is more likely a password
/// without its host.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => match port.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_address = |b: u8| b.is_ascii_alphanumeric() || b"-._%:".contains(&b);
    host.bytes().all(is_address)
        && port.is_none_or(|port| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()))
}

fn parameter(text: &str) -> String {
    match text.split_once('=') {
        Some((name, value)) if HARMLESS.contains(&name) && is_plain(value) => text.to_owned(),
        Some((name, _)) if HARMLESS.contains(&name) || SECRET.contains(&name) => {
            format!("{name}={HIDDEN}")
        }
        Some(_) | None => HIDDEN.to_owned(),
    }
}

/// Whether a text cannot begin another part of a URL or connection string.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%/:,+".contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn url_without_a_secret_is_shown_unchanged() {
        for url in [
            "postgres://db",
            "postgresql://keystead@db.example:5432/keystead",
            "postgres:///keystead?host=/run/postgresql&user=keystead",
            "postgres://k@a:5432,b:5433,[2001:db8::1]:5434/keystead?target_session_attrs=read-write",
            "postgres://k@db/keystead?sslmode=verify-full&sslrootcert=/etc/keystead/ca.pem",
            "postgres://k@%2Frun%2Fpostgresql/keystead",
        ] {
            assert_eq!(postgres(url), url);
        }
    }

    #[test]
    fn password_is_hidden_in_every_position() {
        for (url, shown) in [
            ("postgres://k:hunter2@db/keystead", "postgres://k:***@db/keystead"),
            ("postgres://k:hu:nt/er2#@a:1,b:2/d", "postgres://k:***@a:1,b:2/d"),
            ("postgres://:hunter2@db", "postgres://:***@db"),
            ("postgres://k@db/d?password=hunter2", "postgres://k@db/d?password=***"),
            (
                "postgres://db/d?user=k&sslpassword=hunter2&sslmode=require",
                "postgres://db/d?user=k&sslpassword=***&sslmode=require",
            ),
            ("postgres://db/d?%70assword=hunter2", "postgres://db/d?***"),
            ("postgres://db/d?options=-cx.pw%3Dhunter2", "postgres://db/d?options=***"),
            ("postgres://db/d?user=k;password=hunter2", "postgres://db/d?user=***"),
            ("postgres://db/d?sslmode=require?password=hunter2", "postgres://db/d?sslmode=***"),
            ("postgres://db/d?password=hun&ter2=", "postgres://db/d?password=***&***"),
            ("postgres://db/d?hunter2", "postgres://db/d?***"),
            ("postgres://db/d;password=hunter2", "postgres://db/***"),
        ] {
            assert_eq!(postgres(url), shown);
        }
    }

    #[test]
    fn everything_is_hidden_when_the_parts_are_ambiguous() {
        for url in [
            "postgres://k:hunt@er2@db/d",
            "postgres://k:hunter2",
            "postgres://k:hunt?er2@db/d",
            "postgres://db:5432/d?password=hunt@er2",
            "postgres://k:[hunter2]x",
            "postgres://password=hunter2",
        ] {
            assert_eq!(postgres(url), "postgres://***", "{url}");
        }
    }

    proptest! {
        /// The password consists of characters that occur nowhere else in the URL.
        #[test]
        fn password_of_any_characters_is_hidden(password in "[XYZ@:/?&=#;,%\\[\\] ]{1,12}") {
            for url in [
                format!("postgres://u:{password}@h/d"),
                format!("postgres://u:{password}@h1:1,h2:2/d?sslmode=require"),
                format!("postgres://u@h/d?password={password}"),
                format!("postgres://u@h/d?sslmode=require&password={password}"),
            ] {
                let shown = postgres(&url);
                prop_assert!(!shown.contains(['X', 'Y', 'Z']), "{} gives {}", url, shown);
            }
        }
    }
}
