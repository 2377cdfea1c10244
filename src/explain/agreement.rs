//! Compares the store's answer with the cache: pure.

use super::Seen;
use crate::{cache::Remembered, key::CompactKey, store::Answer};

/// How the store's answer compares with the cache entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// They agree.
    Same,
    /// The store's record has a higher revision.
    StoreIsNewer,
    /// The store's record has a lower revision.
    StoreIsOlder,
    /// The records have the same revision but different content.
    Different,
    /// The cache has a record, and the store says that there is no such key.
    StoreLacksIt,
    /// The cache has an absence, and the store has the key.
    StoreHasIt,
}

impl Seen {
    /// Compares the two; `None` if either is missing.
    #[must_use]
    pub fn agreement(&self) -> Option<Agreement> {
        let answer = self.store.answer.as_ref().ok()?;
        Some(match (self.memory.held.as_ref()?, answer) {
            (Remembered::Record { known, .. }, Answer::Found(stored)) => between(known, stored),
            (Remembered::Record { .. }, Answer::Absent(_)) => Agreement::StoreLacksIt,
            (Remembered::Absence { .. }, Answer::Found(_)) => Agreement::StoreHasIt,
            (Remembered::Absence { .. }, Answer::Absent(_)) => Agreement::Same,
        })
    }
}

fn between(known: &CompactKey, stored: &CompactKey) -> Agreement {
    if stored.revision() > known.revision() {
        Agreement::StoreIsNewer
    } else if stored.revision() < known.revision() {
        Agreement::StoreIsOlder
    } else if stored == known {
        Agreement::Same
    } else {
        Agreement::Different
    }
}
