//! Fake store for the tests of higher tiers: answers, fails or hangs on demand, and counts
//! calls.

mod follower;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use jiff::Timestamp;
use tokio::sync::watch;

pub(crate) use follower::{Channel, FakeFollower};

use super::{
    CanaryError, Change, ChangeKind, Changes, DataAge, History, KeyAdmin, Lookup, Lookups, Page,
    Provenance, SecretUse, StoreError, StoreErrorKind, StoredKey, Usage, WriteError,
    follower::ChangeRow,
};
use crate::key::{
    Action, Digest, Fingerprint, KeyId, KeyRecord, NewKey, Revision, Rights, State, Successor,
};

/// How the store behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Answers,
    Fails(StoreErrorKind),
    /// Until the mood changes.
    Hangs,
    Panics,
}

#[derive(Debug, Clone)]
pub(crate) struct FakeStore {
    records: Arc<Mutex<HashMap<Digest, KeyRecord>>>,
    spoilt: Arc<Mutex<Vec<Digest>>>,
    changes: Arc<Mutex<Vec<ChangeRow>>>,
    channel: watch::Sender<Channel>,
    touched: Arc<Mutex<Vec<(KeyId, Timestamp)>>>,
    history: Arc<Mutex<Option<History>>>,
    secrets: Arc<Mutex<Vec<SecretUse>>>,
    mood: watch::Sender<Mood>,
    queries: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
}

impl FakeStore {
    pub(crate) fn new(mood: Mood) -> Self {
        Self {
            records: Arc::default(),
            spoilt: Arc::default(),
            changes: Arc::default(),
            channel: watch::Sender::default(),
            touched: Arc::default(),
            history: Arc::default(),
            secrets: Arc::default(),
            mood: watch::Sender::new(mood),
            queries: Arc::default(),
            at_once: Arc::default(),
            most_at_once: Arc::default(),
        }
    }

    pub(crate) fn put(&self, digest: Digest, record: KeyRecord) {
        self.records.lock().unwrap().insert(digest, record);
    }

    pub(crate) fn remove(&self, digest: &Digest) {
        self.records.lock().unwrap().remove(digest);
    }

    /// Makes the row of a digest unreadable.
    pub(crate) fn spoil(&self, digest: Digest) {
        self.spoilt.lock().unwrap().push(digest);
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Adds a numbered change.
    pub(crate) fn announce(&self, revision: i64, digest: Digest, kind: ChangeKind) {
        let revision = Revision(revision);
        if let Some(record) = self.records.lock().unwrap().get_mut(&digest) {
            record.revision = revision;
        }
        self.append(ChangeRow::Change(Change { revision, digest, kind }));
    }

    fn append(&self, row: ChangeRow) {
        self.changes.lock().unwrap().push(row);
        self.channel.send_modify(|channel| channel.announcements += 1);
    }

    fn head(&self) -> Revision {
        self.changes.lock().unwrap().last().map_or(Revision(0), ChangeRow::revision)
    }

    /// Changes how followers receive changes.
    pub(crate) fn tune(&self, change: impl FnOnce(&mut Channel)) {
        self.channel.send_modify(change);
    }

    /// Closes the connections of all followers.
    pub(crate) fn cut(&self) {
        self.channel.send_modify(|channel| channel.cuts += 1);
    }

    /// Number of times that followers read the head or changes.
    pub(crate) fn change_reads(&self) -> usize {
        self.channel.borrow().reads
    }

    /// Number of heartbeats sent by followers.
    pub(crate) fn beats(&self) -> u64 {
        self.channel.borrow().beats
    }

    /// Number of canaries written.
    pub(crate) fn canaries(&self) -> usize {
        let changes = self.changes.lock().unwrap();
        changes.iter().filter(|row| matches!(row, ChangeRow::Canary { .. })).count()
    }

    /// Deletes all changes up to a revision.
    pub(crate) fn prune(&self, through: i64) {
        self.changes.lock().unwrap().retain(|row| row.revision() > Revision(through));
        self.channel.send_modify(|channel| channel.pruned = Revision(through));
    }

    /// Deletes all changes, like a restored backup.
    pub(crate) fn lose_changes(&self) {
        self.changes.lock().unwrap().clear();
    }

    /// Sets the history.
    pub(crate) fn recall(&self, history: History) {
        *self.history.lock().unwrap() = Some(history);
    }

    /// Sets the secrets that keys refer to.
    pub(crate) fn name_secrets(&self, secrets: &[SecretUse]) {
        *self.secrets.lock().unwrap() = secrets.to_vec();
    }

    /// All last uses stored.
    pub(crate) fn touched(&self) -> Vec<(KeyId, Timestamp)> {
        self.touched.lock().unwrap().clone()
    }

    async fn mood(&self) -> Result<(), StoreError> {
        let mood = *self.mood.subscribe().wait_for(|mood| *mood != Mood::Hangs).await.unwrap();
        match mood {
            Mood::Answers | Mood::Hangs => Ok(()),
            Mood::Fails(kind) => Err(StoreError::new(kind, "as configured")),
            Mood::Panics => panic!("as configured"),
        }
    }

    /// Number of queries started.
    pub(crate) fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }

