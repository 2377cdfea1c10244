//! `keystead migrate`

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{Failure, GlobalOptions, print};
use crate::{app::open_store_alone, store::AnyStore, tasks::Tasks};

/// Bring the schema of a PostgreSQL store up to date.
///
/// Does nothing when it is. May be run while instances serve, and needs no
/// secret file. The embedded
/// store needs no such step: it is brought up to date whenever it is opened.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead migrate --store postgres://keystead@db/keystead")]
pub(super) struct MigrateArgs {}

pub(super) async fn run(_: MigrateArgs, options: GlobalOptions) -> Result<ExitCode, Failure> {
    let config = options.load(Vec::new())?;
    if let Some(relation) = &config.store.relation {
        return Err(Failure::new(format!(
            "store.relation is set, so that keys are read from {relation} and nothing is to be migrated"
        )));
    }
    let applied = match open_store_alone(&config, &Tasks::here())? {
        AnyStore::Postgres(store) => store.migrate().await?,
        // Opening it has done it.
        AnyStore::Sqlite(_) => Vec::new(),
    };
    if options.json {
        print(format_args!("{}\n", json!({"applied": applied})))?;
    } else if applied.is_empty() {
        print("the schema is up to date\n")?;
    } else {
        print(format_args!("applied {}\n", applied.join(", ")))?;
    }
    Ok(ExitCode::SUCCESS)
}
