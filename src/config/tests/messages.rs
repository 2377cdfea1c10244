//! Messages about invalid configurations.

use super::*;

#[test]
fn all_problems_are_reported_at_once_with_source_and_remedy() {
    let (_directory, file) = file(
        "[cache]\nfresh_fro = \"1s\"\nmax_entries = 0\n\n[check]\ntimeout = 5\n[drain]\ndelay = \"40s\"\n",
    );
    let sources = file
        .with_environment([("KEYSTEAD_STORE_URL", "sqlite:a"), ("KEYSTEAD_LISTEN__GRPC", "here")])
        .with_override("store.guard.query_timeout", "9s")
        .with_override("store.uri", "sqlite:a");
    assert_eq!(
        problems(&sources),
        [
            "line 2: `cache.fresh_fro` is no setting; did you mean `cache.fresh_for`?",
            "line 3: `cache.max_entries` is 0; write a whole number from 1 to 100000000",
            "line 6: `check.timeout` is 5; write a length of time from `1ms` to `1m`",
            "KEYSTEAD_LISTEN__GRPC: `listen.grpc` is \"here\": invalid socket address syntax; write an IP address and a port such as `127.0.0.1:50051`",
            "KEYSTEAD_STORE_URL is no setting; did you mean KEYSTEAD_STORE__URL?",
            "command line: `store.uri` is no setting; did you mean `store.url`?",
            "`drain.delay` (40s) is not shorter than `drain.timeout` (30s), so that no time is left to finish; shorten the one or lengthen the other",
        ]
    );
}

#[test]
fn unknown_key_names_the_most_similar_setting() {
    for (key, nearest) in [
        ("cache.fresh_fro", "cache.fresh_for"),
        ("cach.fresh_for", "cache.fresh_for"),
        ("fresh_for", "cache.fresh_for"),
        ("store.max_in_flight", "store.guard.max_in_flight"),
        ("check.waiting", "check.max_waiting"),
        ("listen.rpc", "listen.grpc"),
        ("store.query_timeout", "store.guard.query_timeout"),
        ("keys.secret-file", "keys.secret_file"),
        ("drain.timout", "drain.timeout"),
        ("log.level", "log.filter"),
    ] {
        let problem = problems_of_file(&format!("{key} = 1")).remove(0);
        assert_eq!(problem, format!("line 1: `{key}` is no setting; did you mean `{nearest}`?"));
    }
}

#[test]
fn quoted_key_is_not_a_dotted_key() {
    let problem = problems_of_file("\"store.url\" = \"sqlite:a\"\n").remove(0);
    assert!(
        problem.starts_with("line 1: `\"store.url\"` is no setting; did you mean"),
        "{problem}"
    );
}

#[test]
fn value_of_a_wrong_type_or_out_of_range_is_refused() {
    for (text, problem) in [
        ("store = 5", "`store` is a section; write `[store]` and its settings in the lines below"),
        ("[[store]]", "`store` is a section; write `[store]` and its settings in the lines below"),
        (
            "cache.fresh_for.secs = 1",
            "`cache.fresh_for` is a table; write a length of time from `1ms` to `1day`",
        ),
        ("log.format = 1", "`log.format` is 1; write one of `auto`, `pretty`, `json`"),
        (
            "log.format = \"JSON\"",
            "`log.format` is \"JSON\"; write one of `auto`, `pretty`, `json`",
        ),
        (
            "keys.accept_imported = \"true\"",
            "`keys.accept_imported` is \"true\"; write `true` or `false`",
        ),
        (
            "keys.prefix = \"KS\"",
            "`keys.prefix` is \"KS\": a key prefix is 1 to 16 lower-case letters and digits and begins with a letter; write a prefix such as `ks`",
        ),
        ("keys.prefix = 1979-05-27", "`keys.prefix` is 1979-05-27; write a prefix such as `ks`"),
        ("store.relation = 123", "`store.relation` is 123; write a name such as `public.api_keys`"),
        (
            "store.guard.breaker.failure_ratio = 0",
            "`store.guard.breaker.failure_ratio` is 0; write a number from 0.01 to 1",
        ),
        (
            "store.guard.breaker.failure_ratio = 1.5",
            "`store.guard.breaker.failure_ratio` is 1.5; write a number from 0.01 to 1",
        ),
        (
            "store.guard.breaker.failure_ratio = nan",
            "`store.guard.breaker.failure_ratio` is NaN; write a number from 0.01 to 1",
        ),
        (
            "store.guard.breaker.slow_ratio = \"half\"",
            "`store.guard.breaker.slow_ratio` is \"half\"; write a number from 0.01 to 1",
        ),
        (
            "fill.max_queued = 1.5",
            "`fill.max_queued` is 1.5; write a whole number from 1 to 1000000",
        ),
        ("fill.max_queued = -1", "`fill.max_queued` is -1; write a whole number from 1 to 1000000"),
        (
            "fill.max_queued = [1]",
            "`fill.max_queued` is [1]; write a whole number from 1 to 1000000",
        ),
        (
            "fill.max_queued = 99999999999999999999",
            "`fill.max_queued` is 99999999999999999999; write a whole number from 1 to 1000000",
        ),
        (
            "grpc.max_header_bytes = 0x400000",
            "`grpc.max_header_bytes` is 4194304; write a whole number from 1024 to 1048576",
        ),
        (
            "cache.fresh_for = \"0s\"",
            "`cache.fresh_for` is \"0s\"; write a length of time from `1ms` to `1day`",
        ),
        (
            "check.timeout = \"soon\"",
            "`check.timeout` is \"soon\"; write a length of time from `1ms` to `1m`",
        ),
    ] {
        assert_eq!(problems_of_file(text), [format!("line 1: {problem}")]);
    }
}

