//! What is read from a file, and what is said about it.

use serde_json::json;

use super::*;
use crate::key::{Digest, NewKey, State};

fn sha256(number: u32) -> String {
    Digest::sha256_of(&number.to_be_bytes()).to_hex()
}

/// What a file holds, or what is wrong with the whole of it.
fn batch(text: impl AsRef<[u8]>) -> Result<Batch, String> {
    read(text.as_ref()).map_err(|error| error.to_string())
}

/// The keys of a file without bad lines.
fn keys(text: &str) -> Vec<NewKey> {
    let batch = batch(text).unwrap();
    assert_eq!(batch.bad.to_string(), "");
    batch.keys
}

/// What is said about the bad lines of a file.
fn bad(text: impl AsRef<[u8]>) -> String {
    batch(text).unwrap().bad.to_string()
}

#[track_caller]
fn assert_is_acme(key: &NewKey) {
    assert_eq!(key.digest.to_hex(), sha256(1));
    assert_eq!((key.secret, key.hint.as_str()), (None, ""));
    assert_eq!(key.state, State::Disabled);
    let rights = &key.rights;
    assert_eq!((rights.principal.as_str(), rights.name.as_str()), ("acme", "billing, old"));
    assert_eq!(rights.scopes, ["read", "write"]);
    let networks: Vec<_> = rights.allowed_networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.0.2.1/32"]);
    assert_eq!(rights.audiences, ["billing"]);
    assert_eq!(rights.metadata["plan"], "gold");
    assert_eq!(rights.not_before, "2026-01-01T00:00:00Z".parse().ok());
    assert_eq!(rights.expires_at, "2027-01-01T00:00:00Z".parse().ok());
}

#[test]
fn every_field_is_read_from_csv() {
    let keys = keys(&format!(
        "sha256,principal,name,scopes,allowed_networks,audiences,metadata,state,not_before,expires_at\n\
         {},acme,\"billing, old\",read write,10.0.0.0/8 192.0.2.1,billing,\"{{\"\"plan\"\":\"\"gold\"\"}}\",\
         disabled,2026-01-01T00:00:00Z,2027-01-01T02:00:00+02:00\n",
        sha256(1)
    ));
    assert_is_acme(&keys[0]);
}

#[test]
fn every_field_is_read_from_json_lines() {
    let line = json!({
        "sha256": sha256(1).to_uppercase(), "principal": "acme", "name": "billing, old",
        "scopes": ["read", "write"], "allowed_networks": ["10.0.0.0/8", "192.0.2.1"],
        "audiences": ["billing"], "metadata": {"plan": "gold"}, "state": "disabled",
        "not_before": "2026-01-01T00:00:00Z", "expires_at": "2027-01-01T00:00:00Z",
    });
    assert_is_acme(&keys(&line.to_string())[0]);
}

#[test]
fn what_is_not_given_is_empty_and_the_key_active() {
    let csv = format!("principal , sha256 , name , expires_at\n acme, {} ,,\n", sha256(1));
    let json = json!({"sha256": sha256(1), "principal": "acme", "name": null, "expires_at": null});
    for text in [csv, json.to_string()] {
        let key = &keys(&text)[0];
        assert_eq!(key.state, State::Active);
        assert_eq!(key.rights.principal, "acme");
        assert_eq!((key.rights.name.as_str(), key.rights.expires_at), ("", None));
        assert!(key.id.as_str().starts_with("key_"));
    }
}

#[test]
fn what_an_export_has_besides_is_ignored() {
    let line = json!({
        "sha256": sha256(1), "principal": "acme", "id": "key_1", "hint": "", "secret": null,
        "created_at": "2026-01-01T00:00:00Z", "last_used_at": null, "revision": 7,
    });
    assert_ne!(keys(&line.to_string())[0].id.as_str(), "key_1");
}

#[test]
fn a_minted_key_of_an_export_is_a_bad_line_that_says_why() {
    let minted = json!({"principal": "acme", "secret": "0011223344556677"}).to_string();
    assert!(bad(minted).contains("line 1: it is a key that keystead minted"));
}

#[test]
fn blank_lines_and_a_byte_order_mark_are_passed_over_and_lines_still_count() {
    let csv = format!("\u{feff}\n\r\nsha256,principal\n\n{},acme\n\nx,acme\r\n\r\n", sha256(1));
    assert_eq!(batch(&csv).unwrap().keys.len(), 1);
    assert!(bad(&csv).starts_with("  line 7: `sha256`: these 1 characters"), "{}", bad(&csv));
    let line = json!({"sha256": sha256(1), "principal": "acme"});
    let json = format!("\u{feff}  \n\n {line}\n\n{{}}\n");
    assert_eq!(batch(&json).unwrap().keys.len(), 1);
    assert!(bad(&json).starts_with("  line 5: `sha256` is missing"), "{}", bad(&json));
}

