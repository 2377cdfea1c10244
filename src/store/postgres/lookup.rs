//! Looking keys up, on a primary or on a standby that may not have them yet.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::types::Type;

use super::{
    PostgresStore,
    call::{self, Pace},
    replay::Observed,
    rows,
    witness::ServerReport,
};
use crate::{
    key::Digest,
    store::{DataAge, Lookup, StoreError},
};

/// Pause before a standby is queried again, which gives it time to replay.
const REPLAY_PAUSE: Duration = Duration::from_millis(5);

pub(super) async fn find(store: &PostgresStore, digests: &[Digest]) -> Result<Lookup, StoreError> {
    // A standby soon replays what it had received at the first query: if a key is missing,
    // query it again.
    let until = Instant::now() + store.query_timeout / 2;
    let mut received_at_first = None;
    loop {
        let (lookup, received) = query_once(store, digests, received_at_first).await?;
        let Some(received) = received else { return Ok(lookup) };
        received_at_first.get_or_insert(received);
        if Instant::now() + REPLAY_PAUSE >= until {
            return Ok(lookup);
        }
        sleep(REPLAY_PAUSE).await;
    }
}

/// Queries once. If a standby lacks a key that may still arrive, also returns the position up
/// to which it had received at the first query.
async fn query_once(
    store: &PostgresStore,
    digests: &[Digest],
    received_at_first: Option<i64>,
) -> Result<(Lookup, Option<i64>), StoreError> {
    let requested: Vec<&[u8]> = digests.iter().map(|digest| &digest.as_bytes()[..]).collect();
    let params = [call::param(&requested, Type::BYTEA_ARRAY)];
    let queried_at = Instant::now();
    let rows = store.query(&store.statements.find, &params, Pace::Lookup).await?;
    let first = rows.first().ok_or_else(|| StoreError::unreadable("the server returned no row"))?;
    let report = ServerReport::read(first, rows::KEY_COLUMNS)?;
    let Observed { age, is_settled } = store.servers.observe(&report, queried_at)?;
    let found = rows.iter().filter_map(|row| rows::answer(row).transpose());
    let found = found.collect::<Result<Vec<_>, _>>()?;

    let Some(standby) = report.standby else {
        return Ok((Lookup::answered(digests, found, DataAge::Current), None));
    };
    let received = received_at_first.unwrap_or(standby.received);
    let has_all = is_settled && standby.replayed >= received;
    let age = if has_all && !age.is_lagging() { DataAge::Current } else { age };
    let lookup = Lookup::answered(digests, found, age);
    let may_come = is_settled && lookup.lacks_for_lag();
    Ok((lookup, may_come.then_some(received)))
}
