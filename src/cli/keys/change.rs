//! `keystead keys disable`, `enable` and `revoke`

use clap::{Args, Subcommand};

use super::{options, session::Session, text};
use crate::{
    cli::{Failure, GlobalOptions, print},
    manage::{self, StateChange},
};

#[derive(Debug, Subcommand)]
pub(super) enum ChangeCommand {
    /// Stop a key until it is enabled again.
    #[command(after_help = "Example:\n  keystead keys disable key_…")]
    Disable(ChangeArgs),
    /// Let a disabled key be used again.
    ///
    /// A revoked key stays revoked.
    #[command(after_help = "Example:\n  keystead keys enable key_…")]
    Enable(ChangeArgs),
    /// Stop a key for ever.
    ///
    /// Revoked is final: mint a new key instead. To stop a key for a while, disable
    /// it.
    #[command(after_help = "Example:\n  keystead keys revoke key_…")]
    Revoke(ChangeArgs),
}

#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    /// The id of the key.
    #[arg(value_name = "ID")]
    id: String,
}

pub(super) async fn run(command: ChangeCommand, options: &GlobalOptions) -> Result<(), Failure> {
    let (change, ChangeArgs { id }) = match command {
        ChangeCommand::Disable(args) => (StateChange::Disable, args),
        ChangeCommand::Enable(args) => (StateChange::Enable, args),
        ChangeCommand::Revoke(args) => (StateChange::Revoke, args),
    };
    let id = options::key_id(&id)?;
    let session = Session::open(options)?;
    let changed = manage::change_state(&session.store, &id, change, &session.by).await;
    let record = changed.map_err(|error| session.refused(&error, Some(&id)))?;
    if options.json {
        print(format_args!("{}\n", serde_json::to_string(&record)?))
    } else {
        print(text::summary(&record, session.by.at))
    }
}
