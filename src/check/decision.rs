//! What a check comes to.

use std::time::Duration;

use super::Denial;
use crate::{key::CompactKey, tier::Freshness};

/// What a check comes to. An outage is not among it: that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The key is valid and may do what was asked.
    Allow(Grant),
    /// The key is not valid or may not do it, and there is evidence.
    Deny(Denial),
}

/// A valid key that may do what was asked, and what that rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The record of the key.
    pub record: CompactKey,
    /// In which part of its life the record was served.
    pub freshness: Freshness,
    /// The time since the store last vouched for the record.
    pub age: Duration,
}
