//! `keystead keys rotate`

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    options::{self, EnvironmentOption},
    reveal,
    session::Session,
    text,
};
use crate::{
    cli::{Failure, GlobalOptions},
    key::{KeyRecord, RightsError},
    manage::{self, CreateError, RotateError, Rotated, Rotation},
};

const EXAMPLES: &str = "\
The old key ends when the grace is over, or when it would have anyway if that is
earlier. With --json, stdout has one object as for `keys create`, and in it
`replaces`: the record of the old key.

Examples:
  keystead keys rotate key_… --grace 24h
  keystead keys rotate key_… --grace 0s --expires-in 90d --json
  keystead keys rotate key_… --again            the new key was lost";

/// Mint a key that takes the place of another.
///
/// The new key has another id and the same rights; the old one goes on working
/// for a while. A key that is disabled, revoked or expired cannot be rotated, and
/// one that has a successor only with `--again`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RotateArgs {
    /// The id of the old key.
    #[arg(value_name = "ID")]
    id: String,
    /// How long the old key goes on working. With 0s it ends at once.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = options::duration)]
    grace: Duration,
    /// Mint another new key for a key that has one already, as when the first was
    /// lost.
    #[arg(long)]
    again: bool,
    /// How long the new key is valid [default: until the old one would have
    /// expired without a rotation].
    #[arg(long, value_name = "DURATION", value_parser = options::lifetime)]
    expires_in: Option<Duration>,
    /// Which environment the text of the new key names [default: that of the
    /// old key, or live where it cannot be told].
    #[arg(long = "env", value_enum)]
    environment: Option<EnvironmentOption>,
}

#[derive(Serialize)]
struct Replaces<'a> {
    replaces: &'a KeyRecord,
}

pub(super) async fn run(args: &RotateArgs, options: &GlobalOptions) -> Result<(), Failure> {
    let id = options::key_id(&args.id)?;
    let session = Session::open(options)?;
    let by = &session.by;
    let before = session.record(&id).await?;
    let ring = session.ring().await?;
    let rotation = args.rotation(by.at)?;
    let rotated = manage::rotate(&session.store, &ring, &before, rotation, by).await;
    let Rotated { new, old } = rotated.map_err(|error| failed(&session, &before, error))?;
    if options.json {
        reveal::print_json(&new, Replaces { replaces: &old })
    } else {
        let end = text::instant(old.rights.expires_at, "never");
        let details = text::details(&new.record, by.at);
        reveal::print_text(&new, &format!("{details}\nIt replaces {id}, which ends at {end}."))
    }
}

impl RotateArgs {
    fn rotation(&self, now: Timestamp) -> Result<Rotation, Failure> {
        let expires_at = self.expires_in.map(|time| options::after(now, time, "--expires-in"));
        Ok(Rotation {
            retire_at: options::after(now, self.grace, "--grace")?,
            expires_at: expires_at.transpose()?,
            again: self.again,
            environment: self.environment.map(Into::into),
        })
    }
}

fn failed(session: &Session, old: &KeyRecord, error: RotateError) -> Failure {
    let id = &old.id;
    Failure::new(match error {
        RotateError::Store(error) => return session.no_answer(&error),
        RotateError::ExpiryUnknown { .. } => {
            format!("{error}; say how long the new key is valid with --expires-in")
        }
        RotateError::New(CreateError::Rights(RightsError::NeverValid)) => {
            let start = text::instant(old.rights.not_before, "at once");
            format!(
                "key {id} becomes valid at {start}, and its successor would have expired by then; \
                 lengthen --expires-in"
            )
        }
        RotateError::New(CreateError::Rights(error)) => {
            format!("key {id} has rights that no new key may have: {error}")
        }
        RotateError::New(error) => return session.not_created(error),
    })
}
