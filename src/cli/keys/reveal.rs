//! Handing a new key over, the only time that it can be.

use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    cli::{Failure, note, write_out},
    key::KeyRecord,
    manage::Created,
};

/// What `--json` prints: the key, and all that is stored of it.
#[derive(Serialize)]
struct NewKeyJson<'a, More: Serialize> {
    /// The key itself.
    key: &'a str,
    #[serde(flatten)]
    record: &'a KeyRecord,
    #[serde(flatten)]
    more: More,
}

/// Prints the JSON object of a new key, with `more` fields.
pub(super) fn print_json(new: &Created, more: impl Serialize) -> Result<(), Failure> {
    let json = NewKeyJson { key: new.minted.key.expose(), record: &new.record, more };
    let text = Zeroizing::new(serde_json::to_string(&json)? + "\n");
    hand_over(new, &text)
}

/// Prints a new key on a line of its own, and what is to be said about it on
/// stderr: so `KEY=$(keystead keys create …)` gets the key alone.
pub(super) fn print_text(new: &Created, about: &str) -> Result<(), Failure> {
    let text = Zeroizing::new(format!("{}\n", new.minted.key.expose()));
    hand_over(new, &text)?;
    note(format_args!("\n{about}\nThe key above is shown this once: only a digest of it is kept."));
    Ok(())
}

/// A key that reached nobody is no use, and must not stay valid unnoticed.
fn hand_over(new: &Created, text: &str) -> Result<(), Failure> {
    write_out(text).map_err(|error| {
        let id = &new.minted.id;
        Failure::new(format!(
            "the key {id} was stored but could not be printed ({error}), so that nobody has it; \
             end it with `keystead keys revoke {id}` and mint another"
        ))
    })
}
