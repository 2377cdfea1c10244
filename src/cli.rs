//! The command line: one file a subcommand.

mod backup;
mod check;
mod config;
mod health;
mod keys;
mod migrate;
mod provenance;
mod serve;

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::config::{Config, Sources};

const EXAMPLES: &str = "\
Examples:
  keystead serve                                    serve on the embedded store ./keystead.db
  keystead keys create --principal acme --scope read
  keystead check ks_live_… --scope read
  keystead serve --store postgres://keystead@db/keystead --config keystead.toml

Every setting can be given in a TOML file (--config), in the environment
(KEYSTEAD_STORE__URL for store.url) or, where there is one, by a flag.
`keystead config` shows what is in force.";

/// An API-key authorization service that never tells an outage as a bad key.
#[derive(Debug, Parser)]
#[command(name = "keystead", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    options: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Common options")]
struct GlobalOptions {
    /// Read settings from a TOML file.
    #[arg(long, global = true, value_name = "FILE", env = "KEYSTEAD_CONFIG")]
    config: Option<PathBuf>,
    /// Where the keys are: `sqlite:PATH` or `postgres://…`.
    #[arg(long, global = true, value_name = "URL")]
    store: Option<String>,
    /// Print records as JSON.
    #[arg(long, global = true)]
    json: bool,
}

/// Each command is described where its arguments are.
#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Keys(keys::KeysArgs),
    Check(check::CheckArgs),
    Health(health::HealthArgs),
    Migrate(migrate::MigrateArgs),
    Backup(backup::BackupArgs),
    Config(config::ConfigArgs),
}

/// A command that failed: one sentence that says the remedy, and the exit code.
#[derive(Debug)]
struct Failure {
    message: String,
    code: u8,
}

/// The exit code of a failure that has none of its own.
const OTHER: u8 = 1;

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: OTHER }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failure. There is nowhere to report a
            // broken stdout to.
            let _ = error.print();
            return if error.use_stderr() { OTHER.into() } else { ExitCode::SUCCESS };
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(Failure { message, code }) => {
            note(format_args!("keystead: {message}"));
            code.into()
        }
    }
}

fn run(Cli { options, command }: Cli) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(args) => {
            let config = options.load(args.overrides())?;
            let runtime = Builder::new_multi_thread().enable_all().build()?;
            finish(runtime, serve::run(config))
        }
        Command::Keys(args) => finish(small_runtime()?, keys::run(args, options)),
        Command::Check(args) => finish(small_runtime()?, check::run(args, options)),
        Command::Health(args) => finish(small_runtime()?, health::run(args, options)),
        Command::Migrate(args) => finish(small_runtime()?, migrate::run(args, options)),
        Command::Backup(args) => finish(small_runtime()?, backup::run(args, options)),
        Command::Config(args) => config::run(&args, &options),
    }
}

/// Runs a command, and does not wait for threads that it has left behind.
fn finish(
    runtime: Runtime,
    command: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    let outcome = runtime.block_on(command);
    runtime.shutdown_background();
    outcome
}

/// One thread is enough for a command that does one thing.
fn small_runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

impl GlobalOptions {
    /// The settings in force, with the flags of the command on top.
    fn load(&self, flags: Vec<(&'static str, String)>) -> Result<Config, Failure> {
        let store = self.store.clone().map(|url| ("store.url", url));
        let mut sources = Sources::default().with_process_environment();
        if let Some(path) = &self.config {
            sources = sources.with_file(path);
        }
        for (key, value) in store.into_iter().chain(flags) {
            sources = sources.with_override(key, value);
        }
        Ok(Config::load(&sources)?)
    }
}

/// Writes to stdout. A reader that has gone away is no failure of ours.
fn print(text: impl fmt::Display) -> Result<(), Failure> {
    print_if_read(text).map(drop)
}

/// Writes to stdout. False when the reader has gone away, so that there is no
/// point in going on.
fn print_if_read(text: impl fmt::Display) -> Result<bool, Failure> {
    match write_out(text) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(format!("cannot write to stdout: {error}"))),
    }
}

fn write_out(text: impl fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

/// Tells a person something that is not the result. There is nowhere to report
/// a broken stderr to.
fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Reads one `--scope`. A list in one value would be a single scope that no
/// key has.
fn scope(text: &str) -> Result<String, String> {
    if text.contains(',') {
        return Err("a scope has no comma in it; for two scopes, give --scope twice".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_with_a_comma_is_refused_and_the_way_to_give_two_is_said() {
        let lines: [&[&str]; 2] =
            [&["keystead", "check", "key"], &["keystead", "keys", "create", "--principal", "acme"]];
        for line in lines {
            let with = |scopes: &[&str]| Cli::try_parse_from([line, scopes].concat());
            assert!(with(&["--scope", "read", "--scope", "write"]).is_ok());
            let refused = with(&["--scope", "read,write"]).unwrap_err().to_string();
            assert!(refused.contains("give --scope twice"), "{refused}");
        }
    }
}
