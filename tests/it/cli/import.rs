//! `keystead keys import`

use std::fmt::Write;

use keystead::key::Digest;
use serde_json::json;

use super::list;
use crate::harness::keystead::{Keystead, Ran};

fn sha256(number: u32) -> String {
    Digest::sha256_of(foreign(number).as_bytes()).to_hex()
}

/// A key that was minted elsewhere.
pub(super) fn foreign(number: u32) -> String {
    format!("legacy-{number:08}")
}

/// A file of CSV with the foreign keys of these numbers.
pub(crate) fn csv(numbers: impl IntoIterator<Item = u32>) -> String {
    let mut file = "sha256,principal,scopes\n".to_owned();
    for number in numbers {
        writeln!(file, "{},acme,read write", sha256(number)).unwrap();
    }
    file
}

#[tokio::test]
async fn csv_and_json_lines_are_imported_with_every_field() {
    let keystead = Keystead::new();
    keystead.write("a.csv", format!(
        "principal,sha256,name,scopes,allowed_networks,audiences,metadata,state,not_before,expires_at\n\
         acme,{},old,read write,10.0.0.0/8 ::1,billing,\"{{\"\"plan\"\":\"\"gold\"\"}}\",disabled,\
         2026-01-01T00:00:00Z,2999-01-01T00:00:00Z\n",
        sha256(1)
    ));
    let record = json!({
        "sha256": sha256(2), "principal": "acme", "name": "old", "scopes": ["read", "write"],
        "allowed_networks": ["10.0.0.0/8", "::1/128"], "audiences": ["billing"],
        "metadata": {"plan": "gold"}, "state": "disabled",
        "not_before": "2026-01-01T00:00:00Z", "expires_at": "2999-01-01T00:00:00Z",
    });
    keystead.write("b.jsonl", format!("{record}\n"));
    assert_eq!(keystead.run(["keys", "import", "a.csv"]).await.ok(), "imported 1 key\n");
    let imported = keystead.run(["keys", "import", "b.jsonl", "--json"]).await.json();
    assert_eq!(imported, json!({"imported": 1, "skipped": 0}));
    for stored in list(&keystead).await {
        for (field, value) in record.as_object().unwrap() {
            assert!(field == "sha256" || &stored[field] == value, "{field}: {stored}");
        }
        assert_eq!((&stored["secret"], &stored["hint"]), (&json!(null), &json!("")));
    }
}

#[tokio::test]
async fn stdin_is_read_for_a_dash() {
    let keystead = Keystead::new();
    let imported = keystead.run_with(["keys", "import", "-"], csv(1..=3)).await.ok();
    assert_eq!(imported, "imported 3 keys\n");
    let error = keystead.run_with(["keys", "import", "-"], "").await.failed(1);
    assert!(error.contains("stdin holds no keys; write a line for each"), "{error}");
}

#[tokio::test]
async fn a_bad_line_is_named_and_nothing_of_the_file_is_imported() {
    let keystead = Keystead::new();
    let mut file = csv(1..=2);
    write!(file, "nonsense,acme,\n{},,\n", sha256(3)).unwrap();
    keystead.write("a.csv", file);
    let error = keystead.run(["keys", "import", "a.csv"]).await.failed(1);
    assert!(error.contains("nothing was imported, as 2 lines of a.csv cannot be"), "{error}");
    assert!(error.contains("  line 4: `sha256`: these 8 characters are not 64 hex"), "{error}");
    assert!(error.contains("  line 5: `principal` is missing"), "{error}");
    assert!(error.contains("--skip-bad"), "{error}");
    assert_eq!(list(&keystead).await.len(), 0);
}

#[tokio::test]
async fn with_skip_bad_the_good_lines_are_imported_and_the_others_listed() {
    let keystead = Keystead::new();
    keystead.run_with(["keys", "import", "-"], csv([2])).await.ok();
    let mut file = csv([1, 2, 3, 1]);
    writeln!(file, "nonsense,acme,").unwrap();
    let run = keystead.run_with(["keys", "import", "-", "--skip-bad", "--json"], file).await;
    assert_eq!(run.clone().json(), json!({"imported": 2, "skipped": 3}));
    for said in [
        "skipped 3 lines\n",
        "  line 3: its key is stored already",
        "  line 5: it repeats the key of line 2",
        "  line 6: `sha256`: these 8 characters",
    ] {
        assert!(run.stderr.contains(said), "{run}");
    }
    assert_eq!(list(&keystead).await.len(), 3);
    // Once more: nothing is left to import, and that is no failure.
    let again = keystead.run_with(["keys", "import", "-", "--skip-bad"], csv(1..=3)).await;
    assert_eq!(again.ok(), "imported 0 keys\n");
}

