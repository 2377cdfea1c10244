//! `keystead keys new-secret`

use std::{
    fs::{File, Permissions},
    io::{self, IsTerminal},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
};

use clap::Args;
use zeroize::Zeroizing;

use crate::{
    cli::{Failure, note, print},
    key::Secret,
};

/// Print a new secret for `keys.secret_file`.
///
/// 32 random bytes as 64 hex digits. Reads no configuration and opens no store. A
/// file that stdout is, and that others may read, gets mode 0600.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  (umask 077; set -C; keystead keys new-secret > fleet.secret)")]
pub(super) struct NewSecretArgs {}

pub(super) fn run() -> Result<(), Failure> {
    let secret = Secret::generate()?;
    // What fails here, `serve` says with its remedy.
    let _ = close_to_others(io::stdout());
    print(Zeroizing::new(format!("{}\n", secret.as_str())).as_str())?;
    if io::stdout().is_terminal() {
        note(
            "That secret is in the history of your terminal now. Write one to a file that only \
             keystead can read (mode 0600) instead: (umask 077; keystead keys new-secret > FILE)",
        );
    }
    Ok(())
}

/// Takes the rights of others from a file that a shell has made as its umask says:
/// `serve` would refuse it.
fn close_to_others(out: impl AsFd) -> io::Result<()> {
    let file = File::from(out.as_fd().try_clone_to_owned()?);
    let found = file.metadata()?;
    if found.is_file() && found.mode() & 0o007 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}
