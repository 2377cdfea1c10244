//! `keystead backup`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::{Failure, GlobalOptions, note, print};
use crate::{
    app::open_store_alone,
    store::{AnyStore, StoreUrl},
    tasks::Tasks,
};

/// Copy the embedded store into one file, also while the service runs.
///
/// The file is new, has mode 0600, and needs no other beside it; it holds digests and no
/// keys. The secret is not in it: back up `keystead.secret`, without which the keys are
/// worth nothing, to another place. For PostgreSQL use `pg_dump`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead backup /var/backups/keystead.db")]
pub(super) struct BackupArgs {
    /// The file to write. It must not be there.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn run(args: BackupArgs, options: GlobalOptions) -> Result<ExitCode, Failure> {
    let config = options.load(Vec::new())?;
    match &config.store.url {
        StoreUrl::Postgres(_) => return Err(Failure::new(FOR_POSTGRES)),
        // Opening one that is not there would make it.
        StoreUrl::Sqlite { path } if !path.exists() => {
            let path = path.display();
            return Err(Failure::new(format!("there is no store {path}; name it with --store")));
        }
        StoreUrl::Sqlite { .. } => {}
    }
    let AnyStore::Sqlite(store) = open_store_alone(&config, &Tasks::here())? else {
        return Err(Failure::new(FOR_POSTGRES));
    };
    let file = args.file;
    store.back_up(&file).await.map_err(|error| refused(&file, &error))?;
    if options.json {
        print(format_args!("{}\n", json!({"file": file})))?;
    } else {
        print(format_args!("wrote {}\n", file.display()))?;
        note("keystead: the secret is not in it; back up `keystead.secret` as well, elsewhere");
    }
    Ok(ExitCode::SUCCESS)
}

const FOR_POSTGRES: &str = "this copies the embedded store; back PostgreSQL up with \
    `pg_dump --format=custom --schema=keystead`";

fn refused(file: &Path, error: &impl std::fmt::Display) -> Failure {
    Failure::new(format!(
        "no backup at {}: {error}; give a new file in a folder that is there",
        file.display()
    ))
}
