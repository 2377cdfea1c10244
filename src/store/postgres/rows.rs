//! Parses rows into keys and changes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use tokio_postgres::{
    Row,
    types::{FromSql, FromSqlOwned, Type},
};

use super::error;
use crate::{
    key::{Digest, KeyId, KeyRecord, Revision, Rights, stored_network},
    store::{StoreError, StoreErrorKind, StoredKey, follower::ChangeRow},
};

/// Columns of a key, in the order in which [`stored_key`] reads them.
///
/// A user's relation has no rotation columns.
pub(super) fn key_columns(are_ours: bool) -> String {
    let rotation = if are_ours { "predecessor, successor" } else { "NULL::text, NULL::text" };
    format!("{COLUMNS}, {rotation}")
}

/// Cast, so that a user's relation may use an enum for the state, `inet[]` for networks or
/// `json` for metadata, and so that every column has a built-in type, which the driver decodes
/// without querying the server.
const COLUMNS: &str = "\
    id::text, digest, secret::text, hint::text, principal::text, name::text, scopes::text[], \
    allowed_networks::text[], audiences::text[], metadata::text, state::text, not_before, \
    expires_at, created_at, last_used_at, revision::bigint";

/// Number of [`key_columns`].
pub(super) const KEY_COLUMNS: usize = 18;

/// Parses a row of [`key_columns`].
///
/// In a user's relation, NULL means empty for hint, name, scopes, networks, audiences and
/// metadata. An invalid value is an error that names the key; nothing is guessed.
pub(super) fn stored_key(row: &Row) -> Result<StoredKey, StoreError> {
    let id: String = column(row, 0, "?")?;
    let id: KeyId =
        id.parse().map_err(|reason| StoreError::unreadable(format!("key {id:?}: {reason}")))?;
    let reader = Reader { row, id: &id };

    let record = KeyRecord {
        hint: reader.or_empty(3)?,
        secret: reader.optional(2, "secret")?,
        rights: reader.rights()?,
        state: reader.parse("state", &reader.get::<String>(10)?)?,
        created_at: reader.get::<Moment>(13)?.saturated(),
        last_used_at: reader.get::<Option<Moment>>(14)?.and_then(Moment::unless_before_all),
        revision: Revision(reader.get(15)?),
        predecessor: reader.optional(16, "predecessor")?,
        successor: reader.optional(17, "successor")?,
        id: id.clone(),
    };
    let digest = Digest::try_from(reader.get::<&[u8]>(1)?)
        .map_err(|reason| reader.unreadable("digest", reason))?;
    Ok(StoredKey { digest, record })
}

/// A digest with its record, or the reason why the record is unreadable.
pub(super) type FoundRow = (Digest, Result<KeyRecord, StoreError>);

/// Parses a row of [`key_columns`] as the answer for its digest; `None` if there is no key and
/// the row only identifies the server. An unreadable record is an error of that digest alone.
pub(super) fn answer(row: &Row) -> Result<Option<FoundRow>, StoreError> {
    let Some(digest) = column::<Option<&[u8]>>(row, 1, "?")? else { return Ok(None) };
    let digest = Digest::try_from(digest).map_err(|r| StoreError::unreadable(r.to_string()))?;
    match stored_key(row) {
        Err(error) if error.kind() != StoreErrorKind::Unreadable => Err(error),
        read => Ok(Some((digest, read.map(|key| key.record)))),
    }
}

/// Parses `revision, digest, kind`.
pub(super) fn change(row: &Row) -> Result<ChangeRow, StoreError> {
    let revision = revision(row)?;
    let digest = Digest::try_from(column::<&[u8]>(row, 1, "?")?)
        .map_err(|reason| StoreError::unreadable(format!("change {revision}: {reason}")))?;
    ChangeRow::parse(revision, digest, column(row, 2, "?")?)
}

/// Parses the fourth column: whether changes before the row are missing.
pub(super) fn is_after_a_gap(row: &Row) -> Result<bool, StoreError> {
    column(row, 3, "?")
}

/// Parses the first two columns of a row.
pub(super) fn pair<A: FromSqlOwned, B: FromSqlOwned>(row: &Row) -> Result<(A, B), StoreError> {
    Ok((column(row, 0, "?")?, column(row, 1, "?")?))
}

/// Parses an optional text.
pub(super) fn text(row: &Row) -> Result<Option<String>, StoreError> {
    column(row, 0, "?")
}

/// Parses `digest, deleted, there` from the second column on; `None` if there is no digest.
pub(super) fn remembered(row: &Row) -> Result<Option<(Digest, bool, bool)>, StoreError> {
    let Some(digest) = column::<Option<&[u8]>>(row, 1, "?")? else {
        return Ok(None);
    };
    let digest = Digest::try_from(digest).map_err(|r| StoreError::unreadable(r.to_string()))?;
    Ok(Some((digest, column(row, 2, "?")?, column(row, 3, "?")?)))
}

/// Parses a revision.
pub(super) fn revision(row: &Row) -> Result<Revision, StoreError> {
    column(row, 0, "?").map(Revision)
}

struct Reader<'a> {
    row: &'a Row,
    id: &'a KeyId,
}

