//! Ends of keys that an answer reports before the feed. The journal needs them: the
//! next process may serve older persisted records before it learns of them again.

use super::Memory;
use crate::{
    cache::{Tombstone, entry::Entry},
    key::{Digest, Revision, State},
    store::{Answer, Change, ChangeKind},
};

impl Memory {
    /// The end of a key (revoked, disabled or absent) that an answer is first to report.
    /// To be called before the answer is cached. Returns a change without a revision,
    /// as no numbered change may ever follow.
    #[must_use]
    pub fn news(&self, digest: Digest, answer: &Answer) -> Option<Change> {
        let held = || self.records.peek(&digest).map(|entry| entry.known.state());
        let kind = match answer {
            Answer::Found(known) => match known.state() {
                State::Revoked => {
                    (!self.tombstones.is_revoked(&digest)).then_some(ChangeKind::Revoked)
                }
                State::Disabled => (held() != Some(State::Disabled)).then_some(ChangeKind::Updated),
                State::Active => None,
            },
            Answer::Absent(_) => held().map(|_| ChangeKind::Updated),
        };
        kind.map(|kind| Change { revision: Revision(0), digest, kind })
    }

    /// Applies the revocation of a key if the answer is revoked, however old it is.
    pub fn take_revocation(&self, digest: &Digest, answer: &Answer) {
        if matches!(answer, Answer::Found(known) if known.state() == State::Revoked) {
            self.tombstones.put(*digest, Tombstone::Revoked);
            let is_usable = |entry: &Entry| entry.known.state() != State::Revoked;
            self.records.remove_if(digest, is_usable);
        }
    }
}