#[test]
fn invalid_credential_source_is_named_with_the_valid_forms() {
    let expected = "a list of `authorization:SCHEME`, `header:NAME`, `query:NAME` or `cookie:NAME`";
    for (sources, problem) in [
        ("\"header:x-api-key\"", "is \"header:x-api-key\""),
        ("{}", "is a table"),
        ("[1]", "is [1]"),
        ("[['header:a']]", "is [[\"header:a\"]]"),
        ("[]", "is []: there is none"),
        ("['']", "is [\"\"]: \"\" is no source"),
        ("['header']", "is [\"header\"]: \"header\" is no source"),
        ("['header:a', 'body:b']", "is [\"header:a\", \"body:b\"]: \"body:b\" is no source"),
        ("['header:a b']", "is [\"header:a b\"]: \"a b\" is no name of a header"),
        (
            "['header:Authorization']",
            "is [\"header:Authorization\"]: `authorization` holds a scheme too, so write `authorization:SCHEME`",
        ),
        (
            "['header:cookie']",
            "is [\"header:cookie\"]: `cookie` holds many cookies, so write `cookie:NAME`",
        ),
        ("['authorization:']", "is [\"authorization:\"]: \"\" is no scheme"),
        ("['cookie:a=b']", "is [\"cookie:a=b\"]: \"a=b\" is no name of a cookie"),
        ("['query:']", "is [\"query:\"]: \"\" is no name of a query parameter"),
        ("['header:a', 'header:A']", "is [\"header:a\", \"header:A\"]: `header:a` is there twice"),
    ] {
        assert_eq!(
            problems_of_file(&format!("credential.sources = {sources}")),
            [format!("line 1: `credential.sources` {problem}; write {expected}")]
        );
    }
    let nine = (0..9).map(|i| format!("query:{i}")).collect::<Vec<_>>().join(",");
    let problems = problems_of_environment(&[("KEYSTEAD_CREDENTIAL__SOURCES", &nine)]);
    assert!(
        problems[0].contains("\"query:6\", \"q…: there are 9, and 8 are allowed;"),
        "{problems:?}"
    );
}

#[test]
fn invalid_value_is_an_error_even_if_overridden() {
    let (_directory, file) = file("fill.max_queued = 0");
    let sources = file.with_override("fill.max_queued", "5");
    assert_eq!(problems(&sources).len(), 1);
}

#[test]
fn unknown_variable_names_the_most_similar_setting() {
    for (name, nearest) in [
        ("KEYSTEAD_STORE_URL", "KEYSTEAD_STORE__URL"),
        ("KEYSTEAD_STORE_GUARD_QUERY_TIMEOUT", "KEYSTEAD_STORE__GUARD__QUERY_TIMEOUT"),
        ("KEYSTEAD_STORE__GUARD_MAX_IN_FLIGHT", "KEYSTEAD_STORE__GUARD__MAX_IN_FLIGHT"),
        ("KEYSTEAD_keys__prefix", "KEYSTEAD_KEYS__PREFIX"),
        ("KEYSTEAD_CACHE__FRESH", "KEYSTEAD_CACHE__FRESH_FOR"),
    ] {
        let problem = format!("{name} is no setting; did you mean {nearest}?");
        assert_eq!(problems_of_environment(&[(name, "1")]), [problem]);
    }
    assert_eq!(problems_of_environment(&[("KEYSTEAD_", "1")]).len(), 1);
    // A mistake of the operator, not a variable of Kubernetes.
    assert_eq!(problems_of_environment(&[("KEYSTEAD_LISTEN_PORT", "8080")]).len(), 1);
}

