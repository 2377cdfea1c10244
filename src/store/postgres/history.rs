//! Consistency data of the server: which keys it should have, and which secrets they refer to.

use tokio_postgres::types::Type;

use super::{
    PostgresStore, Relation,
    call::{self, Pace},
    rows,
};
use crate::{
    key::Fingerprint,
    store::{History, SecretUse, StoreError},
};

/// Two index scans of a thousand rows each. Returns at least one row, so that `any` is known
/// even without changes.
fn history_statement() -> String {
    format!(
        "WITH newest AS ( \
             SELECT revision, digest, kind FROM keystead.key_changes WHERE kind <> 'canary' \
             ORDER BY revision DESC LIMIT {} \
         ), last AS ( \
             SELECT DISTINCT ON (digest) digest, kind FROM newest ORDER BY digest, revision DESC \
         ) \
         SELECT a.holds_any, last.digest, last.kind = 'deleted', k.digest IS NOT NULL \
         FROM (SELECT EXISTS (SELECT 1 FROM keystead.api_keys) AS holds_any) AS a \
         LEFT JOIN last ON true LEFT JOIN keystead.api_keys AS k ON k.digest = last.digest",
        History::CHANGES
    )
}

/// Skips from one secret to the next in their index.
fn secrets_statement() -> String {
    format!(
        "WITH RECURSIVE named (secret) AS ( \
             SELECT min(secret) FROM keystead.api_keys WHERE state = 'active' \
             UNION ALL \
             SELECT (SELECT min(k.secret) FROM keystead.api_keys AS k \
                     WHERE k.state = 'active' AND k.secret > named.secret) \
             FROM named WHERE named.secret IS NOT NULL \
         ), counted AS ( \
             SELECT named.secret, ( \
                 SELECT count(*) FROM ( \
                     SELECT 1 FROM keystead.api_keys AS k \
                     WHERE k.state = 'active' AND k.secret = named.secret \
                         AND (k.expires_at IS NULL OR k.expires_at > now()) LIMIT {} \
                 ) AS few) AS keys \
             FROM named WHERE named.secret <> ALL ($1::text[]) \
         ) \
         SELECT secret, keys FROM counted WHERE keys > 0",
        SecretUse::MANY
    )
}

/// The indexes of a user's table are unknown, so a sample of rows must do.
fn sample_statement(relation: &Relation) -> String {
    format!(
        "SELECT secret, count(*) FROM ( \
             SELECT secret::text, state::text, expires_at FROM {relation} LIMIT {} \
         ) AS sample \
         WHERE state = 'active' AND (expires_at IS NULL OR expires_at > now()) \
             AND secret <> ALL ($1::text[]) GROUP BY secret",
        SecretUse::MANY
    )
}

pub(super) async fn read(store: &PostgresStore) -> Result<History, StoreError> {
    let rows = store.query(&history_statement(), &[], Pace::Lookup).await?;
    let any = rows.first().map(|row| rows::column(row, 0, "?")).transpose()?.unwrap_or(false);
    let digests = rows.iter().map(rows::remembered).collect::<Result<Vec<_>, _>>()?;
    Ok(History::of(any, digests.into_iter().flatten()))
}

pub(super) async fn unknown_secrets(
    store: &PostgresStore,
    known: &[Fingerprint],
) -> Result<Vec<SecretUse>, StoreError> {
    let known: Vec<String> = known.iter().map(ToString::to_string).collect();
    let statement = store.relation.as_ref().map_or_else(secrets_statement, sample_statement);
    let params = [call::param(&known, Type::TEXT_ARRAY)];
    let rows = store.query(&statement, &params, Pace::Lookup).await?;
    let used = |row| Ok(SecretUse::of(rows::column(row, 0, "?")?, rows::column(row, 1, "?")?));
    rows.iter().filter_map(|row| used(row).transpose()).collect()
}
