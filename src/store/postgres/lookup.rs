//! Looking keys up, on a primary or on a standby that may not have them yet.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::types::Type;

use super::{
    PostgresStore,
    call::{self, Pace},
    replay::Observed,
    rows,
    witness::Answering,
};
use crate::{
    key::Digest,
    store::{DataAge, Lookup, StoreError},
};

/// How long a standby is given to replay more before it is asked again.
const REPLAY_PAUSE: Duration = Duration::from_millis(5);

pub(super) async fn find(store: &PostgresStore, digests: &[Digest]) -> Result<Lookup, StoreError> {
    // What a standby had received when it was asked first, it replays in a moment:
    // where a key is missing, it is asked again.
    let until = Instant::now() + store.query_timeout / 2;
    let mut asked_first = None;
    loop {
        let (lookup, received) = ask(store, digests, asked_first).await?;
        let Some(received) = received else { return Ok(lookup) };
        asked_first.get_or_insert(received);
        if Instant::now() + REPLAY_PAUSE >= until {
            return Ok(lookup);
        }
        sleep(REPLAY_PAUSE).await;
    }
}

/// Asks once. With the answer of a standby that lacks a key and may get it yet:
/// up to where it has received, or had when it was `asked_first`.
async fn ask(
    store: &PostgresStore,
    digests: &[Digest],
    asked_first: Option<i64>,
) -> Result<(Lookup, Option<i64>), StoreError> {
    let asked: Vec<&[u8]> = digests.iter().map(|digest| &digest.as_bytes()[..]).collect();
    let params = [call::param(&asked, Type::BYTEA_ARRAY)];
    let asked_at = Instant::now();
    let rows = store.query(&store.statements.find, &params, Pace::Lookup).await?;
    let first = rows.first().ok_or_else(|| StoreError::unreadable("it says nothing"))?;
    let answering = Answering::read(first, rows::KEY_COLUMNS)?;
    let Observed { age, is_settled } = store.servers.observe(&answering, asked_at)?;
    let found = rows.iter().filter_map(|row| rows::answer(row).transpose());
    let found = found.collect::<Result<Vec<_>, _>>()?;

    let Some(standby) = answering.standby else {
        return Ok((Lookup::answered(digests, found, DataAge::Current), None));
    };
    let received = asked_first.unwrap_or(standby.received);
    let has_all = is_settled && standby.replayed >= received;
    let age = if has_all && !age.is_lagging() { DataAge::Current } else { age };
    let lookup = Lookup::answered(digests, found, age);
    let may_come = is_settled && lookup.lacks_for_lag();
    Ok((lookup, may_come.then_some(received)))
}
