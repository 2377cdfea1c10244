//! Changes keys: one transaction each, including the audit log.

use std::collections::HashMap;

use serde::Serialize;
use tokio_postgres::types::Type;

use super::{
    PostgresStore,
    call::{Transaction, param},
    rows,
};
use crate::{
    key::{Action, Digest, KeyId, KeyRecord, NewKey, Revision, Rights, State, Successor},
    store::{Provenance, StoreError, StoredKey, WriteError},
};

/// Number of keys per insert statement. Bounds the memory needed besides the keys themselves
/// (statement text, returned rows and audit text): some megabytes for typical keys, some
/// hundred for keys at their maximum size. Keeps a statement far below its time-out; larger
/// chunks are not measurably faster.
const CHUNK: usize = 5_000;

/// Audit action for a new key.
const CREATE: &str = "create";

/// Inserts all keys or none.
pub(super) async fn insert(
    store: &PostgresStore,
    keys: &[NewKey],
    by: &Provenance,
) -> Result<(), WriteError> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut transaction = store.begin().await?;
    let (mut created, mut duplicates) = (Vec::new(), Vec::new());
    for (number, chunk) in keys.chunks(CHUNK).enumerate() {
        let stored = insert_chunk(&mut transaction, chunk, None, by).await?;
        let refused = positions_missing(chunk, &stored);
        duplicates.extend(refused.into_iter().map(|position| number * CHUNK + position));
        created.extend(stored.into_iter().map(|key| key.record));
    }
    if !duplicates.is_empty() {
        transaction.roll_back().await?;
        return Err(WriteError::Duplicates(duplicates));
    }
    number(&mut transaction, created.iter_mut()).await?;
    for chunk in created.chunks(CHUNK) {
        let entries: Vec<_> = chunk.iter().map(|record| (CREATE, None, record)).collect();
        audit(&mut transaction, &entries, by).await?;
    }
    transaction.commit().await
}

/// Applies an action to one key.
pub(super) async fn act(
    store: &PostgresStore,
    id: &KeyId,
    action: Action,
    successor: Option<&Successor>,
    by: &Provenance,
) -> Result<KeyRecord, WriteError> {
    let mut transaction = store.begin().await?;
    let Some(before) = lock(&mut transaction, id).await? else {
        transaction.roll_back().await?;
        return Err(WriteError::NotFound(id.clone()));
    };
    let (state, expires_at) = match action.apply(&before, by.at) {
        Ok(change) => change,
        Err(reason) => {
            transaction.roll_back().await?;
            return Err(WriteError::Refused { id: id.clone(), reason });
        }
    };
    let successor = successor.map(|successor| successor.inherit(&before));
    let new_id = successor.as_ref().map(|key| &key.id);
    let mut after = update(&mut transaction, id, state, expires_at, new_id).await?;

    let mut created = match &successor {
        None => Vec::new(),
        Some(key) => {
            insert_chunk(&mut transaction, std::slice::from_ref(key), Some(id), by).await?
        }
    };
    if successor.is_some() && created.is_empty() {
        transaction.roll_back().await?;
        return Err(WriteError::Duplicates(vec![0]));
    }

    let new = created.iter_mut().map(|key| &mut key.record);
    number(&mut transaction, std::iter::once(&mut after).chain(new)).await?;
    let mut entries = vec![(action.as_str(), Some(&before), &after)];
    entries.extend(created.iter().map(|key| (CREATE, None, &key.record)));
    audit(&mut transaction, &entries, by).await?;
    transaction.commit().await?;
    Ok(after)
}

async fn lock(
    transaction: &mut Transaction<'_>,
    id: &KeyId,
) -> Result<Option<KeyRecord>, StoreError> {
    let columns = rows::key_columns(true);
    let sql = format!("SELECT {columns} FROM keystead.api_keys WHERE id = $1 FOR UPDATE");
    let id = id.as_str();
    let rows = transaction.query(&sql, &[param(&id, Type::TEXT)]).await?;
    rows.first().map(|row| rows::stored_key(row).map(|key| key.record)).transpose()
}

async fn update(
    transaction: &mut Transaction<'_>,
    id: &KeyId,
    state: State,
    expires_at: Option<jiff::Timestamp>,
    successor: Option<&KeyId>,
) -> Result<KeyRecord, StoreError> {
    let columns = rows::key_columns(true);
    let sql = format!(
        "UPDATE keystead.api_keys SET state = $2, expires_at = $3, \
         successor = COALESCE($4, successor) WHERE id = $1 RETURNING {columns}"
    );
    let (id, state) = (id.as_str(), state.as_str());
    let successor = successor.map(KeyId::as_str);
    let params = [
        param(&id, Type::TEXT),
        param(&state, Type::TEXT),
        param(&expires_at, Type::TIMESTAMPTZ),
        param(&successor, Type::TEXT),
    ];
    let rows = transaction.query(&sql, &params).await?;
    let row = rows.first().ok_or_else(|| {
        StoreError::unreadable(format!("key {id}: a rule or trigger of the table hides its update"))
    })?;
    rows::stored_key(row).map(|key| key.record)
}

