//! `keystead keys new-secret`

use std::io::{self, IsTerminal};

use clap::Args;
use zeroize::Zeroizing;

use crate::{
    cli::{Failure, note, print},
    key::Secret,
};

/// Print a new secret for `keys.secret_file`.
///
/// 32 random bytes as 64 hex digits. Reads no configuration and opens no store.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  (umask 077; keystead keys new-secret > keystead.secret)")]
pub(super) struct NewSecretArgs {}

pub(super) fn run() -> Result<(), Failure> {
    let secret = Secret::generate()?;
    print(Zeroizing::new(format!("{}\n", secret.as_str())).as_str())?;
    if io::stdout().is_terminal() {
        note(
            "That secret is in the history of your terminal now. Write one to a file that only \
             keystead can read (mode 0600) instead: (umask 077; keystead keys new-secret > FILE)",
        );
    }
    Ok(())
}
