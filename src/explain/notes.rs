//! Notes on an explanation: where cache and store disagree, and the consequences. Sentences for
//! people.

use std::time::Duration;

use tokio::time::Instant;

use super::{Agreement, Basis, Doubts, Seen, StoreReply};
use crate::{
    cache::{EntryState, Inspection, Remembered, Serve},
    guard::BreakerState,
    key::Revision,
    store::Answer,
};

pub(super) fn of(
    seen: &Seen,
    doubts: &Doubts,
    basis: Basis,
    revalidate_wait: Duration,
) -> Vec<String> {
    let notes = [
        seen.agreement().and_then(|agreement| disagreement(seen, agreement)),
        missing_row(seen),
        too_old(seen),
        stale(seen, doubts, basis, revalidate_wait),
        not_believed(seen, doubts),
        breaker(&seen.store, doubts),
    ];
    notes.into_iter().flatten().collect()
}

fn disagreement(seen: &Seen, agreement: Agreement) -> Option<String> {
    let revisions = revisions(seen).map(|(memory, store)| (memory.0, store.0));
    let (memory, store) = revisions.unwrap_or_default();
    let note = match agreement {
        Agreement::Same => return None,
        Agreement::StoreIsNewer => format!(
            "the store has revision {store} and this instance revision {memory}: the change has not \
             been applied here yet; see `changes_applied_until`, and the feed in `/status`"
        ),
        Agreement::StoreIsOlder => format!(
            "the store has revision {store} and this instance revision {memory}: the store may be an \
             older backup, or a standby that is behind"
        ),
        Agreement::Different => format!(
            "memory and store have the same revision {store} with different records: the row was \
             changed without a number, which is noticed when the record is no longer fresh"
        ),
        Agreement::StoreLacksIt if seen.memory.doubts_absence => "the store has no row for a key \
             that is in memory, and no record of its deletion has arrived: that is not believed yet, \
             and the key goes on as stale-if-error"
            .to_owned(),
        Agreement::StoreLacksIt => "the store has no row for a key that is in memory: the next check \
             that asks it refuses the key"
            .to_owned(),
        Agreement::StoreHasIt => format!(
            "the store has a key of which memory says that there is none, which is believed until {}; \
             its creation has not been applied here",
            ends(seen)
        ),
    };
    Some(note)
}

fn revisions(seen: &Seen) -> Option<(Revision, Revision)> {
    match (seen.memory.held.as_ref()?, seen.store.answer.as_ref().ok()?) {
        (Remembered::Record { known, .. }, Answer::Found(stored)) => {
            Some((known.revision(), stored.revision()))
        }
        (
            Remembered::Record { .. } | Remembered::Absence { .. },
            Answer::Found(_) | Answer::Absent(_),
        ) => None,
    }
}

fn missing_row(seen: &Seen) -> Option<String> {
    let Some(Remembered::Record { missing_since: Some(since), .. }) = seen.memory.held else {
        return None;
    };
    Some(format!(
        "checks found its row missing in the store, for the first time {} ago",
        whole_millis(seen.at.monotonic.saturating_duration_since(since))
    ))
}

fn too_old(seen: &Seen) -> Option<String> {
    let expired =
        matches!(seen.memory.held, Some(Remembered::Record { life: EntryState::Expired, .. }));
    expired.then(|| {
        format!(
            "the record in memory has been too old to be served since {} \
             (`cache.stale_if_error_for`)",
            ends(seen)
        )
    })
}

/// Why a record that should be revalidated first is served anyway.
fn stale(seen: &Seen, doubts: &Doubts, basis: Basis, wait: Duration) -> Option<String> {
    let held = seen.memory.held.as_ref()?.served()?;
    if held.serve != Serve::IfError || basis != Basis::Memory {
        return None;
    }
    let end = ends(seen);
    Some(match (&doubts.doubt, &seen.store.answer) {
        (Some(cause), _) => format!(
            "checks do not wait for the store, because of its last failure ({}): the record is served \
             without its word until {end}",
            cause.as_str()
        ),
        (None, Err(_)) => {
            format!("the record is served without the word of the store until {end}")
        }
        (None, Ok(_)) if seen.store.took > wait => format!(
            "the store took {}, and a check waits {} (`cache.revalidate_wait`): the record is served, \
             and the answer is taken when it comes",
            whole_millis(seen.store.took),
            whole_millis(wait),
        ),
        (None, Ok(_)) => {
            format!("the store is not believed, and the record is served until {end}")
        }
    })
}

fn not_believed(seen: &Seen, doubts: &Doubts) -> Option<String> {
    if doubts.suspect {
        return Some(
            "the store is suspect: keys that were known are missing in it, so that no absence is \
             evidence until they are found again"
                .to_owned(),
        );
    }
    (seen.store.answer.is_ok() && !seen.store.credible).then(|| {
        "the store has nothing of what was asked for, not even a key that it should have".to_owned()
    })
}

fn breaker(store: &StoreReply, doubts: &Doubts) -> Option<String> {
    let state = match doubts.breaker {
        BreakerState::Closed => return None,
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half-open",
    };
    let again = doubts.tried_in.map(whole_millis).unwrap_or_default();
    let own =
        if store.answer.is_ok() { ", although the store answers the control listener" } else { "" };
    Some(format!("the breaker before the store is {state}{own}; it may be tried again in {again}"))
}

/// When the cache entry is no longer served.
fn ends(seen: &Seen) -> String {
    let Inspection { held, .. } = &seen.memory;
    let until: Option<Instant> = held.as_ref().map(|held| match held {
        Remembered::Record { windows, .. } => windows.stale_until.max(windows.fresh_until),
        Remembered::Absence { until, .. } => *until,
    });
    until.map(|until| seen.at.wall_at(until).to_string()).unwrap_or_default()
}

fn whole_millis(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "less than 1ms".to_owned();
    }
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}
