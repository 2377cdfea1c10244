//! `keystead keys disable`, `enable` and `revoke`

use clap::Args;

use super::{options, session::Session, text};
use crate::{
    cli::{Failure, GlobalOptions, print},
    key::Action,
    store::KeyAdmin,
};

/// Stop a key until it is enabled again.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead keys disable key_…")]
pub(super) struct DisableArgs {
    /// The id of the key.
    #[arg(value_name = "ID")]
    id: String,
}

/// Let a disabled key be used again.
///
/// A revoked key stays revoked.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead keys enable key_…")]
pub(super) struct EnableArgs {
    /// The id of the key.
    #[arg(value_name = "ID")]
    id: String,
}

/// Stop a key for ever.
///
/// Revoked is final: mint a new key instead. To stop a key for a while, disable
/// it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead keys revoke key_…")]
pub(super) struct RevokeArgs {
    /// The id of the key.
    #[arg(value_name = "ID")]
    id: String,
}

pub(super) async fn disable(args: &DisableArgs, options: &GlobalOptions) -> Result<(), Failure> {
    act(&args.id, Action::Disable, options).await
}

pub(super) async fn enable(args: &EnableArgs, options: &GlobalOptions) -> Result<(), Failure> {
    act(&args.id, Action::Enable, options).await
}

pub(super) async fn revoke(args: &RevokeArgs, options: &GlobalOptions) -> Result<(), Failure> {
    act(&args.id, Action::Revoke, options).await
}

async fn act(id: &str, action: Action, options: &GlobalOptions) -> Result<(), Failure> {
    let id = options::key_id(id)?;
    let session = Session::open(options)?;
    let done = session.store.act(&id, action, None, &session.by).await;
    let record = done.map_err(|error| session.refused(&error, Some(&id)))?;
    if options.json {
        print(format_args!("{}\n", serde_json::to_string(&record)?))
    } else {
        print(text::summary(&record, session.by.at))
    }
}
