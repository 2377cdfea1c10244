//! The store of the model.

use std::collections::BTreeMap;

use futures::FutureExt;

use super::{super::*, of};
use crate::{
    key::State,
    store::{Answer, ChangeKind, Lookups, fake::FakeStore, fake::Mood},
};

#[derive(Debug, Clone, Default)]
pub(super) struct Database {
    pub(super) rows: BTreeMap<u8, (State, i64)>,
    pub(super) changes: Vec<(i64, u8, ChangeKind)>,
    next: i64,
}

impl Database {
    pub(super) fn change(&mut self, key: u8, kind: ChangeKind) -> i64 {
        self.next += 1;
        self.changes.push((self.next, key, kind));
        self.next
    }

    pub(super) fn set(&mut self, key: u8, state: State) {
        let kind = match (self.rows.get(&key), state) {
            (_, State::Revoked) => ChangeKind::Revoked,
            (None, _) => ChangeKind::Created,
            (Some(_), _) => ChangeKind::Updated,
        };
        let revision = self.change(key, kind);
        self.rows.insert(key, (state, revision));
    }

    pub(super) fn head(&self) -> i64 {
        self.changes.last().map_or(0, |(revision, ..)| *revision)
    }

    /// Result of a lookup of a key.
    pub(super) fn answer(&self, key: u8) -> Answer {
        let store = FakeStore::new(Mood::Answers);
        if let Some((state, revision)) = self.rows.get(&key) {
            let mut row = record(&format!("p{key}"), *revision);
            row.state = *state;
            store.put(of(key), row);
        }
        let lookup = store.find(&[of(key)]).now_or_never().unwrap().unwrap();
        lookup.get(&of(key)).unwrap().clone()
    }
}