#[test]
fn empty_variable_is_an_error() {
    assert_eq!(
        problems_of_environment(&[("KEYSTEAD_STORE__URL", "")]),
        ["KEYSTEAD_STORE__URL: `store.url` is empty; unset it or give it a value"]
    );
}

#[cfg(unix)]
#[test]
fn variable_that_is_not_utf8_is_an_error() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let sources = Sources::default().with_environment([
        (OsStr::new("KEYSTEAD_LOG__FILTER"), OsStr::from_bytes(b"\xff")),
        (OsStr::from_bytes(b"KEYSTEAD_\xff"), OsStr::new("1")),
        (OsStr::from_bytes(b"OTHER_\xff"), OsStr::from_bytes(b"\xff")),
    ]);
    let problems = problems(&sources);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("KEYSTEAD_LOG__FILTER: `log.filter` is not UTF-8; write"));
}

#[test]
fn unreadable_file_is_named_with_the_cause() {
    let directory = tempfile::tempdir().unwrap();
    let missing = problems(&Sources::default().with_file(directory.path().join("k.toml")));
    assert!(missing[0].starts_with(": cannot be read: No such file"), "{missing:?}");

    let is_directory = problems(&Sources::default().with_file(directory.path()));
    assert!(is_directory[0].contains("cannot be read: Is a directory"), "{is_directory:?}");

    let (_directory, sources) = file(b"# \xff");
    assert_eq!(
        problems(&sources),
        [": cannot be read: it is not UTF-8; name a TOML file that can"]
    );

    let (_directory, sources) = file(vec![b'\n'; (1 << 20) + 1]);
    assert!(problems(&sources)[0].contains("it is longer than 1048576 bytes"));
}

#[test]
fn invalid_toml_names_every_bad_line_without_repeating_it() {
    let problems = problems_of_file("[store]\nurl = \"postgres://u:hunter2@h\n\n[check\n");
    assert!(problems.len() > 1, "{problems:?}");
    assert!(problems[0].starts_with("line 2: this is no TOML: "), "{problems:?}");
    assert!(problems.iter().any(|problem| problem.starts_with("line 4: ")), "{problems:?}");
    assert!(!problems.concat().contains("hunter2"), "{problems:?}");
}

