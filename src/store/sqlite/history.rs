//! Consistency data of the file: which keys it should have, which secrets they refer to, and
//! which secrets were created beside it.

use rusqlite::{Connection, Result, named_params};

use super::rows;
use crate::{
    key::Fingerprint,
    store::{History, SecretUse},
};

pub(super) fn read(db: &Connection) -> Result<History> {
    // Both statements read one snapshot.
    let transaction = db.unchecked_transaction()?;
    let any = transaction
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM api_keys)")?
        .query_row([], |row| row.get(0))?;
    // Of rows with the same digest, SQLite returns that of the greatest revision, as documented
    // for a single `max`.
    let mut query = transaction.prepare_cached(
        "SELECT c.digest, c.kind = 'deleted', k.digest IS NOT NULL, max(c.revision)
         FROM (
             SELECT revision, digest, kind FROM key_changes WHERE kind <> 'canary'
             ORDER BY revision DESC LIMIT :changes
         ) AS c LEFT JOIN api_keys AS k ON k.digest = c.digest
         GROUP BY c.digest",
    )?;
    let digests = query
        .query_map(named_params! { ":changes": History::CHANGES }, rows::remembered)?
        .collect::<Result<Vec<_>>>()?;
    Ok(History::of(any, digests))
}

/// Skips from one secret to the next in their index.
pub(super) fn unknown_secrets(db: &Connection, known: &[Fingerprint]) -> Result<Vec<SecretUse>> {
    let mut query = db.prepare_cached(
        "WITH RECURSIVE named (secret) AS (
             SELECT min(secret) FROM api_keys WHERE state = 'active'
             UNION ALL
             SELECT (SELECT min(k.secret) FROM api_keys AS k
                     WHERE k.state = 'active' AND k.secret > named.secret)
             FROM named WHERE named.secret IS NOT NULL
         ), counted AS (
             SELECT named.secret, (
                 SELECT count(*) FROM (
                     SELECT 1 FROM api_keys AS k
                     WHERE k.state = 'active' AND k.secret = named.secret
                         AND (k.expires_at IS NULL OR k.expires_at >
                             CAST((julianday('now') - 2440587.5) * 86400000000 AS integer))
                     LIMIT :many
                 )) AS keys
             FROM named
             WHERE named.secret NOT IN (SELECT value FROM json_each(:known))
         )
         SELECT secret, keys FROM counted WHERE keys > 0",
    )?;
    let params = named_params! { ":known": listed(known), ":many": SecretUse::MANY };
    let used =
        query.query_map(params, |row| Ok(SecretUse::of(&row.get::<_, String>(0)?, row.get(1)?)))?;
    used.filter_map(Result::transpose).collect()
}

pub(super) fn note_secret(db: &Connection, secret: Fingerprint) -> Result<()> {
    db.prepare_cached("INSERT OR IGNORE INTO made_beside (secret) VALUES (:secret)")?
        .execute(named_params! { ":secret": secret.to_string() })
        .map(drop)
}

/// Whether the file was used with one of the secrets, or has or had a key.
pub(super) fn belongs_to(db: &Connection, secrets: &[Fingerprint]) -> Result<bool> {
    db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM api_keys)
             OR EXISTS (SELECT 1 FROM key_changes WHERE kind <> 'canary')
             OR EXISTS (
                 SELECT 1 FROM made_beside
                 WHERE secret IN (SELECT value FROM json_each(:secrets)))",
    )?
    .query_row(named_params! { ":secrets": listed(secrets) }, |row| row.get(0))
}

fn listed(secrets: &[Fingerprint]) -> String {
    let secrets: Vec<String> = secrets.iter().map(ToString::to_string).collect();
    serde_json::json!(secrets).to_string()
}
