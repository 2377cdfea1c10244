//! How what the store says stands to what is in memory: pure.

use super::Seen;
use crate::{cache::Remembered, key::CompactKey, store::Answer};

/// How what the store says stands to what is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// Both say the same.
    Same,
    /// The store's record has a higher revision.
    StoreIsNewer,
    /// The store's record has a lower revision.
    StoreIsOlder,
    /// The records have the same revision, and are not the same in what is looked at.
    Different,
    /// A record is in memory, and the store says that there is no such key.
    StoreLacksIt,
    /// An absence is in memory, and the store has the key.
    StoreHasIt,
}

impl Seen {
    /// How store and memory stand to each other; `None` when one of them says
    /// nothing.
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
