//! `keystead migrate`

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{Failure, GlobalOptions, print};
use crate::{
    app::open_store_alone,
    store::{AnyStore, StoreUrl},
    tasks::Tasks,
};

/// Bring the schema of a PostgreSQL store up to date.
///
/// Does nothing when it is. May be run while instances serve, and needs no
/// secret file. The embedded
/// store needs no such step: it is brought up to date whenever it is opened.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct MigrateArgs {
    /// Grant a database role what `serve` and `keys` need, and nothing else.
    ///
    /// The role must exist; its name is taken as it is.
    #[arg(long, value_name = "ROLE")]
    grant_to: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  keystead migrate --store postgres://keystead@db/keystead
  keystead migrate --store postgres://keystead_owner@db/keystead --grant-to keystead";

pub(super) async fn run(args: MigrateArgs, options: GlobalOptions) -> Result<ExitCode, Failure> {
    let config = options.load(Vec::new())?;
    if let Some(relation) = &config.store.relation {
        return Err(Failure::new(format!(
            "store.relation is set, so that keys are read from {relation} and nothing is to be migrated"
        )));
    }
    if args.grant_to.is_some() && matches!(config.store.url, StoreUrl::Sqlite { .. }) {
        return Err(Failure::new("--grant-to is for PostgreSQL; the embedded store has no roles"));
    }
    let applied = match open_store_alone(&config, &Tasks::here())? {
        AnyStore::Postgres(store) => {
            let applied = store.migrate().await?;
            if let Some(role) = &args.grant_to {
                store.grant(role).await?;
            }
            applied
        }
        // Opening it has done it.
        AnyStore::Sqlite(_) => Vec::new(),
    };
    if options.json {
        print(format_args!("{}\n", json!({"applied": applied})))?;
        return Ok(ExitCode::SUCCESS);
    }
    if applied.is_empty() {
        print("the schema is up to date\n")?;
    } else {
        print(format_args!("applied {}\n", applied.join(", ")))?;
    }
    if let Some(role) = args.grant_to {
        print(format_args!("granted {role} the rights to serve and to change keys\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
