mod hostile;
mod messages;

use std::{fs, time::Duration};

use tempfile::TempDir;

use super::{
    settings::{Setting, Settings},
    *,
};
use crate::{store::StoreUrl, telemetry::LogFormat};

/// A directory with a file `k.toml`, and that file as a source.
fn file(text: impl AsRef<[u8]>) -> (TempDir, Sources) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("k.toml");
    fs::write(&path, text).unwrap();
    (directory, Sources::default().with_file(path))
}

fn environment(variables: &[(&str, &str)]) -> Sources {
    Sources::default().with_environment(variables.iter().copied())
}

/// One line for each problem, without the directory of the file.
fn problems(sources: &Sources) -> Vec<String> {
    let errors = Config::load(sources).expect_err("the configuration is invalid").to_string();
    errors.lines().map(|line| line.split("/k.toml").last().unwrap().trim().to_owned()).collect()
}

fn problems_of_file(text: &str) -> Vec<String> {
    let (_directory, sources) = file(text);
    problems(&sources)
}

fn problems_of_environment(variables: &[(&str, &str)]) -> Vec<String> {
    problems(&environment(variables))
}

#[test]
fn defaults_apply_without_any_source() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config.to_toml().unwrap(), Config::default().to_toml().unwrap());
    assert_eq!(config.listen.grpc.to_string(), "127.0.0.1:50051");
    assert_eq!(config.store.url.to_string(), "sqlite:keystead.db");
    assert_eq!(config.check.timeout, Duration::from_millis(150));
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let (_directory, file) = file(
        "[check]\ntimeout = \"201ms\"\nmax_waiting = 1\n[fill]\nmax_queued = 2\n[log]\nformat = \"json\"",
    );
    let sources = file
        .with_environment([
            ("KEYSTEAD_CHECK__TIMEOUT", "202ms"),
            ("KEYSTEAD_CHECK__MAX_WAITING", "3"),
        ])
        .with_override("check.timeout", "203ms");
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.check.timeout, Duration::from_millis(203));
    assert_eq!(config.check.max_waiting.get(), 3);
    assert_eq!(config.fill.max_queued.get(), 2);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn every_setting_can_be_set_from_every_source() {
    for setting in Settings::all().iter() {
        let key = &setting.key;
        // Settings without a default are names, durations, or addresses.
        let example = match key.as_str() {
            "store.guard.breaker.slow_call" => "\"50ms\"",
            "grpc.workers" => "4",
            "keys.retired_secrets" => "[\"0011223344556677\"]",
            "listen.control" | "listen.forward_auth" => "\"127.0.0.1:50052\"",
            _ => "\"name\"",
        };
        // The environment cannot set a list to empty.
        let default = setting.default.clone().filter(|default| default != "[]");
        let value = default.unwrap_or_else(|| example.to_owned());
        let text = if value.starts_with('[') {
            value.replace(['[', ']', '"'], "")
        } else {
            value.trim_matches('"').to_owned()
        };
        let text = text.as_str();
        let (_directory, file) = file(format!("{key} = {value}"));
        for mut sources in [
            file,
            environment(&[(&setting.variable(), text)]),
            Sources::default().with_override(key, text),
        ] {
            if key == "store.relation" {
                sources = sources.with_override("store.url", "postgres://h");
            }
            let loaded = Config::load(&sources);
            assert!(loaded.is_ok(), "{key}: {loaded:?}");
        }
    }
}

#[test]
fn text_setting_accepts_text_that_looks_like_a_number() {
    let sources = environment(&[
        ("KEYSTEAD_KEYS__PREFIX", "ks1"),
        ("KEYSTEAD_STORE__URL", "postgres://h"),
        ("KEYSTEAD_STORE__RELATION", "true"),
        ("KEYSTEAD_KEYS__SECRET_FILE", "123"),
    ]);
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.keys.prefix.as_str(), "ks1");
    assert_eq!(config.store.relation.as_deref(), Some("true"));
    assert_eq!(config.keys.secret_file, Some("123".into()));
}

#[test]
fn list_reads_the_same_from_file_variable_and_flag() {
    let (_directory, file) =
        file("[credential]\nsources = [\n  \"query:k\", # first\n  'header:X-Key',\n]");
    let text = "query:k,header:X-Key";
    for sources in [
        file,
        environment(&[("KEYSTEAD_CREDENTIAL__SOURCES", text)]),
        environment(&[("KEYSTEAD_CREDENTIAL__SOURCES", " query:k , header:X-Key ")]),
        Sources::default().with_override("credential.sources", text),
    ] {
        let config = Config::load(&sources).unwrap();
        let toml = config.to_toml().unwrap();
        assert!(toml.contains("sources = [\"query:k\", \"header:x-key\"]"), "{toml}");
    }
}

#[test]
fn overriding_a_list_replaces_it() {
    let (_directory, file) = file("credential.sources = ['query:a', 'query:b', 'query:c']");
    let sources = file.with_environment([("KEYSTEAD_CREDENTIAL__SOURCES", "cookie:k")]);
    let toml = Config::load(&sources).unwrap().to_toml().unwrap();
    assert!(toml.contains("sources = [\"cookie:k\"]"), "{toml}");
}

