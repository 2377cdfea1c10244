//! Age of a standby's data, measured by this machine's clock alone.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::store::DataAge;

/// Number of samples within `store.max_lag`.
const SAMPLES_WITHIN_LAG: u32 = 16;

/// Maximum number of samples: four times what data of a tolerable age needs.
const MAX_SAMPLES: usize = 64;

/// Fraction of `store.max_lag` for which a new WAL receiver must have streamed before its
/// receive position counts as complete: at first it has received nothing.
const SETTLED_AFTER_PART: u32 = 8;

/// Replication state of a standby. Positions are bytes of the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standby {
    pub(super) received: i64,
    pub(super) replayed: i64,
    /// Process id of the WAL receiver, if any.
    pub(super) stream: Option<i32>,
    /// Time since the primary committed the last replayed transaction, by the standby's clock.
    pub(super) replayed_ago: Option<Duration>,
}

/// Result of observing a standby.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observed {
    pub(super) age: DataAge,
    /// Whether it has received everything, as far as it knows.
    pub(super) is_settled: bool,
}

/// Samples of a standby's receive position, taken while it was receiving. Once it has replayed
/// as much, its data is as of the sample.
///
/// Data ages when replay is paused or delayed or the receiver is gone, but not when an idle
/// primary writes nothing.
#[derive(Debug)]
pub(super) struct Replay {
    max_lag: Duration,
    samples: VecDeque<(Instant, i64)>,
    /// The last receiver, and when it was first seen.
    receiver: Option<(i32, Instant)>,
    as_of: Option<Instant>,
}

impl Standby {
    /// Whether it has replayed everything received and is still receiving.
    pub(super) fn is_level(&self) -> bool {
        self.stream.is_some() && self.replayed >= self.received
    }
}

impl Replay {
    pub(super) const fn new(max_lag: Duration) -> Self {
        Self { max_lag, samples: VecDeque::new(), receiver: None, as_of: None }
    }

    /// Evaluates the state of a standby queried at `queried_at`.
    pub(super) fn observe(&mut self, standby: &Standby, queried_at: Instant) -> Observed {
        let is_settled = self.is_settled(standby.stream, queried_at);
        if is_settled {
            self.sample(standby.received, queried_at);
        }
        while let Some((at, _)) = self.samples.front().filter(|(_, end)| *end <= standby.replayed) {
            self.as_of = self.as_of.max(Some(*at));
            self.samples.pop_front();
        }
        if is_settled && standby.is_level() {
            self.as_of = self.as_of.max(Some(queried_at));
        }
        let as_of =
            *self.as_of.get_or_insert_with(|| self::begins(standby, queried_at, self.max_lag));
        Observed { age: DataAge::of(as_of, queried_at, self.max_lag), is_settled }
    }

    /// The first receiver seen has probably streamed for long.
    fn is_settled(&mut self, receiver: Option<i32>, now: Instant) -> bool {
        let Some(pid) = receiver else { return false };
        match self.receiver {
            Some((same, since)) if same == pid => {
                now.saturating_duration_since(since) >= self.max_lag / SETTLED_AFTER_PART
            }
            Some(_) => {
                self.receiver = Some((pid, now));
                false
            }
            None if self.as_of.is_some() => {
                self.receiver = Some((pid, now));
                false
            }
            None => {
                let long_ago = now.checked_sub(self.max_lag).unwrap_or(now);
                self.receiver = Some((pid, long_ago));
                true
            }
        }
    }

    fn sample(&mut self, received: i64, at: Instant) {
        let spacing = self.max_lag / SAMPLES_WITHIN_LAG;
        let is_due = self.samples.back().is_none_or(|(last, _)| at >= *last + spacing);
        if is_due && self.samples.len() < MAX_SAMPLES {
            self.samples.push_back((at, received));
        }
    }
}

/// Age of the data before any measurement. Without a replayed transaction it is unknown, and
/// counts as just too old.
fn begins(standby: &Standby, queried_at: Instant, max_lag: Duration) -> Instant {
    let ago = standby.replayed_ago.unwrap_or(max_lag + Duration::from_millis(1));
    queried_at.checked_sub(ago).unwrap_or(queried_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MAX_LAG: Duration = Duration::from_secs(5);

    struct Fixture {
        start: Instant,
        replay: Replay,
    }

    impl Fixture {
        fn new() -> Self {
            Self { start: Instant::now() + 1000 * SECOND, replay: Replay::new(MAX_LAG) }
        }

        /// Age of the data in seconds.
        fn age(&mut self, second: u32, received: i64, replayed: i64, stream: Option<i32>) -> u64 {
            let at = self.start + second * SECOND;
            let standby = Standby { received, replayed, stream, replayed_ago: Some(SECOND) };
            let Observed { age, .. } = self.replay.observe(&standby, at);
            let old = at - age.as_of(at);
            assert_eq!(age.is_lagging(), old > MAX_LAG);
            old.as_secs()
        }
    }

    #[test]
    fn idle_primary_leaves_the_data_current() {
        let mut fixture = Fixture::new();
        assert_eq!([0, 1, 100, 10_000].map(|at| fixture.age(at, 7, 7, Some(1))), [0; 4]);
    }

    #[test]
    fn paused_replay_ages_the_data_until_it_catches_up() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.age(0, 10, 10, Some(1)), 0);
        let ages = [1, 2, 9].map(|at| fixture.age(at, 10 + i64::from(at), 10, Some(1)));
        assert_eq!(ages, [1, 2, 9]);
        assert_eq!(
            fixture.age(10, 20, 12, Some(1)),
            8,
            "as of the second at which 12 was received"
        );
        assert_eq!(fixture.age(11, 20, 20, Some(1)), 0);
    }

    #[test]
    fn delayed_replay_ages_the_data_by_its_delay() {
        let mut fixture = Fixture::new();
        for second in 0..10 {
            fixture.age(second, i64::from(second), 0, Some(1));
        }
        for second in 10..30 {
            let received = i64::from(second);
            assert_eq!(fixture.age(second, received, received - 8, Some(1)), 8);
        }
    }

    #[test]
    fn missing_receiver_ages_the_data_even_if_all_is_replayed() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.age(0, 10, 10, Some(1)), 0);
        assert_eq!([1, 6].map(|at| fixture.age(at, 10, 10, None)), [1, 6]);
        assert_eq!(fixture.age(7, 10, 10, Some(2)), 7, "it has only just begun to receive");
        assert_eq!(fixture.age(8, 10, 10, Some(2)), 0);
    }

    #[test]
    fn last_commit_gives_the_age_before_any_measurement() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.age(0, 10, 5, Some(1)), 1);
        let unknown = Standby { received: 10, replayed: 5, stream: None, replayed_ago: None };
        assert!(Replay::new(MAX_LAG).observe(&unknown, fixture.start).age.is_lagging());
    }

    #[test]
    fn samples_are_bounded() {
        let mut fixture = Fixture::new();
        for second in 0..10_000 {
            fixture.age(second, i64::from(second) + 1, 0, Some(1));
        }
        assert_eq!(fixture.replay.samples.len(), MAX_SAMPLES);
    }
}
