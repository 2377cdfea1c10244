//! What the lookup of a check would return: pure, from cache, store and guard.

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
    /// The credential alone, without a lookup.
    Credential,
    /// The cache.
    Memory,
    /// The answer of the store.
    Store,
    /// Nothing: there is no evidence.
    Nothing,
}

/// What a check would find if the store answered it as it answered here, in the same time. Mirrors
/// [`crate::cache::Cached`] and [`crate::fill::Fill`].
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

/// The outcome of a check's lookup.
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