#[test]
fn a_file_without_keys_holds_none() {
    for text in ["", "\n \n", "\u{feff}", "sha256,principal\n"] {
        let batch = batch(text).unwrap();
        assert!(batch.keys.is_empty() && batch.bad.is_empty(), "{text:?}");
    }
}

#[test]
fn every_bad_value_is_told_with_its_line_its_field_and_the_remedy() {
    let good = json!({"sha256": sha256(1), "principal": "acme"});
    for (field, value, told) in [
        ("sha256", json!("ks_live_secret"), "`sha256`: these 14 characters are not 64 hex digits"),
        ("sha256", json!(7), "`sha256`: that is no text; write it in quotation marks"),
        ("principal", json!(""), "`principal` is missing; write whose key it is"),
        ("principal", json!("x".repeat(257)), "the principal is 257 bytes long; 256 are allowed"),
        ("scopes", json!("read"), "`scopes`: write an array of texts"),
        ("scopes", json!(["a b"]), "the scope \"a b\" has white space in it"),
        ("scopes", json!(["a,b"]), "the scope \"a,b\" has a comma in it; give each one by itself"),
        ("audiences", json!(["a,b"]), "the audience \"a,b\" has a comma in it"),
        ("allowed_networks", json!(["10.1.2.3/8"]), "did you mean 10.0.0.0/8, or 10.1.2.3 alone?"),
        ("allowed_networks", json!(["x"]), "`allowed_networks`: `x` is no network"),
        ("metadata", json!({"a": 1}), "`metadata`: that is no text"),
        ("metadata", json!(["a"]), "`metadata`: write an object of texts"),
        ("state", json!("enabled"), "`state`: `enabled` is no state; write active, disabled or"),
        ("not_before", json!("soon"), "`not_before`: `soon` is no time; write RFC 3339"),
        ("expires_at", json!("2027-01-01"), "`expires_at`: `2027-01-01` is no time"),
        ("expire", json!(""), "`expire` is not known; did you mean `expires_at`?"),
    ] {
        let mut line = good.clone();
        line[field] = value;
        let text = bad(format!("\n{line}"));
        assert!(text.starts_with("  line 2: ") && text.contains(told), "{text}");
        assert!(!text.contains("ks_live_secret"));
    }
    let csv = bad(format!("sha256,principal,scopes\n{},acme,\"a,b\"\n", sha256(1)));
    assert!(csv.starts_with("  line 2: the scope \"a,b\" has a comma in it"), "{csv}");
}

#[test]
fn what_is_no_json_object_is_told_without_repeating_it() {
    let good = json!({"sha256": sha256(1), "principal": "acme"});
    let text = bad(format!(
        "{good}\n\"ks_live_secret\"\n{{\"sha256\": ks_live_secret}}\n{{\"name\":\"a\",\"name\":\"b\"}}\n{good} x"
    ));
    let told: Vec<_> = text.lines().collect();
    assert!(told[0].starts_with("  line 2: it is no JSON object; write {"), "{text}");
    assert!(told[1].starts_with("  line 3: it is no JSON: expected value at character"), "{text}");
    assert!(told[2].starts_with("  line 4: `name` is there twice"), "{text}");
    assert!(told[3].starts_with("  line 5: it is no JSON: trailing characters"), "{text}");
    assert!(!text.contains("ks_live_secret"), "{text}");
}

#[test]
fn a_line_that_is_too_long_is_bad_and_the_next_is_read() {
    let good = json!({"sha256": sha256(1), "principal": "acme"});
    let text = format!("{good}\n{{{}\n{{}}\n", " ".repeat(3 << 20));
    let batch = batch(text).unwrap();
    assert_eq!(batch.keys.len(), 1);
    let told = batch.bad.to_string();
    assert!(told.contains("line 2: it is longer than 1048576 bytes"), "{told}");
    assert!(told.contains("line 3: `sha256` is missing"), "{told}");
}

#[test]
fn a_digest_that_stands_twice_is_bad_the_second_time() {
    let good = json!({"sha256": sha256(1), "principal": "acme"});
    let text = format!("{good}\n{{}}\n{good}\n");
    let batch = batch(text).unwrap();
    assert_eq!(batch.keys.len(), 1);
    let told = batch.bad.to_string();
    assert!(told.contains("line 3: it repeats the key of line 1"), "{told}");
}

