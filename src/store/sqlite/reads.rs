//! The queries. Each is one statement, so that it sees one state of the store.

use std::num::NonZeroU32;

use rusqlite::{Connection, OptionalExtension, Result, named_params};

use super::rows::{self, COLUMNS};
use crate::{
    key::{Digest, KeyId, KeyRecord, Revision},
    store::{Change, Lookup, Page, StoredKey},
};

pub(super) fn find(db: &Connection, digests: &[Digest]) -> Result<Lookup> {
    let sql = format!(
        "SELECT {COLUMNS} FROM api_keys
         WHERE digest IN (SELECT unhex(value) FROM json_each(:digests))"
    );
    let asked: Vec<String> = digests.iter().map(|digest| digest.to_hex()).collect();
    let asked = serde_json::json!(asked).to_string();
    let mut query = db.prepare_cached(&sql)?;
    let found: Vec<StoredKey> = query
        .query_map(named_params! { ":digests": asked }, rows::stored_key)?
        .collect::<Result<_>>()?;
    Ok(Lookup::answered(digests, found.into_iter().map(|key| (key.digest, key.record))))
}

pub(super) fn changes(db: &Connection, after: Revision, limit: NonZeroU32) -> Result<Vec<Change>> {
    let mut query = db.prepare_cached(
        "SELECT revision, digest, kind FROM key_changes
         WHERE revision > :after ORDER BY revision LIMIT :limit",
    )?;
    let params = named_params! { ":after": after.0, ":limit": limit.get() };
    query.query_map(params, rows::change)?.collect()
}

pub(super) fn head(db: &Connection) -> Result<Revision> {
    // Not the greatest that is left in `key_changes`, as old rows may have been
    // deleted there.
    let newest = db
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'key_changes'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(Revision(newest.unwrap_or(0)))
}

pub(super) fn get(db: &Connection, id: &KeyId) -> Result<Option<KeyRecord>> {
    let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM api_keys WHERE id = :id"))?;
    let stored = query.query_row(named_params! { ":id": id.as_str() }, rows::stored_key);
    Ok(stored.optional()?.map(|key| key.record))
}

pub(super) fn list(db: &Connection, page: &Page) -> Result<Vec<StoredKey>> {
    // Every id is greater than the empty text.
    let after = page.after.as_ref().map_or("", |id| id.as_str());
    let limit = page.limit.get();
    if let Some(principal) = &page.principal {
        let mut query = db.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM api_keys
             WHERE principal = :principal AND id > :after ORDER BY id LIMIT :limit"
        ))?;
        let params = named_params! { ":principal": principal, ":after": after, ":limit": limit };
        query.query_map(params, rows::stored_key)?.collect()
    } else {
        let mut query = db.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM api_keys WHERE id > :after ORDER BY id LIMIT :limit"
        ))?;
        let params = named_params! { ":after": after, ":limit": limit };
        query.query_map(params, rows::stored_key)?.collect()
    }
}
