//! Result of a check.

use std::time::Duration;

use super::Denial;
use crate::{key::CompactKey, tier::Freshness};

/// Result of a check. An outage is an error, not a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The key is valid and meets the needs of the request.
    Allow(Grant),
    /// There is evidence that the key is invalid or does not meet the needs.
    Deny(Denial),
}

/// A valid key that meets the needs of the request, and how fresh its record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The record of the key.
    pub record: CompactKey,
    /// Freshness of the record when it was served.
    pub freshness: Freshness,
    /// Time since the store last confirmed the record.
    pub age: Duration,
}
