//! Follower of the fake store.

use std::{num::NonZeroU32, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::FakeStore;
use crate::{
    key::Revision,
    store::{CanaryError, ChangePage, DataAge, Follower, StoreError, StoreErrorKind, Woken},
};

/// Time-out of calls to a store that hangs.
const TIMEOUT: Duration = Duration::from_millis(100);

/// How followers receive changes.
#[derive(Debug)]
pub(crate) struct Channel {
    /// There are no changes to follow.
    pub(crate) has_no_changes: bool,
    /// Changes must be polled.
    pub(crate) announces_nothing: bool,
    /// Announcements get lost.
    pub(crate) loses_announcements: bool,
    /// Every canary fails with this error; one that times out is written nevertheless.
    pub(crate) refuses_canaries: Option<CanaryError>,
    pub(super) announcements: u64,
    pub(super) beats: u64,
    pub(super) cuts: u64,
    pub(super) reads: usize,
    pub(super) pruned: Revision,
    /// Instant as of which the data is, as on a lagging standby.
    pub(crate) lags_since: Option<Instant>,
    /// Number of takeovers by another server.
    pub(super) history: u64,
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            has_no_changes: false,
            announces_nothing: false,
            loses_announcements: false,
            refuses_canaries: None,
            announcements: 0,
            beats: 0,
            cuts: 0,
            reads: 0,
            pruned: Revision(0),
            lags_since: None,
            history: 0,
        }
    }
}

#[derive(Debug)]
pub(crate) struct FakeFollower {
    store: FakeStore,
    channel: watch::Receiver<Channel>,
    connected_after: u64,
    announcements: u64,
    beats: u64,
}

impl FakeFollower {
    pub(super) async fn connect(store: &FakeStore) -> Result<Self, StoreError> {
        answers(store).await?;
        let mut channel = store.channel.subscribe();
        let (cuts, announcements, beats) = {
            let now = channel.borrow_and_update();
            (now.cuts, now.announcements, now.beats)
        };
        Ok(Self { store: store.clone(), channel, connected_after: cuts, announcements, beats })
    }

    async fn call(&self) -> Result<(), StoreError> {
        self.store.channel.send_modify(|channel| channel.reads += 1);
        self.connected()?;
        answers(&self.store).await?;
        self.connected()
    }

    fn connected(&self) -> Result<(), StoreError> {
        if self.channel.borrow().cuts == self.connected_after {
            return Ok(());
        }
        Err(StoreError::new(StoreErrorKind::Unreachable, "the connection was cut"))
    }

    fn next_event(&mut self) -> Option<Woken> {
        let now = self.channel.borrow_and_update();
        if now.loses_announcements || now.announces_nothing {
            (self.announcements, self.beats) = (now.announcements, now.beats);
            return None;
        }
        if now.announcements > self.announcements {
            self.announcements = now.announcements;
            return Some(Woken::Announced);
        }
        let back = now.beats > self.beats;
        self.beats = now.beats;
        back.then_some(Woken::Beat)
    }
}

async fn answers(store: &FakeStore) -> Result<(), StoreError> {
    timeout(TIMEOUT, store.mood())
        .await
        .unwrap_or_else(|_| Err(StoreError::new(StoreErrorKind::Timeout, "the store hangs")))
}

impl Follower for FakeFollower {
    fn announces(&self) -> bool {
        !self.channel.borrow().announces_nothing
    }

    fn age(&self) -> DataAge {
        self.channel.borrow().lags_since.map_or(DataAge::Current, DataAge::Lagging)
    }

    fn history(&self) -> u64 {
        self.channel.borrow().history
    }

    async fn head(&mut self) -> Result<Revision, StoreError> {
        self.call().await?;
        Ok(self.store.head())
    }

    async fn changes(
        &mut self,
        after: Revision,
        limit: NonZeroU32,
    ) -> Result<Option<ChangePage>, StoreError> {
        self.call().await?;
        if self.channel.borrow().pruned > after {
            return Ok(None);
        }
        let changes = self.store.changes.lock().unwrap();
        let newer = changes.iter().filter(|row| row.revision() > after);
        let page = newer.take(usize::try_from(limit.get()).unwrap()).cloned();
        Ok(Some(ChangePage::of(page)))
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        self.call().await?;
        self.store.channel.send_modify(|channel| channel.beats += 1);
        Ok(())
    }

    async fn wait(&mut self, until: Instant) -> Result<Woken, StoreError> {
        loop {
            self.connected()?;
            if let Some(woken) = self.next_event() {
                return Ok(woken);
            }
            if timeout_at(until, self.channel.changed()).await.is_err() {
                return Ok(Woken::Elapsed);
            }
        }
    }
}
