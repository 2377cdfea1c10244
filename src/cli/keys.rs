//! `keystead keys`: one file a subcommand, or a few that are alike.

mod change;
mod create;
mod export;
mod import;
mod list;
mod new_secret;
mod options;
mod reveal;
mod rotate;
mod session;
mod show;
mod text;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Failure, GlobalOptions};

const EXAMPLES: &str = "\
Examples:
  keystead keys create --principal acme --scope read --expires-in 90d
  keystead keys list --principal acme
  keystead keys rotate key_… --grace 24h
  keystead keys revoke key_…
  keystead keys import digests.csv";

/// Create, list, change and import keys.
///
/// Works on the store itself, whether a service runs or not; services that run
/// learn of a change at once. Every change is in the audit log of the store, as
/// done by `cli:USER`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    command: Command,
}

/// Each command is described where its arguments are.
#[derive(Debug, Subcommand)]
enum Command {
    Create(create::CreateArgs),
    List(list::ListArgs),
    Show(show::ShowArgs),
    #[command(flatten)]
    Change(change::ChangeCommand),
    Rotate(rotate::RotateArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    NewSecret(new_secret::NewSecretArgs),
}

pub(super) async fn run(args: KeysArgs, options: GlobalOptions) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Create(args) => create::run(args, &options).await,
        Command::List(args) => list::run(&args, &options).await,
        Command::Show(args) => show::run(&args, &options).await,
        Command::Change(command) => change::run(command, &options).await,
        Command::Rotate(args) => rotate::run(&args, &options).await,
        Command::Import(args) => import::run(&args, &options).await,
        Command::Export(_) => export::run(&options).await,
        Command::NewSecret(_) => new_secret::run(),
    }?;
    Ok(ExitCode::SUCCESS)
}
