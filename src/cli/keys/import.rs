//! `keystead keys import`

mod bad_lines;
mod batch;
mod csv_lines;
mod field;
mod json_lines;
mod line;

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use serde_json::json;
use tokio::time::sleep;

use self::{bad_lines::BadLines, batch::Batch};
use super::session::Session;
use crate::{
    cli::{Failure, GlobalOptions, note, print},
    store::{Answer, AnyStore, KeyAdmin, Lookups, WriteError},
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

/// How many digests are looked up at once.
const LOOKUP: usize = 1000;

/// How many keys are stored in one transaction. No other change can be written
/// meanwhile: for some tens of milliseconds.
const BATCH: usize = 250;

/// How long an embedded store is left to others after each batch. It has no queue:
/// who wants to write looks every 10 ms whether it may.
const PAUSE: Duration = Duration::from_millis(20);

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
    let name = if args.is_stdin() { "stdin".to_owned() } else { args.file.display().to_string() };
    let mut batch = Batch::default();
    open(&args.file, &name)
        .and_then(|input| read(input, &mut batch).map_err(|why| why.of(&name)))?;
    batch.finish();
    if batch.keys.is_empty() && batch.bad.is_empty() {
        return Err(Failure::new(format!(
            "{name} holds no keys; write a line for each, with `sha256` and `principal`"
        )));
    }
    find_stored(&session, &mut batch).await?;
    if !args.skip_bad && !batch.bad.is_empty() {
        return Err(nothing_imported(&name, &batch.bad));
    }
    store(&session, &mut batch, args.skip_bad).await?;
    report(&session, &batch, options)
}

impl ImportArgs {
    fn is_stdin(&self) -> bool {
        self.file == Path::new("-")
    }
}

fn open(file: &Path, name: &str) -> Result<Box<dyn BufRead>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = File::open(file).map_err(|error| Unreadable::from(error).of(name))?;
    Ok(Box::new(BufReader::with_capacity(1 << 16, opened)))
}

/// Why nothing at all can be read.
enum Unreadable {
    Io(io::Error),
    /// What is wrong with the form of the whole, and the remedy.
    Form(String),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Unreadable {
    fn of(self, name: &str) -> Failure {
        Failure::new(match self {
            Self::Io(error) => {
                format!("cannot read {name}: {error}; name a file of CSV or JSON lines, or -")
            }
            Self::Form(what) => format!("{name}: {what}"),
        })
    }
}

/// Reads all lines, in the form that the first character tells.
fn read(mut input: impl BufRead, batch: &mut Batch) -> Result<(), Unreadable> {
    let (blank_lines, first) = first_character(&mut input)?;
    let mut take = |line: u64, read| batch.take(line + blank_lines, read);
    match first {
        None => Ok(()),
        Some(b'{') => json_lines::read(input, &mut take),
        Some(b'[') => Err(Unreadable::Form(
            "this is one JSON array; write an object on each line, as `jq -c '.[]'` does"
                .to_owned(),
        )),
        Some(_) => csv_lines::read(input, &mut take),
    }
}

/// Skips what is blank, and the mark that some programs put before UTF-8. Tells
/// how many lines were blank, and the first character that is not.
fn first_character(input: &mut impl BufRead) -> io::Result<(u64, Option<u8>)> {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    let mut blank_lines = 0;
    if input.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
        input.consume(BYTE_ORDER_MARK.len());
    }
    loop {
        let buffer = input.fill_buf()?;
        let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        blank_lines += buffer[..blank].split(|byte| *byte == b'\n').skip(1).count() as u64;
        if let Some(first) = buffer.get(blank).copied() {
            input.consume(blank);
            return Ok((blank_lines, Some(first)));
        }
        if blank == 0 {
            return Ok((blank_lines, None));
        }
        input.consume(blank);
    }
}

/// Adds the lines whose keys are stored already to the bad ones, so that all
/// that is wrong is told at once.
async fn find_stored(session: &Session, batch: &mut Batch) -> Result<(), Failure> {
    let mut stored = Vec::new();
    for (number, chunk) in batch.keys.chunks(LOOKUP).enumerate() {
        let digests: Vec<_> = chunk.iter().map(|key| key.digest).collect();
        let found = session.store.find(&digests).await;
        let found = found.map_err(|error| session.no_answer(&error))?;
        let is_stored = |digest| matches!(found.get(digest), Some(Answer::Found(_)));
        let positions = digests.iter().enumerate().filter(|(_, digest)| is_stored(digest));
        stored.extend(positions.map(|(position, _)| number * LOOKUP + position));
    }
    batch.drop_stored(&stored);
    Ok(())
}

/// Stores all keys. Those that somebody else has stored since they were looked up
/// are bad lines.
async fn store(session: &Session, batch: &mut Batch, skip_bad: bool) -> Result<(), Failure> {
    let mut done = 0;
    while done < batch.keys.len() {
        let end = batch.keys.len().min(done + BATCH);
        match session.store.insert(&batch.keys[done..end], &session.by).await {
            Ok(()) => done = end,
            Err(WriteError::Duplicates(positions)) => {
                let positions: Vec<_> = positions.into_iter().map(|at| done + at).collect();
                batch.drop_stored(&positions);
                if !skip_bad {
                    let why = format!("a key was stored by somebody else meanwhile\n{}", batch.bad);
                    return Err(stopped(done, batch, &why));
                }
            }
            Err(error) => return Err(stopped(done, batch, &session.refused(&error, None).message)),
        }
        if matches!(session.store, AnyStore::Sqlite(_)) && done < batch.keys.len() {
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

fn stopped(done: usize, batch: &Batch, why: &str) -> Failure {
    let all = batch.keys.len();
    Failure::new(format!(
        "{done} of {all} keys were imported; import the rest with --skip-bad. Then it stopped: {why}"
    ))
}

fn nothing_imported(name: &str, bad: &BadLines) -> Failure {
    let lines = if bad.count() == 1 { "1 line" } else { &format!("{} lines", bad.count()) };
    Failure::new(format!(
        "nothing was imported, as {lines} of {name} cannot be; correct what is below, or import \
         the rest with --skip-bad\n{bad}"
    ))
}

fn report(session: &Session, batch: &Batch, options: &GlobalOptions) -> Result<(), Failure> {
    let (imported, skipped) = (batch.keys.len(), batch.bad.count());
    if skipped > 0 {
        let lines = if skipped == 1 { "line" } else { "lines" };
        note(format_args!("skipped {skipped} {lines}\n{}", batch.bad));
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

#[cfg(test)]
mod tests;
