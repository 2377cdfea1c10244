//! `keystead keys rotate`

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    options::{self, EnvironmentOption},
    reveal::{self, NewKeyJson},
    session::Session,
    text,
};
use crate::{
    cli::{Failure, GlobalOptions},
    key::{
        Action, Environment, KeyId, KeyRecord, Lifetime, NewKey, Rights, RightsError, Successor,
    },
    store::KeyAdmin,
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
    let minted = session.ring().await?.mint(args.environment_after(&before))?;
    let lifetime = match (args.expires_in, &before.successor) {
        (Some(time), _) => Lifetime::Until(Some(options::after(by.at, time, "--expires-in")?)),
        (None, Some(successor)) if args.again => {
            Lifetime::Until(lifetime_before(&session, &before, successor).await?)
        }
        (None, _) => Lifetime::OfOld,
    };
    let successor = Successor { key: NewKey::minted(&minted, Rights::default()), lifetime };
    check(&successor.inherit(&before).rights, &before)?;
    let retire_at = options::after(by.at, args.grace, "--grace")?;
    let action = Action::Rotate { retire_at, again: args.again };
    let rotated = session.store.act(&id, action, Some(&successor), by).await;
    let old = rotated.map_err(|error| session.refused(&error, Some(&minted.id)))?;

    let new = session.stored(successor.inherit(&before), Some(&id)).await;
    if options.json {
        let more = Replaces { replaces: &old };
        reveal::print_json(&minted, &NewKeyJson { key: minted.key.expose(), record: &new, more })
    } else {
        let end = text::instant(old.rights.expires_at, "never");
        let details = text::details(&new, by.at);
        reveal::print_text(&minted, &format!("{details}\nIt replaces {id}, which ends at {end}."))
    }
}

/// When a key that was rotated would have expired without that: its successor was
/// given that end, or another one in its place, and was perhaps rotated itself.
async fn lifetime_before(
    session: &Session,
    rotated: &KeyRecord,
    successor: &KeyId,
) -> Result<Option<Timestamp>, Failure> {
    let (mut seen, mut next) = (vec![rotated.id.clone()], successor.clone());
    loop {
        let found = session.store.get(&next).await.map_err(|error| session.no_answer(&error))?;
        // Plain SQL can have made a circle.
        let Some(record) = found.filter(|record| !seen.contains(&record.id)) else {
            return Err(needs_lifetime(rotated, &next, "is gone"));
        };
        let Some(further) = record.successor else {
            let end = record.rights.expires_at;
            let is_over = end.is_some_and(|end| end <= session.by.at);
            return if is_over {
                Err(needs_lifetime(rotated, &next, "has expired"))
            } else {
                Ok(end)
            };
        };
        seen.push(record.id);
        next = further;
    }
}

fn needs_lifetime(rotated: &KeyRecord, successor: &KeyId, why: &str) -> Failure {
    Failure::new(format!(
        "it is not known how long key {} was valid before it was rotated, as its successor \
         {successor} {why}; say how long the new key is valid with --expires-in",
        rotated.id
    ))
}

/// Whether the successor may have the rights that it inherits, of which plain
/// SQL can have made anything.
fn check(rights: &Rights, old: &KeyRecord) -> Result<(), Failure> {
    let id = &old.id;
    rights.check().map_err(|error| match error {
        RightsError::NeverValid => {
            let start = text::instant(rights.not_before, "at once");
            Failure::new(format!(
                "key {id} becomes valid at {start}, and its successor would have expired by then; \
                 lengthen --expires-in"
            ))
        }
        error => Failure::new(format!("key {id} has rights that no new key may have: {error}")),
    })
}

impl RotateArgs {
    fn environment_after(&self, old: &KeyRecord) -> Environment {
        let chosen = self.environment.map(Environment::from);
        chosen.or_else(|| options::environment_of(&old.hint)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, ToSpan};

    use super::*;
    use crate::store::fake;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    #[test]
    fn a_successor_that_would_never_be_valid_is_refused() {
        let mut old = fake::record("acme", 1);
        old.rights.not_before = Some(NOW + 720.hours());
        let refused = |hours: i64| {
            let rights = Rights { expires_at: Some(NOW + hours.hours()), ..old.rights.clone() };
            check(&rights, &old).err().map(|failure| failure.message)
        };
        let said = refused(24).unwrap();
        assert!(said.contains("lengthen --expires-in"), "{said}");
        assert!(refused(720).is_some());
        assert_eq!(refused(721), None);
    }

    #[test]
    fn rights_that_no_key_may_have_are_not_handed_on() {
        let mut old = fake::record("acme", 1);
        old.rights.scopes.push("read write".to_owned());
        let said = check(&old.rights, &old).unwrap_err().message;
        assert!(said.contains("white space"), "{said}");
    }
}
