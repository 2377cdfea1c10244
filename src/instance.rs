//! State of this instance, for routing, dashboards and alerts.

mod metrics;
mod warmth;
mod watch;

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch::{Receiver, Sender};

pub use warmth::{Counts, Share, Warmth};
pub use watch::TierWatch;

use crate::{
    store::{StoreError, StoreErrorKind},
    time::Clock,
};

/// State of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// Neither the store nor the feed has answered since the start, and no snapshot was loaded.
    Starting,
    /// The store is up.
    Normal,
    /// The store is down, is not trusted, or accepts no changes. Cached keys are
    /// served.
    Degraded,
    /// The store is down, and hardly any check of a known key is answered.
    Cold,
    /// The instance is shutting down.
    Draining,
}

impl InstanceState {
    /// Every state, for metrics that must exist from the start.
    pub const ALL: [Self; 5] =
        [Self::Starting, Self::Normal, Self::Degraded, Self::Cold, Self::Draining];

    /// Label in metrics, logs and `/status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Normal => "normal",
            Self::Degraded => "degraded",
            Self::Cold => "cold",
            Self::Draining => "draining",
        }
    }

    /// Whether load balancers should send new checks here.
    #[must_use]
    pub const fn serves(self) -> bool {
        match self {
            Self::Normal | Self::Degraded => true,
            Self::Starting | Self::Cold | Self::Draining => false,
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an instance depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependency {
    /// Key lookups.
    Store,
    /// The feed of changes.
    Feed,
    /// Writes of keys.
    WritePath,
}

/// Why the answers of a store that responds are not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// Keys are missing that it should have.
    Suspect,
    /// Its data are older than `store.max_lag`.
    Lagging,
    /// It has keys of a secret that is not in the secret file.
    SecretUnknown,
}

impl Doubt {
    /// Every doubt, the most severe first.
    pub const ALL: [Self; 3] = [Self::SecretUnknown, Self::Lagging, Self::Suspect];

    /// Name in `/status` and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Suspect => "suspect",
            Self::Lagging => "lagging",
            Self::SecretUnknown => "secret_unknown",
        }
    }
}

impl Dependency {
    /// Name in logs and in `/status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Feed => "feed",
            Self::WritePath => "write_path",
        }
    }
}

/// State of a dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TierState {
    /// It has not been called yet.
    Unknown,
    /// It does not exist, and startup does not wait for it.
    None,
    /// Up.
    Up,
    /// Down.
    Down {
        /// Cause of the last failure.
        cause: StoreErrorKind,
        /// Message of the last failure.
        detail: Arc<str>,
        /// Since when it has been down.
        since: Timestamp,
    },
}

impl TierState {
    /// Whether it is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        *self == Self::Up
    }

    /// Label values for [`TierState::as_write_path`].
    pub(crate) const WRITE_PATHS: [&str; 5] = ["unknown", "read_only", "ok", "blocked", "failing"];

    /// Label value in the metric of the write path.
    pub(crate) const fn as_write_path(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::None => "read_only",
            Self::Up => "ok",
            Self::Down { cause: StoreErrorKind::Blocked, .. } => "blocked",
            Self::Down { .. } => "failing",
        }
    }

    /// Whether an instance may start to serve as far as this dependency goes.
    fn is_settled(&self) -> bool {
        matches!(self, Self::Up | Self::None)
    }
}

/// State of the instance, and its causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The state.
    pub state: InstanceState,
    /// Since when the instance has been in this state.
    pub since: Timestamp,
    /// The store.
    pub store: TierState,
    /// The feed of changes.
    pub feed: TierState,
    /// Whether the store accepts writes of keys.
    pub write_path: TierState,
    /// Reasons not to trust the store's answers.
    doubts: Vec<Doubt>,
    /// Whether the instance started with keys from a snapshot.
    warm: bool,
}

impl Standing {
    /// Whether the store answers, and its answers are trusted.
    #[must_use]
    pub fn store_is_well(&self) -> bool {
        self.store.is_up() && self.doubts.is_empty()
    }

    /// Whether `doubt` applies to the store.
    #[must_use]
    pub fn doubts(&self, doubt: Doubt) -> bool {
        self.doubts.contains(&doubt)
    }

    /// The tier that explains most of the trouble, and the name of the cause.
    #[must_use]
    pub fn dominant_cause(&self) -> Option<(&'static str, &'static str)> {
        let down = |of: Dependency, state: &TierState| match state {
            TierState::Down { cause, .. } => Some((of.as_str(), cause.as_str())),
            TierState::Unknown | TierState::None | TierState::Up => None,
        };
        let doubt = Doubt::ALL.into_iter().find(|doubt| self.doubts(*doubt));
        down(Dependency::Store, &self.store)
            .or_else(|| doubt.map(|doubt| (Dependency::Store.as_str(), doubt.as_str())))
            .or_else(|| down(Dependency::Feed, &self.feed))
            .or_else(|| down(Dependency::WritePath, &self.write_path))
    }

