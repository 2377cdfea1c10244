//! What must hold of settings beyond their types and bounds.

use super::{Config, Problem, sources::Doubtful};
use crate::store::{StoreUrl, postgres::Relation};

/// Something that must hold.
struct Rule {
    /// The settings that it is about. It is not asked where one of them could
    /// not be read, as the message would then speak of a default.
    keys: &'static [&'static str],
    /// What is wrong and what to do about it, if it does not hold.
    problem: fn(&Config) -> Option<String>,
}

const RULES: [Rule; 7] = [
    Rule { keys: &["listen.grpc", "listen.admin"], problem: listeners_collide },
    Rule { keys: &["store.url", "store.relation"], problem: relation_without_postgres },
    Rule { keys: &["store.relation"], problem: relation_is_no_name },
    Rule { keys: &["keys.secret_file"], problem: secret_in_place_of_its_file },
    Rule { keys: &["store.guard.query_timeout", "check.timeout"], problem: query_outlives_check },
    Rule { keys: &["drain.delay", "drain.timeout"], problem: drain_ends_in_its_delay },
    Rule { keys: &["log.filter"], problem: filter_cannot_be_read },
];

/// What is wrong with one setting, the others left aside.
pub(super) fn alone(key: &str, config: &Config) -> Option<String> {
    let mut rules = RULES.iter().filter(|rule| rule.keys == [key]);
    rules.find_map(|rule| (rule.problem)(config))
}

/// What is wrong between settings.
pub(super) fn across(config: &Config, doubtful: &Doubtful) -> Vec<Problem> {
    let known = |key: &&str| !doubtful.all && !doubtful.keys.contains(key);
    RULES
        .iter()
        .filter(|rule| rule.keys.len() > 1 && rule.keys.iter().all(known))
        .filter_map(|rule| (rule.problem)(config))
        .map(Problem::bare)
        .collect()
}

fn listeners_collide(config: &Config) -> Option<String> {
    let (grpc, admin) = (config.listen.grpc, config.listen.admin);
    let same_port = grpc.port() == admin.port() && grpc.port() != 0;
    let same_address =
        grpc.ip() == admin.ip() || grpc.ip().is_unspecified() || admin.ip().is_unspecified();
    (same_port && same_address).then(|| {
        format!(
            "`listen.grpc` ({grpc}) and `listen.admin` ({admin}) are the same port; give one of them another"
        )
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
