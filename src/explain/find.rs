//! What a check would find: pure, from what memory, store and guard say.

use std::time::Duration;

use super::{Doubts, Seen};
use crate::{
    cache::{Hit, Remembered, Serve},
    outage::Unavailable,
    store::{Answer, StoreErrorKind},
    tier::{Freshness, Observation},
};

/// What a decision rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// On the credential itself, without a lookup.
    Credential,
    /// On what is remembered.
    Memory,
    /// On what the store says now.
    Store,
    /// On nothing: there is no evidence.
    Nothing,
}

/// What a check would find, if the store answered it as it answered here, and in
/// the same time. It follows the way of [`crate::cache::Cached`] and
/// [`crate::fill::Fill`].
pub(super) fn found(
    seen: &Seen,
    doubts: &Doubts,
    revalidate_wait: Duration,
) -> (Result<Observation, Unavailable>, Basis) {
    let held = seen.memory.held.as_ref().and_then(Remembered::served);
    match held {
        Some(Hit { observation, serve: Serve::AtOnce | Serve::AndRefresh }) => {
            (Ok(observation), Basis::Memory)
        }
        Some(Hit { observation, serve: Serve::IfError }) => {
            let in_time = doubts.doubt.is_none() && seen.store.took <= revalidate_wait;
            match by_the_store(seen, doubts) {
                Ok(newer) if in_time => (Ok(newer), Basis::Store),
                Ok(_) | Err(_) => (Ok(observation), Basis::Memory),
            }
        }
        None => match by_the_store(seen, doubts) {
            Ok(observation) => (Ok(observation), Basis::Store),
            Err(cause) => (Err(cause), Basis::Nothing),
        },
    }
}

/// What a lookup of a check would come to.
fn by_the_store(seen: &Seen, doubts: &Doubts) -> Result<Observation, Unavailable> {
    if !doubts.admits {
        return Err(Unavailable::BreakerOpen);
    }
    let asked = &seen.store;
    let observation = asked.observation()?;
    let not_believed = !asked.credible || seen.memory.doubts_absence;
    match observation.answer {
        Answer::Absent(_) if doubts.lagging => Err(Unavailable::Store(StoreErrorKind::Lagging)),
        Answer::Absent(_) if not_believed => Err(Unavailable::Suspect),
        Answer::Found(_) if doubts.lagging => {
            Ok(Observation { freshness: Freshness::StaleIfError, ..observation })
        }
        Answer::Found(_) | Answer::Absent(_) => Ok(observation),
    }
}
