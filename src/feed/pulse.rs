//! When to look for changes without being woken, and whether being woken works.

use std::time::Duration;

use tokio::time::Instant;

use super::FeedConfig;
use crate::time::jittered;

/// How far the polls and heartbeats of several instances are spread.
const JITTER: f64 = 0.1;

/// After how many words that did not come back the feed no longer counts on
/// being woken.
const UNANSWERED_UNTIL_DEAF: u32 = 3;

/// The heartbeat of the feed: a word to itself, the way that announcements come.
///
/// As long as the words come back, changes are waited for and looked for with
/// every beat. After three that did not, they are asked for all the time, until
/// one does.
#[derive(Debug)]
pub(super) struct Pulse {
    every: Duration,
    poll_every: Duration,
    due: Instant,
    /// Whether the last word has not come back yet.
    awaited: bool,
    unanswered: u32,
    deaf: bool,
}

impl Pulse {
    pub(super) fn new(config: &FeedConfig, now: Instant) -> Self {
        let FeedConfig { heartbeat_every: every, poll_every, .. } = *config;
        Self { every, poll_every, due: now, awaited: false, unanswered: 0, deaf: false }
    }

    /// A new connection: no word is on its way on it. Whether words come back is
    /// believed as it was on the last one, until one does.
    pub(super) fn connected(&mut self, now: Instant) {
        self.due = now + jittered(self.every, JITTER);
        self.awaited = false;
        self.unanswered = 0;
    }

    /// Until when to wait for announcements.
    pub(super) fn next(&self, announces: bool, now: Instant) -> Instant {
        let poll = now + jittered(self.poll_every, JITTER);
        match (announces, self.deaf) {
            (true, false) => self.due,
            (true, true) => self.due.min(poll),
            (false, _) => poll,
        }
    }

    /// Whether a word must be sent.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// A word was sent.
    pub(super) fn sent(&mut self, now: Instant) {
        if self.awaited {
            self.unanswered = self.unanswered.saturating_add(1);
        }
        if self.unanswered >= UNANSWERED_UNTIL_DEAF && !self.deaf {
            self.deaf = true;
            let poll_every = humantime::format_duration(self.poll_every);
            tracing::warn!(
                %poll_every,
                "announcements of changes do not arrive although the store answers; asking for \
                 changes instead. Behind PgBouncer in transaction mode set \
                 `store.prepared_statements = false`"
            );
        }
        self.awaited = true;
        self.due = now + jittered(self.every, JITTER);
    }

    /// The last word has come back.
    pub(super) fn answered(&mut self) {
        self.awaited = false;
        self.unanswered = 0;
        if self.deaf {
            self.deaf = false;
            tracing::info!("announcements of changes arrive again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_a_lost_connection_took_along_do_not_make_it_deaf() {
        let now = Instant::now();
        let mut pulse = Pulse::new(&FeedConfig::default(), now);
        for _ in 0..10 {
            pulse.connected(now);
            pulse.sent(now);
        }
        assert!(!pulse.deaf);
    }

    #[test]
    fn after_connecting_the_next_word_is_due_when_a_beat_has_passed() {
        let (config, now) = (FeedConfig::default(), Instant::now());
        let mut pulse = Pulse::new(&config, now);
        pulse.connected(now);
        assert!(!pulse.is_due(now + config.heartbeat_every / 2));
        assert!(pulse.is_due(now + config.heartbeat_every * 2));
    }
}