#[tokio::test]
async fn keys_that_are_stored_already_are_bad_lines_beside_the_others() {
    let keystead = Keystead::new();
    keystead.run_with(["keys", "import", "-"], csv(1..=2)).await.ok();
    let error = keystead.run_with(["keys", "import", "-"], csv([3, 1, 4])).await.failed(1);
    assert!(error.contains("as 1 line of stdin cannot be"), "{error}");
    assert!(error.contains("  line 3: its key is stored already"), "{error}");
    let file = csv([3, 2]) + "nonsense,acme,\n";
    let error = keystead.run_with(["keys", "import", "-"], file).await.failed(1);
    assert!(error.contains("  line 3: its key is stored already"), "{error}");
    assert!(error.contains("  line 4: `sha256`"), "{error}");
    assert_eq!(list(&keystead).await.len(), 2);
}

#[tokio::test]
async fn of_many_bad_lines_the_first_are_printed_and_the_others_counted() {
    let keystead = Keystead::new();
    let file: String = (0..1000).map(|_| "{}\n").collect();
    let error = keystead.run_with(["keys", "import", "-"], file).await.failed(1);
    assert_eq!(error.matches("  line ").count(), 20);
    assert!(error.ends_with("  line 20: `sha256` is missing; write the SHA-256 of the key, 64 hex digits\n  … and 980 more\n"), "{error}");
}

#[tokio::test]
async fn an_unknown_column_or_field_is_an_error_that_names_the_nearest() {
    let keystead = Keystead::new();
    keystead.run(["migrate"]).await.ok();
    let file = csv([1]).replace("scopes", "scope");
    let error = keystead.run_with(["keys", "import", "-"], &file).await.failed(1);
    let said = "keystead: stdin: the column `scope` is not known; did you mean `scopes`?\n";
    assert_eq!(error, said);
    let skipped = keystead.run_with(["keys", "import", "-", "--skip-bad"], &file).await.failed(1);
    assert_eq!(skipped, said, "no line of the file can be good");
    let line = json!({"sha256": sha256(1), "principal": "acme", "expiry": null});
    let error = keystead.run_with(["keys", "import", "-"], line.to_string()).await.failed(1);
    assert!(error.contains("line 1: `expiry` is not known; did you mean `expires_at`?"), "{error}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
    let keystead = Keystead::new();
    for (file, said) in [
        ("missing.csv", "cannot read missing.csv: No such file"),
        (".", "cannot read .: Is a directory"),
    ] {
        let error = keystead.run(["keys", "import", file]).await.failed(1);
        assert!(error.contains(said), "{error}");
    }
    keystead.write("array.json", "[{}]");
    let error = keystead.run(["keys", "import", "array.json"]).await.failed(1);
    assert!(error.contains("write an object on each line, as `jq -c '.[]'` does"), "{error}");
}

#[tokio::test]
async fn a_hundred_thousand_lines_are_read_and_their_keys_stored_listed_and_exported_whole() {
    const LINES: u32 = 100_000;
    const KEYS: u32 = 20_000;
    let keystead = Keystead::new();
    let digest = |number| format!("{number:064x}");
    let lines = (0..LINES).map(|line| digest(line % KEYS) + ",acme\n");
    let file: String = std::iter::once("sha256,principal\n".to_owned()).chain(lines).collect();
    keystead.write("many.csv", file);
    let error = keystead.run(["keys", "import", "many.csv"]).await.failed(1);
    assert!(error.contains("as 80000 lines of many.csv cannot be"), "{error}");
    assert!(error.contains("line 20002: it repeats the key of line 2"), "{error}");
    let imported = keystead.run(["keys", "import", "many.csv", "--skip-bad", "--json"]).await;
    assert_eq!(imported.json(), json!({"imported": KEYS, "skipped": LINES - KEYS}));

    let table = keystead.run(["keys", "list"]).await.ok();
    assert_eq!(table.lines().count(), 1 + KEYS as usize);
    let exported = keystead.run(["keys", "export"]).await.ok();
    let mut digests: Vec<&str> = exported
        .lines()
        .map(|line| &line.strip_prefix("{\"sha256\":\"").unwrap()[..Digest::LEN * 2])
        .collect();
    digests.sort_unstable();
    assert!((0..KEYS).map(digest).eq(digests), "the export has the digests that were imported");
    // A reader that goes away early is no failure.
    for command in [["keys", "list"], ["keys", "export"]] {
        let ran = Ran::unread(keystead.command(command)).await;
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{command:?}");
    }
}

#[tokio::test]
async fn an_import_that_no_service_would_accept_is_reported() {
    let keystead = Keystead::new();
    let config = keystead.write("c.toml", "[keys]\naccept_imported = false\n");
    let import = ["keys", "import", "-", "--config", config.to_str().unwrap()];
    let ran = keystead.run_with(import, csv([1])).await;
    assert!(ran.stderr.contains("`keys.accept_imported` is false"), "{ran}");
    assert_eq!(ran.ok(), "imported 1 key\n");
}
