//! `keystead keys import`

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use super::session::Session;
use crate::{
    cli::{Failure, GlobalOptions, note, print},
    manage::{self, ImportError, Imported},
    store::WriteError,
};

const EXAMPLES: &str = "\
CSV has a header; lists in it are separated by spaces, and metadata is a JSON
object. JSON lines have arrays and an object. Times are RFC 3339.

  sha256            required: SHA-256 of the key, 64 hex digits
  principal         required: whose key it is
  name              what people call the key
  scopes            what it may do
  allowed_networks  networks that it may be used from, such as 10.0.0.0/8
  audiences         services that it may be used for
  metadata          what is handed to the caller with every answer
  state             active, disabled or revoked
  not_before        when it becomes valid
  expires_at        when it ends

What else `keystead keys export` writes is accepted and ignored: an imported key
gets an id of its own.

Examples:
  keystead keys import digests.csv
  printf %s \"$KEY\" | sha256sum          the digest of one key
  zcat digests.jsonl.gz | keystead keys import - --skip-bad";

/// Import SHA-256 digests of keys that were minted elsewhere.
///
/// The keys themselves are not needed and go on working. If a line is bad, nothing
/// is imported. The keys are stored in batches, so that others can change keys
/// meanwhile: what ends an import in the middle leaves those that it had stored.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ImportArgs {
    /// A file of CSV or JSON lines, told apart by its first character. With `-`,
    /// stdin.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Import the good lines, and name those that were skipped on stderr.
    #[arg(long)]
    skip_bad: bool,
}

pub(super) async fn run(args: &ImportArgs, options: &GlobalOptions) -> Result<(), Failure> {
    let session = Session::open_or_create(options).await?;
    let (name, input) = open(&args.file)?;
    let imported = manage::import(&session.store, input, args.skip_bad, &session.by).await;
    report(&session, &imported.map_err(|error| failed(&session, &name, error))?, options)
}

/// What the input is called in messages, and the input.
fn open(file: &Path) -> Result<(String, Box<dyn BufRead>), Failure> {
    if file == Path::new("-") {
        return Ok(("stdin".to_owned(), Box::new(io::stdin().lock())));
    }
    let name = file.display().to_string();
    let opened = File::open(file).map_err(|error| unreadable(&name, &error))?;
    Ok((name, Box::new(BufReader::with_capacity(1 << 16, opened))))
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::new(format!("cannot read {name}: {error}; name a file of CSV or JSON lines, or -"))
}

fn failed(session: &Session, name: &str, error: ImportError) -> Failure {
    Failure::new(match error {
        ImportError::Read(error) => return unreadable(name, &error),
        ImportError::Store(error) => return session.no_answer(&error),
        ImportError::Form(what) => format!("{name}: {what}"),
        ImportError::Empty => {
            format!("{name} holds no keys; write a line for each, with `sha256` and `principal`")
        }
        ImportError::BadLines(bad) => {
            let lines = if bad.count() == 1 { "1 line" } else { &format!("{} lines", bad.count()) };
            format!(
                "nothing was imported, as {lines} of {name} cannot be; correct what is below, or \
                 import the rest with --skip-bad\n{bad}"
            )
        }
        ImportError::Stopped { done, all, error, bad } => {
            let why = match error {
                WriteError::Duplicates(_) => {
                    format!("a key was stored by somebody else meanwhile\n{bad}")
                }
                error => session.refused(&error, None).message,
            };
            format!(
                "{done} of {all} keys were imported; import the rest with --skip-bad. Then it \
                 stopped: {why}"
            )
        }
    })
}

fn report(session: &Session, done: &Imported, options: &GlobalOptions) -> Result<(), Failure> {
    let (imported, skipped) = (done.keys, done.skipped.count());
    if skipped > 0 {
        let lines = if skipped == 1 { "line" } else { "lines" };
        note(format_args!("skipped {skipped} {lines}\n{}", done.skipped));
    }
    if !session.config.keys.accept_imported {
        note("`keys.accept_imported` is false, so that imported keys are refused; set it to true");
    }
    if options.json {
        print(format_args!("{}\n", json!({"imported": imported, "skipped": skipped})))
    } else {
        let keys = if imported == 1 { "key" } else { "keys" };
        print(format_args!("imported {imported} {keys}\n"))
    }
}
