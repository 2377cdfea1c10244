//! One line, whatever form it was written in.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::Timestamp;

use super::field::Field;
use crate::key::{Digest, KeyId, NetworkError, NewKey, Rights, State, parse_network};

/// One value of a line. Each says what is wrong if it is something else.
pub(super) trait Value {
    fn text(self) -> Result<String, String>;
    fn list(self) -> Result<Vec<String>, String>;
    fn map(self) -> Result<BTreeMap<String, String>, String>;
}

/// A line of which not all fields have been read.
#[derive(Debug, Default)]
pub(super) struct Draft {
    digest: Option<Digest>,
    rights: Rights,
    state: State,
    minted_here: bool,
}

impl Draft {
    /// Takes a value that is there; what is absent is not given here.
    pub(super) fn set(
        &mut self,
        name: &str,
        field: Field,
        value: impl Value,
    ) -> Result<(), String> {
        self.read(field, value).map_err(|what| format!("`{name}`: {what}"))
    }

    fn read(&mut self, field: Field, value: impl Value) -> Result<(), String> {
        let Self { digest, rights, state, minted_here } = self;
        match field {
            Field::Sha256 => *digest = Some(sha256(&value.text()?)?),
            Field::Principal => rights.principal = value.text()?,
            Field::Name => rights.name = value.text()?,
            Field::Scopes => rights.scopes = value.list()?,
            Field::AllowedNetworks => {
                let read = |text: &String| network(text);
                rights.allowed_networks =
                    value.list()?.iter().map(read).collect::<Result<_, _>>()?;
            }
            Field::Audiences => rights.audiences = value.list()?,
            Field::Metadata => rights.metadata = value.map()?,
            Field::State => *state = parse_state(&value.text()?)?,
            Field::NotBefore => rights.not_before = Some(instant(&value.text()?)?),
            Field::ExpiresAt => rights.expires_at = Some(instant(&value.text()?)?),
            Field::Secret => *minted_here = true,
            Field::Exported => {}
        }
        Ok(())
    }

    /// The key that the line describes, if nothing is missing and all is within bounds.
    pub(super) fn finish(self) -> Result<NewKey, String> {
        let Some(digest) = self.digest else {
            return Err(if self.minted_here {
                "it is a key that keystead minted: it has no `sha256`, and moves with the database \
                 and the secret file only; leave the line out"
            } else {
                "`sha256` is missing; write the SHA-256 of the key, 64 hex digits"
            }
            .to_owned());
        };
        if self.rights.principal.is_empty() {
            return Err("`principal` is missing; write whose key it is".to_owned());
        }
        self.rights.check().map_err(|error| error.to_string())?;
        let id = KeyId::generate().map_err(|error| error.to_string())?;
        let Self { rights, state, .. } = self;
        Ok(NewKey { id, digest, secret: None, hint: String::new(), rights, state })
    }
}

/// What was written is not repeated: it may be a key.
fn sha256(text: &str) -> Result<Digest, String> {
    Digest::from_hex(text).map_err(|_| {
        let count = text.chars().count();
        format!("these {count} characters are not 64 hex digits; write the SHA-256 of the key")
    })
}

fn network(text: &str) -> Result<IpNet, String> {
    parse_network(text).map_err(|error| match error {
        NetworkError::NotANetwork(_) => {
            format!("{} is no network; write one such as 10.0.0.0/8 or 2001:db8::/32", shown(text))
        }
        host_bits @ NetworkError::HostBits { .. } => host_bits.to_string(),
    })
}

fn parse_state(text: &str) -> Result<State, String> {
    text.parse()
        .map_err(|_| format!("{} is no state; write active, disabled or revoked", shown(text)))
}

fn instant(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        format!("{} is no time; write RFC 3339, such as 2027-01-31T12:00:00Z", shown(text))
    })
}

/// A text of somebody else's in a message: on one line, and none that may be a key,
/// which stands there when the columns are not those of the header.
pub(super) fn shown(text: &str) -> String {
    /// The longest text that is repeated: longer than any time, and as long as the
    /// shortest key that anybody should use.
    const MOST: usize = 36;
    let may_be_a_key = text.len() >= SHORTEST_KEY && !text.contains([' ', ':', '/']);
    if may_be_a_key || text.chars().nth(MOST).is_some() {
        return format!("what these {} characters say", text.chars().count());
    }
    let shown: String = text.chars().flat_map(char::escape_debug).collect();
    format!("`{shown}`")
}

/// The fewest bytes of a key that could not be guessed.
const SHORTEST_KEY: usize = 16;