    fn tier(&mut self, of: Dependency) -> &mut TierState {
        match of {
            Dependency::Store => &mut self.store,
            Dependency::Feed => &mut self.feed,
            Dependency::WritePath => &mut self.write_path,
        }
    }

    /// Derives the state from the tiers. An instance starts to serve when store and feed have both
    /// answered once: from then on, it can look up every key and notice every change. A store
    /// without a feed need not have one. An instance that loaded a snapshot serves at once. Later
    /// failures do not return it to `Starting`.
    fn state_from_tiers(&self) -> InstanceState {
        let settled = self.store.is_settled() && self.feed.is_settled();
        match (self.state, &self.store) {
            (InstanceState::Draining, _) => InstanceState::Draining,
            (InstanceState::Starting, _) if !settled && !self.warm => InstanceState::Starting,
            (
                InstanceState::Starting
                | InstanceState::Normal
                | InstanceState::Degraded
                | InstanceState::Cold,
                TierState::Up | TierState::None,
            ) => {
                let writable = !matches!(self.write_path, TierState::Down { .. });
                if !self.doubts.is_empty() || !writable {
                    InstanceState::Degraded
                } else {
                    InstanceState::Normal
                }
            }
            (InstanceState::Cold, TierState::Down { .. } | TierState::Unknown) => {
                InstanceState::Cold
            }
            (
                InstanceState::Starting | InstanceState::Normal | InstanceState::Degraded,
                TierState::Down { .. } | TierState::Unknown,
            ) => InstanceState::Degraded,
        }
    }
}

/// Derives the state of the instance from events. Clones share the state.
#[derive(Debug, Clone)]
pub struct Instance {
    standing: Sender<Standing>,
    clock: Clock,
}

impl Instance {
    /// Creates the state of an instance that has just started.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let standing = Standing {
            state: InstanceState::Starting,
            since: clock.wall(),
            store: TierState::Unknown,
            feed: TierState::Unknown,
            write_path: TierState::Unknown,
            doubts: Vec::new(),
            warm: false,
        };
        Self { standing: Sender::new(standing), clock }
    }

    /// Current state and its causes.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Subscribes to changes of the state.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Records that the instance started with keys from a snapshot.
    pub fn begin_warm(&self) {
        self.update(|standing| standing.warm = true);
    }

    /// Records that the instance is shutting down. Final.
    pub fn drain(&self) {
        self.update(|standing| standing.state = InstanceState::Draining);
    }

    /// Records the outcomes of checks of known keys while the store was in doubt. Has no effect
    /// unless the store is down.
    pub fn assess(&self, share: Share) {
        self.update(|standing| {
            if standing.state == InstanceState::Degraded && share.is_cold() {
                standing.state = InstanceState::Cold;
            } else if standing.state == InstanceState::Cold && share.is_warm() {
                standing.state = InstanceState::Degraded;
            }
        });
    }

    /// Whether `doubt` applies to the store.
    pub fn doubt(&self, doubt: Doubt, exists: bool) {
        self.update(|standing| {
            standing.doubts.retain(|other| *other != doubt);
            standing.doubts.extend(exists.then_some(doubt));
        });
    }

    fn is_up(&self, tier: Dependency) {
        self.update(|standing| *standing.tier(tier) = TierState::Up);
    }

    fn is_absent(&self, tier: Dependency) {
        self.update(|standing| *standing.tier(tier) = TierState::None);
    }

    fn is_down(&self, tier: Dependency, error: &StoreError) {
        let now = self.clock.wall();
        self.update(|standing| {
            let state = standing.tier(tier);
            let since = match state {
                TierState::Down { since, .. } => *since,
                TierState::Unknown | TierState::None | TierState::Up => now,
            };
            let (cause, detail) = (error.kind(), error.detail().into());
            *state = TierState::Down { cause, detail, since };
        });
    }

    fn update(&self, change: impl FnOnce(&mut Standing)) {
        let now = self.clock.wall();
        self.standing.send_if_modified(|standing| {
            let before = standing.clone();
            change(standing);
            standing.state = standing.state_from_tiers();
            if standing.state != before.state {
                standing.since = now;
                let (from, to) = (before.state, standing.state);
                tracing::info!(%from, %to, "instance state changed");
            }
            *standing != before
        });
    }
}

#[cfg(test)]
mod tests;
