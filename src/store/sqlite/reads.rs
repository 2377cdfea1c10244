//! Queries. Each reads one snapshot of the store.

use std::num::NonZeroU32;

use rusqlite::{Connection, OptionalExtension, Result, named_params};

use super::rows::{self, COLUMNS};
use crate::{
    key::{Digest, KeyId, KeyRecord, Revision},
    store::{ChangePage, DataAge, Lookup, Page, StoredKey},
};

pub(super) fn find(db: &Connection, digests: &[Digest]) -> Result<Lookup> {
    let sql = format!(
        "SELECT {COLUMNS} FROM api_keys
         WHERE digest IN (SELECT unhex(value) FROM json_each(:digests))"
    );
    let hex: Vec<String> = digests.iter().map(|digest| digest.to_hex()).collect();
    let hex = serde_json::json!(hex).to_string();
    let mut query = db.prepare_cached(&sql)?;
    let found: Vec<_> =
        query.query_map(named_params! { ":digests": hex }, rows::answer)?.collect::<Result<_>>()?;
    Ok(Lookup::answered(digests, found, DataAge::Current))
}

/// Changes whenever another connection writes to the file, and never otherwise on the same
/// connection. Far cheaper than a query.
pub(super) fn data_version(db: &Connection) -> Result<i64> {
    db.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// `None` if changes after that revision have been deleted.
pub(super) fn changes(
    db: &Connection,
    after: Revision,
    limit: NonZeroU32,
) -> Result<Option<ChangePage>> {
    // Both statements read one snapshot.
    let transaction = db.unchecked_transaction()?;
    let pruned: i64 = transaction
        .prepare_cached("SELECT COALESCE(max(through), 0) FROM pruned_changes")?
        .query_row([], |row| row.get(0))?;
    if pruned > after.0 {
        return Ok(None);
    }
    let mut query = transaction.prepare_cached(
        "SELECT revision, digest, kind FROM key_changes
         WHERE revision > :after ORDER BY revision LIMIT :limit",
    )?;
    let params = named_params! { ":after": after.0, ":limit": limit.get() };
    let rows = query.query_map(params, rows::change)?.collect::<Result<Vec<_>>>()?;
    Ok(Some(ChangePage::of(rows)))
}

pub(super) fn head(db: &Connection) -> Result<Revision> {
    // Not the maximum in `key_changes`, where old rows may have been deleted.
    db.prepare_cached("SELECT revision - 1 FROM next_change")?
        .query_row([], |row| row.get(0).map(Revision))
}

pub(super) fn get(db: &Connection, id: &KeyId) -> Result<Option<KeyRecord>> {
    let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM api_keys WHERE id = :id"))?;
    let stored = query.query_row(named_params! { ":id": id.as_str() }, rows::stored_key);
    Ok(stored.optional()?.map(|key| key.record))
}

pub(super) fn list(db: &Connection, page: &Page) -> Result<Vec<StoredKey>> {
    // Every id is greater than the empty string.
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