#[test]
fn contradicting_settings_are_refused_with_the_remedy() {
    let postgres = ("KEYSTEAD_STORE__URL", "postgres://h");
    for (variables, problem) in [
        (
            &[("KEYSTEAD_STORE__GUARD__QUERY_TIMEOUT", "150ms")][..],
            "`store.guard.query_timeout` (150ms) is not shorter than `check.timeout` (150ms), so that a check could not say why it fails; shorten the one or lengthen the other",
        ),
        (
            &[("KEYSTEAD_STORE__GUARD__BREAKER__SLOW_CALL", "100ms")],
            "`store.guard.breaker.slow_call` (100ms) is not shorter than `store.guard.query_timeout` (100ms), so that no call would be slow; shorten the one or lengthen the other, or unset the first",
        ),
        (
            &[("KEYSTEAD_STORE__GUARD__BREAKER__OPEN_FOR", "3s")],
            "`store.guard.breaker.open_for` (3s) is longer than `store.guard.breaker.max_open_for` (2s); shorten the one or lengthen the other",
        ),
        (
            &[("KEYSTEAD_DRAIN__TIMEOUT", "5s")],
            "`drain.delay` (5s) is not shorter than `drain.timeout` (5s), so that no time is left to finish; shorten the one or lengthen the other",
        ),
        (
            &[("KEYSTEAD_STORE__RELATION", "keys")],
            "`store.relation` needs PostgreSQL, but `store.url` is sqlite:keystead.db; unset `store.relation` or set `store.url` to `postgres://…`",
        ),
        (
            &[("KEYSTEAD_LISTEN__ADMIN", "127.0.0.1:50051")],
            "`listen.grpc` (127.0.0.1:50051) and `listen.admin` (127.0.0.1:50051) are the same port; give one of them another",
        ),
        (
            &[("KEYSTEAD_LISTEN__ADMIN", "0.0.0.0:50051")],
            "`listen.grpc` (127.0.0.1:50051) and `listen.admin` (0.0.0.0:50051) are the same port; give one of them another",
        ),
        (
            &[("KEYSTEAD_LISTEN__CONTROL", "127.0.0.1:50051")],
            "`listen.grpc` (127.0.0.1:50051) and `listen.control` (127.0.0.1:50051) are the same port; give one of them another",
        ),
        (
            &[("KEYSTEAD_LISTEN__CONTROL", "[::]:9464")],
            "`listen.admin` (127.0.0.1:9464) and `listen.control` ([::]:9464) are the same port; give one of them another",
        ),
        (
            &[("KEYSTEAD_LISTEN__FORWARD_AUTH", "127.0.0.1:9464")],
            "`listen.admin` (127.0.0.1:9464) and `listen.forward_auth` (127.0.0.1:9464) are the same port; give one of them another",
        ),
        (
            &[("KEYSTEAD_LISTEN__FORWARD_AUTH", "0.0.0.0:50051")],
            "`listen.grpc` (127.0.0.1:50051) and `listen.forward_auth` (0.0.0.0:50051) are the same port; give one of them another",
        ),
        (
            &[
                ("KEYSTEAD_LISTEN__CONTROL", "127.0.0.1:1"),
                ("KEYSTEAD_LISTEN__FORWARD_AUTH", "127.0.0.1:1"),
            ],
            "`listen.control` (127.0.0.1:1) and `listen.forward_auth` (127.0.0.1:1) are the same port; give one of them another",
        ),
        (
            &[postgres, ("KEYSTEAD_STORE__RELATION", "a.b.c")],
            "KEYSTEAD_STORE__RELATION: `store.relation` is \"a.b.c\"; write `NAME` or `SCHEMA.NAME`, each of 1 to 63 bytes, in double quotes where SQL needs them",
        ),
        (
            &[postgres, ("KEYSTEAD_STORE__RELATION", "keys;\n")],
            "KEYSTEAD_STORE__RELATION: `store.relation` is \"keys;\\n\"; write `NAME` or `SCHEMA.NAME`, each of 1 to 63 bytes, in double quotes where SQL needs them",
        ),
        (
            &[("KEYSTEAD_LOG__FILTER", "keystead=loud")],
            "KEYSTEAD_LOG__FILTER: log.filter is no filter: error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5; write a level such as `info`, or `info,keystead=debug`",
        ),
    ] {
        assert_eq!(problems_of_environment(variables), [problem]);
    }
}

#[test]
fn constraints_on_unreadable_settings_are_skipped() {
    // Compared with the default of `check.timeout`, this would be too long.
    let problems = problems_of_environment(&[
        ("KEYSTEAD_STORE__GUARD__QUERY_TIMEOUT", "200ms"),
        ("KEYSTEAD_CHECK__TIMEOUT", "300"),
    ]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    // The unreadable file may set `store.url`.
    let (_directory, file) = file("[check");
    let problems =
        super::tests::problems(&file.with_environment([("KEYSTEAD_STORE__RELATION", "keys")]));
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn problems_never_repeat_a_secret() {
    let hex = "5eed".repeat(16);
    let (_list, list) = file("store.url = [\"postgres://u:hunter2@h\"]");
    let (_quotes, no_quotes) = file("store.url = postgres://u:hunter2@h");
    let (_twice, twice) = file("store.url = \"hunter2\"\nstore.url = \"hunter2\"");
    for sources in [
        list,
        no_quotes,
        twice,
        environment(&[("KEYSTEAD_STORE__URL", "mysql://u:hunter2@h")]),
        environment(&[("KEYSTEAD_STORE_URL", "postgres://u:hunter2@h")]),
        environment(&[
            ("KEYSTEAD_STORE__URL", "postgres://u:hunter2@h"),
            ("KEYSTEAD_STORE__RELATION", "a.b.c"),
        ]),
        environment(&[("KEYSTEAD_STORE__URL", "postgres://u:hunter2@h\n")]),
        environment(&[("KEYSTEAD_KEYS__SECRET_FILE", &hex)]),
        Sources::default().with_override("store.url", "hunter2"),
    ] {
        let problems = problems(&sources);
        let problems = problems.concat();
        assert!(!problems.contains("hunter2") && !problems.contains("5eed"), "{problems}");
    }
}

#[test]
fn problem_is_one_line_for_any_name() {
    let problems = problems_of_file("\"a\\nb\\u001b\" = 1");
    assert_eq!(problems.len(), 1, "{problems:?}");
    let directory = tempfile::tempdir().unwrap();
    let errors = Config::load(&Sources::default().with_file(directory.path().join("a\nb")));
    assert_eq!(errors.unwrap_err().to_string().lines().count(), 1);
}