    /// Maximum number of concurrent queries.
    pub(crate) fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
    }
}

/// A record of an active key with the given principal.
pub(crate) fn record(principal: &str, revision: i64) -> KeyRecord {
    KeyRecord {
        id: format!("key_{principal}").parse().unwrap(),
        hint: String::new(),
        secret: None,
        rights: Rights { principal: principal.to_owned(), ..Rights::default() },
        state: State::Active,
        created_at: Timestamp::UNIX_EPOCH,
        last_used_at: None,
        predecessor: None,
        successor: None,
        revision: Revision(revision),
    }
}

struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Lookups for FakeStore {
    /// Reads the records first and returns them once the mood allows, like a database that is
    /// slow to send its result.
    async fn find(&self, digests: &[Digest]) -> Result<Lookup, StoreError> {
        self.queries.fetch_add(1, Ordering::SeqCst);
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        let _leaving = Leaving(&self.at_once);
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        let rows: Vec<_> = {
            let records = self.records.lock().unwrap();
            digests.iter().filter_map(|d| Some((*d, Ok(records.get(d)?.clone())))).collect()
        };
        self.mood().await?;
        let spoilt = self.spoilt.lock().unwrap().clone();
        let unreadable = || Err(StoreError::unreadable("as configured"));
        let rows = rows.into_iter().chain(spoilt.into_iter().map(|digest| (digest, unreadable())));
        let lags_since = self.channel.borrow().lags_since;
        let age = lags_since.map_or(DataAge::Current, DataAge::Lagging);
        Ok(Lookup::answered(digests, rows, age))
    }

    async fn history(&self) -> Result<Option<History>, StoreError> {
        self.mood().await?;
        Ok(self.history.lock().unwrap().clone())
    }
}

impl Changes for FakeStore {
    type Follower = FakeFollower;

    async fn follow(&self) -> Result<Option<FakeFollower>, StoreError> {
        if self.channel.borrow().has_no_changes {
            return Ok(None);
        }
        FakeFollower::connect(self).await.map(Some)
    }

    async fn canary(&self, token: &Digest) -> Result<(), CanaryError> {
        let refused = self.channel.borrow().refuses_canaries.clone();
        match &refused {
            Some(CanaryError::Failed(error)) if error.kind() == StoreErrorKind::Timeout => {}
            Some(refused) => return Err(refused.clone()),
            None => {}
        }
        self.mood().await?;
        let revision = Revision(self.head().0 + 1);
        self.append(ChangeRow::Canary { revision, token: *token });
        refused.map_or(Ok(()), Err)
    }
}

impl KeyAdmin for FakeStore {
    async fn unknown_secrets(&self, known: &[Fingerprint]) -> Result<Vec<SecretUse>, StoreError> {
        self.mood().await?;
        let mut named = self.secrets.lock().unwrap().clone();
        named.retain(|used| !known.contains(&used.secret));
        Ok(named)
    }

    async fn get(&self, _: &KeyId) -> Result<Option<KeyRecord>, StoreError> {
        Ok(None)
    }

    async fn list(&self, _: &Page) -> Result<Vec<StoredKey>, StoreError> {
        Ok(Vec::new())
    }

    async fn insert(&self, _: &[NewKey], _: &Provenance) -> Result<(), WriteError> {
        Err(WriteError::ReadOnly("the fake".to_owned()))
    }

    async fn act(
        &self,
        _: &KeyId,
        _: Action,
        _: Option<&Successor>,
        _: &Provenance,
    ) -> Result<KeyRecord, WriteError> {
        Err(WriteError::ReadOnly("the fake".to_owned()))
    }
}

impl Usage for FakeStore {
    async fn touch(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
        self.mood().await?;
        self.touched.lock().unwrap().extend_from_slice(uses);
        Ok(())
    }
}
