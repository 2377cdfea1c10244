//! How old the data of a standby are, measured by one clock alone: ours.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::store::DataAge;

/// How many samples there are within `store.max_lag`.
const SAMPLES_WITHIN_LAG: u32 = 16;

/// How many samples are kept: four times what data of a tolerable age need.
const MAX_SAMPLES: usize = 64;

/// For which part of `store.max_lag` a new WAL receiver must have streamed before
/// what it has received counts as all there is: at first it has received nothing.
const SETTLED_AFTER_PART: u32 = 8;

/// What a standby says of itself. Positions are bytes of the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standby {
    pub(super) received: i64,
    pub(super) replayed: i64,
    /// The process that receives, if there is one.
    pub(super) stream: Option<i32>,
    /// How long ago, by the clock of the standby, the primary committed what was
    /// replayed last.
    pub(super) replayed_ago: Option<Duration>,
}

/// What follows from an answer of a standby.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observed {
    pub(super) age: DataAge,
    /// Whether what it has received is all there is, as far as it knows.
    pub(super) is_settled: bool,
}

/// Samples of how far a standby had received, taken while it was receiving: when it
/// has replayed as much, its data are as of then.
///
/// A replay that is paused or delayed, and a receiver that is gone, make the data
/// grow old, and a primary that writes nothing does not.
#[derive(Debug)]
pub(super) struct Replay {
    max_lag: Duration,
    samples: VecDeque<(Instant, i64)>,
    /// The last receiver, and since when it is known.
    receiver: Option<(i32, Instant)>,
    as_of: Option<Instant>,
}

impl Standby {
    /// Whether it has replayed all that it has received, and still receives.
    pub(super) fn is_level(&self) -> bool {
        self.stream.is_some() && self.replayed >= self.received
    }
}

impl Replay {
    pub(super) const fn new(max_lag: Duration) -> Self {
        Self { max_lag, samples: VecDeque::new(), receiver: None, as_of: None }
    }

    /// Takes in what the standby said when it was asked at `asked_at`.
    pub(super) fn observe(&mut self, standby: &Standby, asked_at: Instant) -> Observed {
        let is_settled = self.is_settled(standby.stream, asked_at);
        if is_settled {
            self.sample(standby.received, asked_at);
        }
        while let Some((at, _)) = self.samples.front().filter(|(_, end)| *end <= standby.replayed) {
            self.as_of = self.as_of.max(Some(*at));
            self.samples.pop_front();
        }
        if is_settled && standby.is_level() {
            self.as_of = self.as_of.max(Some(asked_at));
        }
        let as_of =
            *self.as_of.get_or_insert_with(|| self::begins(standby, asked_at, self.max_lag));
        Observed { age: DataAge::of(as_of, asked_at, self.max_lag), is_settled }
    }

    /// The first receiver that is seen has probably streamed for long.
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

/// As of when the data are while nothing has been measured. A standby that has
/// replayed nothing yet cannot tell; its data are then just too old.
fn begins(standby: &Standby, asked_at: Instant, max_lag: Duration) -> Instant {
    let ago = standby.replayed_ago.unwrap_or(max_lag + Duration::from_millis(1));
    asked_at.checked_sub(ago).unwrap_or(asked_at)
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

        /// How many seconds old the data are.
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
    fn paused_replay_makes_the_data_grow_old_until_it_has_caught_up() {
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
    fn delayed_replay_is_as_old_as_its_delay() {
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
    fn receiver_that_is_gone_makes_the_data_grow_old_though_all_is_replayed() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.age(0, 10, 10, Some(1)), 0);
        assert_eq!([1, 6].map(|at| fixture.age(at, 10, 10, None)), [1, 6]);
        assert_eq!(fixture.age(7, 10, 10, Some(2)), 7, "it has only just begun to receive");
        assert_eq!(fixture.age(8, 10, 10, Some(2)), 0);
    }

    #[test]
    fn before_anything_is_measured_the_last_commit_tells_the_age() {
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
