//! Ends of keys that an answer tells first: what a process after this one may not hear of
//! again before it serves what was written down earlier.

use super::Memory;
use crate::{
    cache::{Tombstone, entry::Entry},
    key::{Digest, Revision, State},
    store::{Answer, Change, ChangeKind},
};

impl Memory {
    /// The end of a key of which an answer tells first, before it is taken in: that it is
    /// revoked, disabled or not there any more. As a change without a number: no
    /// other change may ever tell of it.
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

    /// Takes in that a key is revoked, if that is the answer, however old it is.
    pub fn take_revocation(&self, digest: &Digest, answer: &Answer) {
        if matches!(answer, Answer::Found(known) if known.state() == State::Revoked) {
            self.tombstones.put(*digest, Tombstone::Revoked);
            let is_usable = |entry: &Entry| entry.known.state() != State::Revoked;
            self.records.remove_if(digest, is_usable);
        }
    }
}
