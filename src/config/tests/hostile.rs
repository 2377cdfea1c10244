//! Loading any input returns a configuration or problems.

use proptest::prelude::*;

use super::*;

#[test]
fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
    for text in [
        format!("{}a = 1", "a.".repeat(300_000)),
        format!("a = {}", "[".repeat(300_000)),
        format!("a = {}", "{a=".repeat(300_000)),
        format!("[{}a]", "a.".repeat(300_000)),
    ] {
        assert!(!problems_of_file(&text).is_empty());
    }
}

/// Texts that reach further into the loader than random ones.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        ".*",
        "[0-9]{1,30}(ns|ms|s|m|day|years)?",
        "(sqlite:|postgres://)[a-z:@/?&=,\\[\\]%]*",
        "[a-z0-9=,\\[\\]{}/:\"*+()]*",
        Just("true".to_owned()),
    ]
}

fn variable() -> impl Strategy<Value = String> {
    let known: Vec<_> = Settings::all().iter().map(Setting::variable).collect();
    prop_oneof![prop::sample::select(known), "KEYSTEAD_[A-Z_0-9]*", "KEYSTEAD_.*"]
}

proptest! {
    #[test]
    fn loading_any_environment_does_not_panic(
        variables in prop::collection::vec((variable(), value()), 0..6),
    ) {
        let sources = Sources::default().with_environment(variables);
        if let Ok(config) = Config::load(&sources) {
            prop_assert!(config.to_toml().is_ok());
        }
    }

    #[test]
    fn loading_any_file_does_not_panic(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "[\\[\\]{}a-z.\"'=\n#0-9:-]{0,80}".prop_map(String::into_bytes),
            (variable(), value()).prop_map(|(name, value)| {
                let key = name.trim_start_matches("KEYSTEAD_").to_lowercase().replace("__", ".");
                format!("{key} = {value}").into_bytes()
            }),
            (variable(), value()).prop_map(|(name, value)| {
                let key = name.trim_start_matches("KEYSTEAD_").to_lowercase().replace("__", ".");
                format!("{key} = {value:?}").into_bytes()
            }),
        ],
    ) {
        let (_directory, sources) = file(bytes);
        if let Err(errors) = Config::load(&sources) {
            prop_assert!(errors.iter().count() > 0);
            prop_assert_eq!(errors.to_string().lines().count(), errors.iter().count());
        }
    }
}
