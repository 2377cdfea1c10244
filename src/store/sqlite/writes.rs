//! Writes. Each is one transaction, including its audit entries.

use jiff::Timestamp;
use rusqlite::{Connection, Result, Transaction, TransactionBehavior, named_params};
use serde::Serialize;

use super::reads;
use crate::{
    key::{Action, Digest, KeyId, KeyRecord, NewKey, Successor},
    store::{Provenance, WriteError},
};

/// Audit action for a new key.
const CREATE: &str = "create";

/// Inserts all keys or none.
pub(super) fn insert(
    db: &mut Connection,
    keys: &[NewKey],
    by: &Provenance,
) -> Result<Result<(), WriteError>> {
    let transaction = begin(db)?;
    let mut duplicates = Vec::new();
    for (position, key) in keys.iter().enumerate() {
        if !store(&transaction, key, None, by)? {
            duplicates.push(position);
        }
    }
    if !duplicates.is_empty() {
        return Ok(Err(WriteError::Duplicates(duplicates)));
    }
    transaction.commit()?;
    Ok(Ok(()))
}

pub(super) fn act(
    db: &mut Connection,
    id: &KeyId,
    action: Action,
    successor: Option<&Successor>,
    by: &Provenance,
) -> Result<Result<KeyRecord, WriteError>> {
    let transaction = begin(db)?;
    let Some(before) = reads::get(&transaction, id)? else {
        return Ok(Err(WriteError::NotFound(id.clone())));
    };
    let (state, expires_at) = match action.apply(&before, by.at) {
        Ok(afterwards) => afterwards,
        Err(reason) => return Ok(Err(WriteError::Refused { id: id.clone(), reason })),
    };
    transaction
        .prepare_cached(
            "UPDATE api_keys SET state = :state, expires_at = :expires_at,
                 successor = COALESCE(:successor, successor)
             WHERE id = :id",
        )?
        .execute(named_params! {
            ":id": id.as_str(),
            ":state": state.as_str(),
            ":expires_at": expires_at.map(Timestamp::as_microsecond),
            ":successor": successor.map(|successor| successor.key.id.as_str()),
        })?;
    let after = read_back(&transaction, id)?;
    audit(&transaction, by, action.as_str(), Some(&before), &after)?;

    if let Some(successor) = successor
        && !store(&transaction, &successor.inherit(&before), Some(id), by)?
    {
        return Ok(Err(WriteError::Duplicates(vec![0])));
    }
    transaction.commit()?;
    Ok(Ok(after))
}

pub(super) fn touch(db: &mut Connection, uses: &[(KeyId, Timestamp)]) -> Result<()> {
    let transaction = begin(db)?;
    let mut update = transaction.prepare_cached(
        "UPDATE api_keys SET last_used_at = :at
         WHERE id = :id AND (last_used_at IS NULL OR last_used_at < :at)",
    )?;
    for (id, at) in uses {
        update.execute(named_params! { ":id": id.as_str(), ":at": at.as_microsecond() })?;
    }
    drop(update);
    transaction.commit()
}

/// Writes a canary and deletes those older than a minute.
pub(super) fn canary(db: &mut Connection, token: &Digest) -> Result<()> {
    let transaction = begin(db)?;
    // In microseconds, like the column's default.
    transaction
        .prepare_cached(
            "DELETE FROM key_changes WHERE kind = 'canary' AND changed_at <
                 CAST((julianday('now', '-1 minute') - 2440587.5) * 86400000000 AS integer)",
        )?
        .execute([])?;
    transaction
        .prepare_cached(
            "INSERT INTO key_changes (revision, digest, kind)
                 SELECT revision, :token, 'canary' FROM next_change",
        )?
        .execute(named_params! { ":token": token.as_bytes() })?;
    transaction.commit()
}

/// Takes the write lock at once: a transaction that reads first fails to write if another
/// process has written in between.
fn begin(db: &mut Connection) -> Result<Transaction<'_>> {
    db.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Inserts a key. Returns false if its digest or id exists.
fn store(
    transaction: &Transaction<'_>,
    key: &NewKey,
    predecessor: Option<&KeyId>,
    by: &Provenance,
) -> Result<bool> {
    let rights = &key.rights;
    let stored = transaction
        .prepare_cached(
            "INSERT INTO api_keys (id, digest, secret, hint, principal, name, scopes,
                 allowed_networks, audiences, metadata, state, not_before, expires_at, created_at,
                 predecessor)
             VALUES (:id, :digest, :secret, :hint, :principal, :name, :scopes,
                 :allowed_networks, :audiences, :metadata, :state, :not_before, :expires_at, :at,
                 :predecessor)
             ON CONFLICT DO NOTHING",
        )?
        .execute(named_params! {
            ":id": key.id.as_str(),
            ":digest": key.digest.as_bytes(),
            ":secret": key.secret.map(|fingerprint| fingerprint.to_string()),
            ":hint": key.hint,
            ":principal": rights.principal,
            ":name": rights.name,
            ":scopes": json(&rights.scopes)?,
            ":allowed_networks": json(&rights.allowed_networks)?,
            ":audiences": json(&rights.audiences)?,
            ":metadata": json(&rights.metadata)?,
            ":state": key.state.as_str(),
            ":not_before": rights.not_before.map(Timestamp::as_microsecond),
            ":expires_at": rights.expires_at.map(Timestamp::as_microsecond),
            ":at": by.at.as_microsecond(),
            ":predecessor": predecessor.map(KeyId::as_str),
        })?;
    if stored == 0 {
        return Ok(false);
    }
    let after = read_back(transaction, &key.id)?;
    audit(transaction, by, CREATE, None, &after)?;
    Ok(true)
}

/// Reads the record as the triggers left it.
fn read_back(transaction: &Transaction<'_>, id: &KeyId) -> Result<KeyRecord> {
    reads::get(transaction, id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

fn audit(
    transaction: &Transaction<'_>,
    by: &Provenance,
    action: &str,
    before: Option<&KeyRecord>,
    after: &KeyRecord,
) -> Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO audit_log (at, actor, origin, action, key_id, before, after)
             VALUES (:at, :actor, :origin, :action, :key_id, :before, :after)",
        )?
        .execute(named_params! {
            ":at": by.at.as_microsecond(),
            ":actor": by.actor,
            ":origin": by.origin,
            ":action": action,
            ":key_id": after.id.as_str(),
            ":before": before.map(json).transpose()?,
            ":after": json(after)?,
        })?;
    Ok(())
}

fn json(value: &(impl Serialize + ?Sized)) -> Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}
