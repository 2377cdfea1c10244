//! `keystead keys show`

use clap::Args;

use super::{options, session::Session, text};
use crate::cli::{Failure, GlobalOptions, print};

/// Show all that is stored of one key.
///
/// The key itself is not: only a digest of it is kept.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  keystead keys show key_…\n  keystead keys show key_… --json | jq .scopes"
)]
pub(super) struct ShowArgs {
    /// The id of the key.
    #[arg(value_name = "ID")]
    id: String,
}

pub(super) async fn run(args: &ShowArgs, options: &GlobalOptions) -> Result<(), Failure> {
    let id = options::key_id(&args.id)?;
    let session = Session::open(options)?;
    let record = session.record(&id).await?;
    if options.json {
        print(format_args!("{}\n", serde_json::to_string(&record)?))
    } else {
        print(text::details(&record, session.by.at))
    }
}
