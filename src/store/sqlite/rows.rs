//! Parses rows into records and changes.

use std::{error::Error, str::FromStr};

use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::{Result, Row, types::FromSql};
use serde::de::DeserializeOwned;

use crate::{
    key::{Digest, KeyRecord, Revision, Rights, stored_network},
    store::{StoreError, StoredKey, follower::ChangeRow},
};

/// Columns in the order in which [`stored_key`] reads them.
pub(super) const COLUMNS: &str = "digest, id, hint, secret, principal, name, scopes, \
    allowed_networks, audiences, metadata, not_before, expires_at, state, created_at, \
    last_used_at, predecessor, successor, revision";

/// Parses a row of [`COLUMNS`].
pub(super) fn stored_key(row: &Row<'_>) -> Result<StoredKey> {
    let mut cells = Cells { row, next: 0 };
    let digest = cells.digest()?;
    let record = KeyRecord {
        id: cells.parsed()?,
        hint: cells.plain()?,
        secret: cells.optional(|text: String| text.parse())?,
        rights: Rights {
            principal: cells.plain()?,
            name: cells.plain()?,
            scopes: cells.json()?,
            allowed_networks: cells.networks()?,
            audiences: cells.json()?,
            metadata: cells.json()?,
            not_before: cells.optional(Timestamp::from_microsecond)?,
            expires_at: cells.optional(Timestamp::from_microsecond)?,
        },
        state: cells.parsed()?,
        created_at: cells.required(Timestamp::from_microsecond)?,
        last_used_at: cells.optional(Timestamp::from_microsecond)?,
        predecessor: cells.optional(|text: String| text.parse())?,
        successor: cells.optional(|text: String| text.parse())?,
        revision: Revision(cells.plain()?),
    };
    Ok(StoredKey { digest, record })
}

/// Parses a row of [`COLUMNS`] as the answer for its digest. An unreadable record is an error
/// of that digest alone.
pub(super) fn answer(
    row: &Row<'_>,
) -> Result<(Digest, std::result::Result<KeyRecord, StoreError>)> {
    let digest = Cells { row, next: 0 }.digest()?;
    match stored_key(row) {
        Ok(key) => Ok((digest, Ok(key.record))),
        Err(error @ rusqlite::Error::FromSqlConversionFailure(..)) => {
            let detail = format!("{error}; correct the row with the `sqlite3` shell");
            Ok((digest, Err(StoreError::unreadable(detail))))
        }
        Err(error) => Err(error),
    }
}

/// Parses `revision, digest, kind`.
pub(super) fn change(row: &Row<'_>) -> Result<ChangeRow> {
    let mut cells = Cells { row, next: 0 };
    let revision = Revision(cells.plain()?);
    let digest = cells.digest()?;
    cells.required(|text: String| ChangeRow::parse(revision, digest, &text))
}

/// Parses `digest, deleted, there`.
pub(super) fn remembered(row: &Row<'_>) -> Result<(Digest, bool, bool)> {
    let mut cells = Cells { row, next: 0 };
    Ok((cells.digest()?, cells.plain()?, cells.plain()?))
}

/// Reads cells by position: finding each by name would take longer than the query.
struct Cells<'a, 'stmt> {
    row: &'a Row<'stmt>,
    next: usize,
}

impl Cells<'_, '_> {
    fn plain<T: FromSql>(&mut self) -> Result<T> {
        self.next += 1;
        self.row.get(self.next - 1)
    }

    fn digest(&mut self) -> Result<Digest> {
        self.required(|bytes: Vec<u8>| Digest::try_from(bytes.as_slice()))
    }

    fn parsed<T: FromStr<Err: Error + Send + Sync + 'static>>(&mut self) -> Result<T> {
        self.required(|text: String| text.parse())
    }

    fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.required(|text: String| serde_json::from_str(&text))
    }

    fn networks(&mut self) -> Result<Vec<IpNet>> {
        let texts: Vec<String> = self.json()?;
        let read = |text: &String| stored_network(text).ok_or_else(|| NoNetwork(text.clone()));
        let networks = texts.iter().map(read).collect::<std::result::Result<_, _>>();
        networks.map_err(|reason| self.unreadable(reason.into()))
    }

    fn required<S: FromSql, T, E: Error + Send + Sync + 'static>(
        &mut self,
        read: impl FnOnce(S) -> std::result::Result<T, E>,
    ) -> Result<T> {
        let stored = self.plain()?;
        read(stored).map_err(|reason| self.unreadable(reason.into()))
    }

    fn optional<S: FromSql, T, E: Error + Send + Sync + 'static>(
        &mut self,
        read: impl FnOnce(S) -> std::result::Result<T, E>,
    ) -> Result<Option<T>> {
        let stored = self.plain::<Option<S>>()?;
        stored.map(read).transpose().map_err(|reason| self.unreadable(reason.into()))
    }

    /// Error that names the row of the last cell read, and the reason.
    fn unreadable(&self, reason: Box<dyn Error + Send + Sync>) -> rusqlite::Error {
        let index = self.next - 1;
        let row = self.row.get("id").map_or_else(
            |_| "a row of `key_changes`".to_owned(),
            |id: String| format!("key `{id}`"),
        );
        let column = self.row.as_ref().column_name(index).unwrap_or_default().to_owned();
        let kind = self.row.get_ref(index).map_or(rusqlite::types::Type::Null, |v| v.data_type());
        let reason = Box::new(UnreadableCell { column, row, reason });
        rusqlite::Error::FromSqlConversionFailure(index, kind, reason)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no network")]
struct NoNetwork(String);

#[derive(Debug, thiserror::Error)]
#[error("column `{column}` of {row}: {reason}")]
struct UnreadableCell {
    column: String,
    row: String,
    reason: Box<dyn Error + Send + Sync>,
}