#[test]
fn a_header_that_cannot_be_used_is_wrong_with_the_whole_file() {
    for (header, told) in [
        ("sha256,princpal", "the column `princpal` is not known; did you mean `principal`?"),
        ("principal", "the header has no column `sha256`; add it"),
        ("sha256,name", "the header has no column `principal`; add it"),
        ("sha256,principal,sha256", "the column `sha256` is there twice"),
        ("sha256;principal", "the columns are not separated by commas; do so"),
        ("abc", "the first line names no column; begin with a header such as sha256,principal"),
        ("sha256,principal,digest", "the column number 3 is not known; see `keystead keys import"),
    ] {
        let error = batch(format!("{header}\n{},acme\n", sha256(1))).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
    let error = batch("[{}]").unwrap_err();
    assert!(error.contains("one JSON array; write an object on each line"), "{error}");
    let error = batch(b"sha256,\xff\n").unwrap_err();
    assert!(error.contains("the header is not UTF-8"), "{error}");
}

#[test]
fn a_key_is_repeated_nowhere_wherever_it_stands() {
    const KEY: &str = "ks_live_0123456789ABCDEFGHIJKLMNOPQRSTUVDyq36RzI";
    for header in [
        format!("{KEY},acme"),
        format!("acme;{KEY}"),
        format!("sha256,principal,{KEY}"),
        format!("sha256,principal,{KEY},{KEY}"),
        KEY.to_owned(),
    ] {
        let error = batch(format!("{header}\n{KEY},acme\n")).unwrap_err();
        assert!(!error.contains(&KEY[8..24]), "{error}");
    }
    for column in ["state", "not_before", "expires_at", "allowed_networks", "metadata", "sha256"] {
        let (other, cell) =
            if column == "sha256" { ("name", String::new()) } else { ("sha256", sha256(1)) };
        let text = bad(format!("{other},principal,{column}\n{cell},acme,{KEY}\n"));
        assert!(text.starts_with("  line 2: ") && !text.contains(&KEY[8..24]), "{text}");
    }
    let text = bad(json!({"sha256": sha256(1), "principal": "acme", KEY: KEY}).to_string());
    assert!(text.contains("line 1: field number ") && !text.contains(&KEY[8..24]), "{text}");
}

#[test]
fn lines_end_as_they_do_on_any_system() {
    for end in ["\n", "\r\n"] {
        let lines = ["sha256,principal", &format!("{},\"acme\"", sha256(1)), "x,acme", "", "y,b"];
        for last in ["", end] {
            let batch = batch(lines.join(end) + last).unwrap();
            assert_eq!(batch.keys[0].rights.principal, "acme");
            let told = batch.bad.to_string();
            assert!(told.contains("line 3: ") && told.contains("line 5: "), "{end:?} {told}");
        }
    }
}

#[test]
fn a_cell_that_goes_over_several_lines_does_not_put_the_numbers_wrong() {
    let text = format!(
        "sha256,principal,metadata\n{},acme,\"{{\n\"\"a\"\": \"\"b\"\"\n}}\"\nx,acme,\n",
        sha256(1)
    );
    let batch = batch(text).unwrap();
    assert_eq!(batch.keys[0].rights.metadata["a"], "b");
    assert!(batch.bad.to_string().starts_with("  line 5: "), "{}", batch.bad);
}

#[test]
fn a_quotation_mark_that_is_not_closed_is_told_where_it_is() {
    let rest = (2..10).map(|i| format!("{},acme", sha256(i))).collect::<Vec<_>>().join("\n");
    for (line, last) in [("x,\"acme", "\n"), ("\"x,acme", ""), ("x,acme,\"", "\n\n")] {
        let text = format!("sha256,principal\n\n{line}\n{rest}{last}");
        let told = "  line 3: a quotation mark is not closed, and takes all lines below with it";
        assert!(bad(&text).starts_with(told), "{}", bad(&text));
    }
}

#[test]
fn a_line_of_csv_that_cannot_be_read_is_bad_and_the_next_is_read() {
    let mut text = format!("sha256,principal\n{},a,b\n", sha256(1)).into_bytes();
    text.extend_from_slice(b"\xff,acme\n");
    text.extend_from_slice(format!("{},acme\n", sha256(2)).as_bytes());
    let batch = batch(text).unwrap();
    assert_eq!(batch.keys.len(), 1);
    let told = batch.bad.to_string();
    assert!(told.contains("line 2: it has 3 cells where the header has 2"), "{told}");
    assert!(told.contains("line 3: it is not UTF-8"), "{told}");
}

#[test]
fn keys_that_are_stored_already_are_dropped_and_their_lines_are_bad() {
    let line = |i: u32| json!({"sha256": sha256(i), "principal": i.to_string()}).to_string();
    let mut batch = batch((0..5).map(line).collect::<Vec<_>>().join("\n")).unwrap();
    let stored = [&batch.keys[1], &batch.keys[3]].map(|key| key.digest);
    batch.drop_stored(&stored.into());
    let left: Vec<_> = batch.keys.iter().map(|key| key.rights.principal.as_str()).collect();
    assert_eq!(left, ["0", "2", "4"]);
    batch.drop_stored(&[batch.keys[1].digest].into());
    let told = batch.bad.to_string();
    for line in ["line 2: its key is stored already", "line 4: ", "line 3: "] {
        assert!(told.contains(line), "{told}");
    }
    assert_eq!(batch.bad.count(), 3);
}
