//! `keystead config`

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{Failure, GlobalOptions, print};
use crate::config::Config;

/// Show the settings in force, or their schema.
///
/// Passwords are redacted. No file that the settings name is opened, and
/// nothing is connected to.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  keystead config > keystead.toml\n  keystead config --format json-schema"
)]
pub(super) struct ConfigArgs {
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    /// The settings in force, as a file that can be loaded again, save that a
    /// password in it is `***`.
    #[default]
    Toml,
    /// The JSON schema of all settings.
    JsonSchema,
}

pub(super) fn run(args: &ConfigArgs, options: &GlobalOptions) -> Result<ExitCode, Failure> {
    let text = match args.format {
        Format::Toml => options.load(Vec::new())?.to_toml()?,
        Format::JsonSchema => Config::json_schema() + "\n",
    };
    print(text)?;
    Ok(ExitCode::SUCCESS)
}
