//! Guarantees of every command.

use crate::harness::keystead::Keystead;

/// Every command, down to the last word.
const COMMANDS: [&[&str]; 18] = [
    &[],
    &["serve"],
    &["check"],
    &["health"],
    &["migrate"],
    &["backup"],
    &["config"],
    &["keys"],
    &["keys", "create"],
    &["keys", "list"],
    &["keys", "show"],
    &["keys", "disable"],
    &["keys", "enable"],
    &["keys", "revoke"],
    &["keys", "rotate"],
    &["keys", "import"],
    &["keys", "export"],
    &["keys", "new-secret"],
];

#[tokio::test]
async fn the_help_of_every_command_has_an_example_of_it() {
    let keystead = Keystead::new();
    for command in COMMANDS {
        let help = keystead.run(command.iter().chain(&["--help"])).await.ok();
        let call = format!("keystead {}", command.join(" "));
        let examples = help.split_once("Example").map(|(_, examples)| examples);
        assert!(examples.is_some_and(|e| e.contains(call.trim_end())), "{call}: {help}");
    }
}

#[tokio::test]
async fn unknown_command_or_flag_is_reported_with_the_nearest() {
    let keystead = Keystead::new();
    for (args, said) in [
        (vec!["srve"], "'serve'"),
        (vec!["keys", "lst"], "'list'"),
        (vec!["keys", "list", "--principle", "x"], "'--principal'"),
        (vec!["keys", "show"], "<ID>"),
        (vec!["keys", "import"], "<FILE>"),
        (vec!["keys"], "Usage: keystead keys"),
        (vec![], "Usage: keystead"),
    ] {
        let error = keystead.run(&args).await.failed(1);
        assert!(error.contains(said), "{args:?}: {error}");
    }
}

#[tokio::test]
async fn the_version_is_that_of_the_package() {
    let version = Keystead::new().run(["--version"]).await.ok();
    assert_eq!(version, concat!("keystead ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_is_one_sentence_with_its_file() {
    let keystead = Keystead::new();
    keystead.write("text.db", "this is no database, but long enough to be looked at as one");
    for (store, said) in [
        ("sqlite:text.db", "restore it from a backup"),
        ("sqlite:missing/keystead.db", "there is no store missing/keystead.db"),
        ("mysql://db/keystead", "`store.url`"),
    ] {
        let error = keystead.run(["keys", "list", "--store", store]).await.failed(1);
        assert!(error.starts_with("keystead: ") && error.contains(said), "{error}");
        assert!(!error.contains("panicked") && !error.contains("stack"), "{error}");
    }
    assert!(!keystead.path("missing").exists());
    let create = ["keys", "create", "--principal", "acme", "--store", "sqlite:missing/keystead.db"];
    let error = keystead.run(create).await.failed(1);
    assert!(error.contains("make its directory"), "{error}");
}

#[tokio::test]
async fn a_mistyped_store_is_not_taken_for_an_empty_one_and_a_new_one_is_announced() {
    let keystead = Keystead::new();
    for command in [&["list"][..], &["export"], &["show", "key_x"], &["revoke", "key_x"]] {
        let error = keystead.run(["keys"].iter().chain(command)).await.failed(1);
        assert!(error.contains("there is no store keystead.db"), "{error}");
        assert!(!keystead.path("keystead.db").exists());
    }
    let created = keystead.run(["keys", "create", "--principal", "acme"]).await;
    assert!(created.stderr.contains("there was no store keystead.db, so one is made"), "{created}");
    let again = keystead.run(["keys", "create", "--principal", "acme"]).await;
    assert!(!again.stderr.contains("one is made"), "{again}");
}
