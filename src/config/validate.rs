//! Constraints on settings beyond their types and bounds.

use std::net::SocketAddr;

use super::{Config, Problem, sources::Doubtful};
use crate::store::{StoreUrl, postgres::Relation};

/// A constraint.
struct Rule {
    /// The settings it involves. It is skipped if one of them could not be read, as the
    /// message would then be about a default.
    keys: &'static [&'static str],
    /// The problem and its remedy, if the constraint is violated.
    problem: fn(&Config) -> Option<String>,
}

const RULES: [Rule; 14] = [
    Rule { keys: &["listen.grpc", "listen.admin"], problem: admin_takes_the_data_port },
    Rule { keys: &["listen.grpc", "listen.control"], problem: control_takes_the_data_port },
    Rule { keys: &["listen.admin", "listen.control"], problem: control_takes_the_admin_port },
    Rule { keys: &["listen.grpc", "listen.forward_auth"], problem: auth_takes_the_data_port },
    Rule { keys: &["listen.admin", "listen.forward_auth"], problem: auth_takes_the_admin_port },
    Rule { keys: &["listen.control", "listen.forward_auth"], problem: auth_takes_the_control_port },
    Rule { keys: &["store.url", "store.relation"], problem: relation_without_postgres },
    Rule { keys: &["store.relation"], problem: relation_is_no_name },
    Rule { keys: &["keys.secret_file"], problem: secret_in_place_of_its_file },
    Rule { keys: &["store.guard.query_timeout", "check.timeout"], problem: query_outlives_check },
    Rule {
        keys: &["store.guard.breaker.slow_call", "store.guard.query_timeout"],
        problem: no_call_is_slow,
    },
    Rule {
        keys: &["store.guard.breaker.open_for", "store.guard.breaker.max_open_for"],
        problem: first_pause_is_too_long,
    },
    Rule { keys: &["drain.delay", "drain.timeout"], problem: drain_ends_in_its_delay },
    Rule { keys: &["log.filter"], problem: filter_cannot_be_read },
];

/// The problem with one setting, regardless of the others.
pub(super) fn alone(key: &str, config: &Config) -> Option<String> {
    let mut rules = RULES.iter().filter(|rule| rule.keys == [key]);
    rules.find_map(|rule| (rule.problem)(config))
}

/// The problems between settings.
pub(super) fn across(config: &Config, doubtful: &Doubtful) -> Vec<Problem> {
    let known = |key: &&str| !doubtful.all && !doubtful.keys.contains(key);
    RULES
        .iter()
        .filter(|rule| rule.keys.len() > 1 && rule.keys.iter().all(known))
        .filter_map(|rule| (rule.problem)(config))
        .map(Problem::new)
        .collect()
}

fn admin_takes_the_data_port(Config { listen, .. }: &Config) -> Option<String> {
    collide(("listen.grpc", listen.grpc), ("listen.admin", listen.admin))
}

fn control_takes_the_data_port(Config { listen, .. }: &Config) -> Option<String> {
    collide(("listen.grpc", listen.grpc), ("listen.control", listen.control?))
}

fn control_takes_the_admin_port(Config { listen, .. }: &Config) -> Option<String> {
    collide(("listen.admin", listen.admin), ("listen.control", listen.control?))
}

fn auth_takes_the_data_port(Config { listen, .. }: &Config) -> Option<String> {
    collide(("listen.grpc", listen.grpc), ("listen.forward_auth", listen.forward_auth?))
}

fn auth_takes_the_admin_port(Config { listen, .. }: &Config) -> Option<String> {
    collide(("listen.admin", listen.admin), ("listen.forward_auth", listen.forward_auth?))
}

fn auth_takes_the_control_port(Config { listen, .. }: &Config) -> Option<String> {
    collide(("listen.control", listen.control?), ("listen.forward_auth", listen.forward_auth?))
}

fn collide((a_key, a): (&str, SocketAddr), (b_key, b): (&str, SocketAddr)) -> Option<String> {
    let same_port = a.port() == b.port() && a.port() != 0;
    let same_address = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    (same_port && same_address).then(|| {
        format!("`{a_key}` ({a}) and `{b_key}` ({b}) are the same port; give one of them another")
    })
}

fn relation_without_postgres(config: &Config) -> Option<String> {
    let sqlite = matches!(config.store.url, StoreUrl::Sqlite { .. });
    (sqlite && config.store.relation.is_some()).then(|| {
        let url = &config.store.url;
        format!(
            "`store.relation` needs PostgreSQL, but `store.url` is {url}; unset `store.relation` or set `store.url` to `postgres://…`"
        )
    })
}

fn relation_is_no_name(config: &Config) -> Option<String> {
    let relation = config.store.relation.as_ref()?;
    Relation::parse(relation).is_none().then(|| {
        let max = Relation::MAX_LEN;
        format!(
            "`store.relation` is {relation:?}; write `NAME` or `SCHEMA.NAME`, each of 1 to {max} bytes, in double quotes where SQL needs them"
        )
    })
}

fn secret_in_place_of_its_file(config: &Config) -> Option<String> {
    let path = config.keys.secret_file.as_ref()?.to_str()?;
    let secret = path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit());
    secret.then(|| {
        "`keys.secret_file` is a secret itself; write it to a file and set `keys.secret_file` to \
         the path of that"
            .to_owned()
    })
}

fn query_outlives_check(config: &Config) -> Option<String> {
    let (query, check) = (config.store.guard.query_timeout, config.check.timeout);
    (query >= check).then(|| {
        let [query, check] = [query, check].map(humantime::format_duration);
        format!(
            "`store.guard.query_timeout` ({query}) is not shorter than `check.timeout` ({check}), so that a check could not say why it fails; shorten the one or lengthen the other"
        )
    })
}

fn no_call_is_slow(config: &Config) -> Option<String> {
    let (slow, query) = (config.store.guard.breaker.slow_call?, config.store.guard.query_timeout);
    (slow >= query).then(|| {
        let [slow, query] = [slow, query].map(humantime::format_duration);
        format!(
            "`store.guard.breaker.slow_call` ({slow}) is not shorter than `store.guard.query_timeout` ({query}), so that no call would be slow; shorten the one or lengthen the other, or unset the first"
        )
    })
}

fn first_pause_is_too_long(config: &Config) -> Option<String> {
    let breaker = config.store.guard.breaker;
    (breaker.open_for > breaker.max_open_for).then(|| {
        let [first, longest] =
            [breaker.open_for, breaker.max_open_for].map(humantime::format_duration);
        format!(
            "`store.guard.breaker.open_for` ({first}) is longer than `store.guard.breaker.max_open_for` ({longest}); shorten the one or lengthen the other"
        )
    })
}

fn drain_ends_in_its_delay(config: &Config) -> Option<String> {
    let (delay, timeout) = (config.drain.delay, config.drain.timeout);
    (delay >= timeout).then(|| {
        let [delay, timeout] = [delay, timeout].map(humantime::format_duration);
        format!(
            "`drain.delay` ({delay}) is not shorter than `drain.timeout` ({timeout}), so that no time is left to finish; shorten the one or lengthen the other"
        )
    })
}

fn filter_cannot_be_read(config: &Config) -> Option<String> {
    config.log.parsed_filter().err().map(|error| error.to_string())
}
