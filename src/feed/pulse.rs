//! Heartbeats: when to read changes without an announcement, and whether announcements arrive.

use std::time::Duration;

use tokio::time::Instant;

use super::FeedConfig;
use crate::time::jittered;

/// Jitter that spreads the polls and heartbeats of several instances.
const JITTER: f64 = 0.1;

/// Number of lost heartbeats after which the feed polls.
const MAX_UNANSWERED: u32 = 3;

/// Heartbeat of the feed: an announcement to itself.
///
/// While heartbeats return, the feed waits for announcements and reads changes with every beat.
/// After three lost heartbeats it polls until one returns.
#[derive(Debug)]
pub(super) struct Pulse {
    every: Duration,
    poll_every: Duration,
    due: Instant,
    /// Whether the last heartbeat has not returned yet.
    awaited: bool,
    unanswered: u32,
    polling: bool,
}

impl Pulse {
    pub(super) fn new(config: &FeedConfig, now: Instant) -> Self {
        let FeedConfig { heartbeat_every: every, poll_every, .. } = *config;
        Self { every, poll_every, due: now, awaited: false, unanswered: 0, polling: false }
    }

    /// Resets the pending heartbeat for a new connection. Keeps polling if the last connection
    /// did, until a heartbeat returns.
    pub(super) fn connected(&mut self, now: Instant) {
        self.due = now + jittered(self.every, JITTER);
        self.awaited = false;
        self.unanswered = 0;
    }

    /// Deadline for waiting for announcements.
    pub(super) fn next(&self, announces: bool, now: Instant) -> Instant {
        let poll = now + jittered(self.poll_every, JITTER);
        match (announces, self.polling) {
            (true, false) => self.due,
            (true, true) => self.due.min(poll),
            (false, _) => poll,
        }
    }

    /// Whether to send a heartbeat.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// Records a sent heartbeat.
    pub(super) fn sent(&mut self, now: Instant) {
        if self.awaited {
            self.unanswered = self.unanswered.saturating_add(1);
        }
        if self.unanswered >= MAX_UNANSWERED && !self.polling {
            self.polling = true;
            let poll_every = humantime::format_duration(self.poll_every);
            tracing::warn!(
                %poll_every,
                "announcements of changes do not arrive although the store answers; polling for \
                 changes instead. Behind PgBouncer in transaction mode set \
                 `store.prepared_statements = false`"
            );
        }
        self.awaited = true;
        self.due = now + jittered(self.every, JITTER);
    }

    /// Records a returned heartbeat.
    pub(super) fn answered(&mut self) {
        self.awaited = false;
        self.unanswered = 0;
        if self.polling {
            self.polling = false;
            tracing::info!("announcements of changes arrive again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_lost_with_their_connection_do_not_start_polling() {
        let now = Instant::now();
        let mut pulse = Pulse::new(&FeedConfig::default(), now);
        for _ in 0..10 {
            pulse.connected(now);
            pulse.sent(now);
        }
        assert!(!pulse.polling);
    }

    #[test]
    fn first_heartbeat_is_due_one_interval_after_connecting() {
        let (config, now) = (FeedConfig::default(), Instant::now());
        let mut pulse = Pulse::new(&config, now);
        pulse.connected(now);
        assert!(!pulse.is_due(now + config.heartbeat_every / 2));
        assert!(pulse.is_due(now + config.heartbeat_every * 2));
    }
}