#[test]
fn relation_with_capitals_and_spaces_is_quoted() {
    let (_directory, file) = file("store.relation = '\"Billing\".\"API Keys\"'");
    let sources =
        file.with_override("store.url", "postgres://h").with_override("keys.secret_file", "secret");
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.store.relation.as_deref(), Some(r#""Billing"."API Keys""#));
}

#[test]
fn loading_without_a_secret_file_succeeds() {
    assert!(Config::load(&environment(&[("KEYSTEAD_STORE__URL", "postgres://h")])).is_ok());
}

#[test]
fn service_variables_of_kubernetes_are_ignored() {
    let sources = environment(&[
        ("KEYSTEAD_SERVICE_HOST", "10.0.0.11"),
        ("KEYSTEAD_SERVICE_PORT", "50051"),
        ("KEYSTEAD_SERVICE_PORT_GRPC", "50051"),
        ("KEYSTEAD__BLUE_SERVICE_HOST", "10.0.0.13"),
        ("KEYSTEAD_PORT", "tcp://10.0.0.11:50051"),
        ("KEYSTEAD_PORT_50051_TCP", "tcp://10.0.0.11:50051"),
        ("KEYSTEAD_PORT_50051_TCP_PROTO", "tcp"),
        ("KEYSTEAD_PORT_50051_TCP_PORT", "50051"),
        ("KEYSTEAD_PORT_50051_TCP_ADDR", "10.0.0.11"),
        ("KEYSTEAD_POSTGRESQL_SERVICE_HOST", "10.0.0.12"),
        ("KEYSTEAD_POSTGRESQL_SERVICE_PORT", "5432"),
        ("KEYSTEAD_POSTGRESQL_PORT", "tcp://10.0.0.12:5432"),
        ("KEYSTEAD_POSTGRESQL_PORT_5432_TCP_ADDR", "10.0.0.12"),
    ]);
    assert!(Config::load(&sources).is_ok(), "{:?}", Config::load(&sources));
}

#[test]
fn config_file_variable_and_foreign_variables_are_ignored() {
    let sources = environment(&[
        ("KEYSTEAD_CONFIG", "/does/not/exist"),
        ("KEYSTEADFAST", "1"),
        ("keystead_store__url", "x"),
        ("PATH", "/bin"),
    ]);
    assert!(Config::load(&sources).is_ok());
}

#[test]
fn all_listeners_may_use_port_zero() {
    let sources = environment(&[
        ("KEYSTEAD_LISTEN__GRPC", "127.0.0.1:0"),
        ("KEYSTEAD_LISTEN__ADMIN", "127.0.0.1:0"),
        ("KEYSTEAD_LISTEN__CONTROL", "127.0.0.1:0"),
        ("KEYSTEAD_LISTEN__FORWARD_AUTH", "127.0.0.1:0"),
    ]);
    assert!(Config::load(&sources).is_ok());
}

#[test]
fn effective_configuration_round_trips() {
    let sources = environment(&[
        ("KEYSTEAD_STORE__URL", "postgres://keystead@db:5432/keystead?sslmode=verify-full"),
        ("KEYSTEAD_STORE__RELATION", "legacy.api_keys"),
        ("KEYSTEAD_KEYS__SECRET_FILE", "/run/secrets/\"k\"/ä.secret"),
        ("KEYSTEAD_LISTEN__GRPC", "[::]:50051"),
        ("KEYSTEAD_CACHE__FRESH_FOR", "1m 30s 5ms"),
        ("KEYSTEAD_LOG__FILTER", "warn,keystead=debug"),
        ("KEYSTEAD_CREDENTIAL__SOURCES", "cookie:key, query:Key"),
    ]);
    let toml = Config::load(&sources).unwrap().to_toml().unwrap();
    let (_directory, sources) = file(&toml);
    let again = Config::load(&sources).unwrap();
    assert_eq!(again.to_toml().unwrap(), toml);
    assert!(matches!(again.store.url, StoreUrl::Postgres(_)));
    assert_eq!(again.cache.fresh_for, Duration::from_millis(90_005));
}

#[test]
fn toml_and_debug_redact_the_password() {
    let sources = environment(&[
        ("KEYSTEAD_STORE__URL", "postgres://u:hunter2@h/d?password=hunter2"),
        ("KEYSTEAD_KEYS__SECRET_FILE", "secret"),
    ]);
    let config = Config::load(&sources).unwrap();
    let toml = config.to_toml().unwrap();
    assert!(toml.contains("url = \"postgres://u:***@h/d?password=***\""), "{toml}");
    assert!(!toml.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
}

/// The dotted keys of all values in a table.
fn keys_of(table: &toml::Table, above: &str) -> Vec<String> {
    let keys = table.iter().flat_map(|(name, value)| match value.as_table() {
        Some(table) => keys_of(table, &format!("{above}{name}.")),
        None => vec![format!("{above}{name}")],
    });
    keys.collect()
}

#[test]
fn settings_list_matches_the_structs() {
    let defaults = Config::default().to_toml().unwrap().parse().unwrap();
    let mut in_structs = keys_of(&defaults, "");
    let not_set = [
        "grpc.workers",
        "keys.secret_file",
        "listen.control",
        "listen.forward_auth",
        "snapshot.path",
        "store.relation",
        "store.guard.breaker.slow_call",
    ];
    in_structs.extend(not_set.map(str::to_owned));
    in_structs.sort();
    let mut listed: Vec<_> = Settings::all().iter().map(|setting| setting.key.clone()).collect();
    listed.sort();
    assert_eq!(listed, in_structs);
}