impl<'a> Reader<'a> {
    fn rights(&self) -> Result<Rights, StoreError> {
        let principal: Option<String> = self.get(4)?;
        let networks: Vec<String> = self.or_empty(7)?;
        let metadata: Option<&str> = self.get(9)?;
        Ok(Rights {
            principal: principal
                .filter(|text| !text.is_empty())
                .ok_or_else(|| self.unreadable("principal", "it is empty"))?,
            name: self.or_empty(5)?,
            scopes: self.or_empty(6)?,
            allowed_networks: networks
                .iter()
                .map(|text| self.network(text))
                .collect::<Result<_, _>>()?,
            audiences: self.or_empty(8)?,
            metadata: metadata.map_or_else(|| Ok(BTreeMap::new()), |text| self.metadata(text))?,
            not_before: self.get::<Option<Moment>>(11)?.and_then(Moment::unless_before_all),
            expires_at: self.get::<Option<Moment>>(12)?.and_then(Moment::unless_after_all),
        })
    }

    fn get<T: FromSql<'a>>(&self, index: usize) -> Result<T, StoreError> {
        column(self.row, index, self.id.as_str())
    }

    fn or_empty<T: FromSqlOwned + Default>(&self, index: usize) -> Result<T, StoreError> {
        self.get::<Option<T>>(index).map(Option::unwrap_or_default)
    }

    fn parse<T: std::str::FromStr<Err: ToString>>(
        &self,
        what: &str,
        text: &str,
    ) -> Result<T, StoreError> {
        text.parse().map_err(|reason: T::Err| self.unreadable(what, reason))
    }

    fn optional<T: std::str::FromStr<Err: ToString>>(
        &self,
        index: usize,
        what: &str,
    ) -> Result<Option<T>, StoreError> {
        self.get::<Option<String>>(index)?.map(|text| self.parse(what, &text)).transpose()
    }

    fn network(&self, text: &str) -> Result<IpNet, StoreError> {
        stored_network(text)
            .ok_or_else(|| self.unreadable("allowed_networks", format!("{text:?} is no network")))
    }

    fn metadata(&self, text: &str) -> Result<BTreeMap<String, String>, StoreError> {
        serde_json::from_str(text)
            .map_err(|_| self.unreadable("metadata", "it is no object of strings"))
    }

    #[expect(clippy::needless_pass_by_value, reason = "shorter where it is called")]
    fn unreadable(&self, what: &str, reason: impl ToString) -> StoreError {
        let reason = reason.to_string();
        StoreError::unreadable(format!("key {}: `{what}` cannot be read: {reason}", self.id))
    }
}

/// Decodes a column. A wrong type is an error of the schema, an invalid value one of the row.
pub(super) fn column<'a, T: FromSql<'a>>(
    row: &'a Row,
    index: usize,
    key: &str,
) -> Result<T, StoreError> {
    row.try_get(index).map_err(|reason| {
        let column = &row.columns()[index];
        match error::translate(&reason, "").kind() {
            StoreErrorKind::Schema => StoreError::new(
                StoreErrorKind::Schema,
                format!("column `{}` has the unfitting type {}", column.name(), column.type_()),
            ),
            _ => StoreError::unreadable(format!(
                "key {key}: `{}` cannot be read: {}",
                column.name(),
                error::chain(&reason)
            )),
        }
    })
}

/// A `timestamptz`, possibly out of range.
///
/// PostgreSQL has `infinity`, `-infinity` and years that [`Timestamp`] lacks. An expiry after
/// all time is no expiry; one before all time has passed. Either way the key is valid exactly
/// as its row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    BeforeAll,
    At(Timestamp),
    AfterAll,
}

impl Moment {
    /// Converts the wire format: microseconds since 2000-01-01 00:00 UTC.
    fn from_wire(micros: i64) -> Self {
        const EPOCH: Timestamp = Timestamp::constant(946_684_800, 0);
        match EPOCH.checked_add(SignedDuration::from_micros(micros)) {
            Ok(at) => Self::At(at),
            Err(_) if micros < 0 => Self::BeforeAll,
            Err(_) => Self::AfterAll,
        }
    }

    fn saturated(self) -> Timestamp {
        match self {
            Self::BeforeAll => Timestamp::MIN,
            Self::At(at) => at,
            Self::AfterAll => Timestamp::MAX,
        }
    }

    fn unless_before_all(self) -> Option<Timestamp> {
        (self != Self::BeforeAll).then(|| self.saturated())
    }

    fn unless_after_all(self) -> Option<Timestamp> {
        (self != Self::AfterAll).then(|| self.saturated())
    }
}

impl<'a> FromSql<'a> for Moment {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self::from_wire(i64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::TIMESTAMPTZ
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_range_expiry_is_never_or_long_past() {
        assert_eq!(Moment::from_wire(i64::MAX).unless_after_all(), None);
        assert_eq!(Moment::from_wire(i64::MIN).unless_after_all(), Some(Timestamp::MIN));
        assert_eq!(Moment::from_wire(i64::MIN).unless_before_all(), None);
        assert_eq!(Moment::from_wire(i64::MAX).unless_before_all(), Some(Timestamp::MAX));
    }

    #[test]
    fn wire_format_counts_microseconds_from_2000() {
        let at = "2000-01-01T00:00:01.000002Z".parse().unwrap();
        assert_eq!(Moment::from_wire(1_000_002), Moment::At(at));
    }
}
