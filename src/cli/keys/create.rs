//! `keystead keys create`

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    options::{self, EnvironmentOption},
    reveal,
    session::Session,
    text,
};
use crate::{
    cli::{Failure, GlobalOptions, scope},
    key::{Rights, parse_network},
    manage,
};

const EXAMPLES: &str = "\
The key is printed on stdout, and everything else on stderr. With --json, stdout
has one object: `key` (the key itself), `id` and all that is stored.

Examples:
  keystead keys create --principal acme --scope read --scope write --expires-in 90d
  keystead keys create --principal acme --allow-network 10.0.0.0/8 --audience billing
  keystead keys create --principal acme --metadata plan=gold --json | jq -r .key";

/// Mint a key and print it, once.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CreateArgs {
    /// Whose key it is: 1 to 256 bytes.
    #[arg(long, value_name = "NAME")]
    principal: String,
    /// A scope to grant, without white space. May be repeated.
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    scopes: Vec<String>,
    /// What people call the key.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    name: String,
    /// How long the key is valid, such as 90d or 12h [default: for ever].
    #[arg(long, value_name = "DURATION", value_parser = options::lifetime)]
    expires_in: Option<Duration>,
    /// When the key becomes valid, as RFC 3339 [default: at once].
    #[arg(long, value_name = "TIME", value_parser = options::instant)]
    not_before: Option<Timestamp>,
    /// A network that the key may be used from, such as 10.0.0.0/8. May be
    /// repeated [default: from anywhere].
    #[arg(long = "allow-network", value_name = "CIDR", value_parser = parse_network)]
    allowed_networks: Vec<IpNet>,
    /// A service that the key may be used for. May be repeated [default: any].
    #[arg(long = "audience", value_name = "NAME")]
    audiences: Vec<String>,
    /// What is handed to the caller with every answer. May be repeated.
    #[arg(long = "metadata", value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Which environment the text of the key names.
    #[arg(long = "env", value_enum, default_value = "live")]
    environment: EnvironmentOption,
}

pub(super) async fn run(args: CreateArgs, options: &GlobalOptions) -> Result<(), Failure> {
    let session = Session::open_or_create(options).await?;
    let by = &session.by;
    let environment = args.environment.into();
    let rights = args.rights(by.at)?;
    // Before the secrets are opened: with an embedded store that may make them.
    rights.check()?;
    let ring = session.ring().await?;
    let created = manage::create(&session.store, &ring, environment, rights, by).await;
    let new = created.map_err(|error| session.not_created(error))?;
    if options.json {
        reveal::print_json(&new, ())
    } else {
        reveal::print_text(&new, &text::details(&new.record, by.at))
    }
}

impl CreateArgs {
    fn rights(self, now: Timestamp) -> Result<Rights, Failure> {
        let expires_at =
            self.expires_in.map(|time| options::after(now, time, "--expires-in")).transpose()?;
        Ok(Rights {
            principal: self.principal,
            name: self.name,
            scopes: self.scopes,
            allowed_networks: self.allowed_networks,
            audiences: self.audiences,
            metadata: unique(self.metadata)?,
            not_before: self.not_before,
            expires_at,
        })
    }
}

/// Reads `NAME=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn unique(pairs: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Failure> {
    let mut metadata = BTreeMap::new();
    for (name, value) in pairs {
        if metadata.contains_key(&name) {
            let name = text::printable(&name);
            return Err(Failure::new(format!(
                "--metadata {name}=… is given twice; remove one of the two"
            )));
        }
        metadata.insert(name, value);
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_split_at_the_first_equals_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert_eq!(pair("a"), Err("write NAME=VALUE".to_owned()));
    }

    #[test]
    fn a_piece_of_metadata_that_is_given_twice_is_refused() {
        let pairs = vec![pair("a=1").unwrap(), pair("b=2").unwrap()];
        assert_eq!(unique(pairs.clone()).unwrap().len(), 2);
        let error = unique([pairs, vec![pair("a=1").unwrap()]].concat()).unwrap_err();
        assert!(error.message.contains("--metadata a=… is given twice"), "{}", error.message);
    }
}
