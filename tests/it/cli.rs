//! The command line, as scripts and people see it.

mod backup;
mod create;
mod export;
mod general;
pub(crate) mod import;
mod lifecycle;
mod postgres;
mod readme;
mod service;
mod settings;

use serde_json::Value;

use crate::harness::keystead::Keystead;

/// Mints a key, and returns what `--json` says of it.
async fn mint(keystead: &Keystead, args: &[&str]) -> Value {
    let create = ["keys", "create", "--principal", "acme", "--json"];
    keystead.run(create.iter().chain(args)).await.json()
}

/// A field of a JSON object that is a text.
#[track_caller]
fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_else(|| panic!("no text `{field}` in {object}"))
}

/// All keys of the store.
async fn list(keystead: &Keystead) -> Vec<Value> {
    let listed = keystead.run(["keys", "list", "--json"]).await.json();
    listed.as_array().unwrap().clone()
}

/// Whether this is a live key in the form that scanners look for.
fn is_key(text: &str, environment: &str) -> bool {
    let digits = text.strip_prefix(&format!("ks_{environment}_"));
    digits.is_some_and(|d| d.len() == 40 && d.bytes().all(|b| b.is_ascii_alphanumeric()))
}