/// Numbers the changes and copies the revisions into the records. Called last, as other writers
/// wait from then on.
async fn number<'a>(
    transaction: &mut Transaction<'_>,
    changed: impl Iterator<Item = &'a mut KeyRecord>,
) -> Result<(), StoreError> {
    const SQL: &str = "SELECT revision, id FROM keystead.api_keys WHERE id = ANY($1)";
    transaction.number().await?;
    let mut changed: HashMap<String, &mut KeyRecord> =
        changed.map(|record| (record.id.to_string(), record)).collect();
    let ids: Vec<_> = changed.keys().cloned().collect();
    for row in transaction.query(SQL, &[param(&ids, Type::TEXT_ARRAY)]).await? {
        let (revision, id): (i64, String) = rows::pair(&row)?;
        if let Some(record) = changed.get_mut(&id) {
            record.revision = Revision(revision);
        }
    }
    Ok(())
}

/// A key in the JSON parameter of the insert.
#[derive(Serialize)]
struct NewRow<'a> {
    id: &'a KeyId,
    digest: String,
    secret: Option<String>,
    hint: &'a str,
    #[serde(flatten)]
    rights: &'a Rights,
    state: State,
}

/// Inserts keys and returns those inserted. Skips keys whose digest or id exists or occurs
/// earlier in `keys`.
async fn insert_chunk(
    transaction: &mut Transaction<'_>,
    keys: &[NewKey],
    predecessor: Option<&KeyId>,
    by: &Provenance,
) -> Result<Vec<StoredKey>, StoreError> {
    let columns = rows::key_columns(true);
    // One JSON parameter, as arrays of arrays do not fit statement parameters. The cast drops
    // bits beyond a network's mask.
    let sql = format!(
        "INSERT INTO keystead.api_keys ( \
             id, digest, secret, hint, principal, name, scopes, allowed_networks, audiences, \
             metadata, state, not_before, expires_at, created_at, predecessor) \
         SELECT k.id, k.digest, k.secret, k.hint, k.principal, k.name, k.scopes, \
             k.allowed_networks::cidr[], k.audiences, k.metadata, k.state, k.not_before, \
             k.expires_at, $2, $3 \
         FROM json_to_recordset($1::json) AS k ( \
             id text, digest bytea, secret text, hint text, principal text, name text, \
             scopes text[], allowed_networks inet[], audiences text[], metadata jsonb, \
             state text, not_before timestamptz, expires_at timestamptz) \
         ON CONFLICT DO NOTHING RETURNING {columns}"
    );
    let new: Vec<_> = keys.iter().map(NewRow::from).collect();
    let json = to_json(&new)?;
    let predecessor = predecessor.map(KeyId::as_str);
    let params = [
        param(&json, Type::TEXT),
        param(&by.at, Type::TIMESTAMPTZ),
        param(&predecessor, Type::TEXT),
    ];
    let rows = transaction.query(&sql, &params).await?;
    rows.iter().map(rows::stored_key).collect()
}

impl<'a> From<&'a NewKey> for NewRow<'a> {
    fn from(key: &'a NewKey) -> Self {
        Self {
            id: &key.id,
            digest: format!(r"\x{}", key.digest.to_hex()),
            secret: key.secret.map(|secret| secret.to_string()),
            hint: &key.hint,
            rights: &key.rights,
            state: key.state,
        }
    }
}

/// Positions of keys that were not inserted.
fn positions_missing(keys: &[NewKey], stored: &[StoredKey]) -> Vec<usize> {
    let mut stored: HashMap<Digest, &KeyId> =
        stored.iter().map(|key| (key.digest, &key.record.id)).collect();
    let mut missing = Vec::new();
    for (position, key) in keys.iter().enumerate() {
        if stored.get(&key.digest) == Some(&&key.id) {
            stored.remove(&key.digest);
        } else {
            missing.push(position);
        }
    }
    missing
}

/// An audit entry: the action, and the record before and after.
type Entry<'a> = (&'static str, Option<&'a KeyRecord>, &'a KeyRecord);

#[derive(Serialize)]
struct AuditRow<'a> {
    action: &'static str,
    key_id: &'a KeyId,
    before: Option<&'a KeyRecord>,
    after: &'a KeyRecord,
}

async fn audit(
    transaction: &mut Transaction<'_>,
    entries: &[Entry<'_>],
    by: &Provenance,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        INSERT INTO keystead.audit_log (at, actor, origin, action, key_id, before, after) \
        SELECT $2, $3, $4, e.action, e.key_id, e.before, e.after \
        FROM json_to_recordset($1::json) \
            AS e (action text, key_id text, before jsonb, after jsonb)";
    let rows: Vec<_> = entries
        .iter()
        .map(|&(action, before, after)| AuditRow { action, key_id: &after.id, before, after })
        .collect();
    let json = to_json(&rows)?;
    let params = [
        param(&json, Type::TEXT),
        param(&by.at, Type::TIMESTAMPTZ),
        param(&by.actor, Type::TEXT),
        param(&by.origin, Type::TEXT),
    ];
    transaction.query(SQL, &params).await.map(drop)
}

fn to_json(rows: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(rows).map_err(|reason| StoreError::unreadable(reason.to_string()))
}
