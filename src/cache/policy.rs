//! In which part of its life an entry is: pure, from its age and the word of
//! the feed.

use std::time::Duration;

use tokio::time::Instant;

use super::{CacheConfig, Serve};
use crate::tier::Freshness;

/// The part of its life that an entry is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Served as it is.
    Fresh,
    /// Served as it is, and the store is asked behind it.
    Revalidating,
    /// The store is asked first; served if it gives no answer.
    Stale,
    /// Not served any more.
    Expired,
}

impl Life {
    /// How an entry is served in this part of its life, if it is. `missing` says
    /// that the store has no such row, which is not believed yet.
    pub(super) const fn served(self, missing: bool) -> Option<(Freshness, Serve)> {
        match self {
            Self::Expired => None,
            Self::Fresh | Self::Revalidating | Self::Stale if missing => {
                Some((Freshness::StaleIfError, Serve::AndRefresh))
            }
            Self::Fresh => Some((Freshness::Fresh, Serve::AtOnce)),
            Self::Revalidating => Some((Freshness::Revalidating, Serve::AndRefresh)),
            Self::Stale => Some((Freshness::StaleIfError, Serve::IfError)),
        }
    }
}

/// When the parts of the life of an entry end, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Until then it is fresh.
    pub fresh_until: Instant,
    /// Until then it is revalidating.
    pub revalidating_until: Instant,
    /// Until then it is stale.
    pub stale_until: Instant,
}

impl Windows {
    /// The part of its life at `now`.
    pub(super) fn life(&self, now: Instant) -> Life {
        if now < self.fresh_until {
            Life::Fresh
        } else if now < self.revalidating_until {
            Life::Revalidating
        } else if now < self.stale_until {
            Life::Stale
        } else {
            Life::Expired
        }
    }
}

/// What the life of an entry depends on besides the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    /// When the store vouched for it.
    pub(super) validated_at: Instant,
    /// By what its windows are multiplied, so that entries that were filled
    /// together do not end together.
    pub(super) spread: f32,
    /// Until when the feed vouches that nothing has changed since; `None` if it
    /// does not.
    pub(super) good_until: Option<Instant>,
    /// Whether the changes since have been replayed, for an entry that came
    /// from a snapshot; true for all others.
    pub(super) replayed: bool,
}

impl CacheConfig {
    /// In which part of its life an entry is at `now`.
    pub(super) fn life(&self, validity: &Validity, now: Instant) -> Life {
        self.windows(validity).life(now)
    }

    /// When the parts of the life of an entry end.
    ///
    /// It is fresh for `fresh_for`, or for as long as the feed vouches for it
    /// up to `feed_fresh_for`; then revalidating for `revalidate_for`; then
    /// stale until its age is `stale_if_error_for`, which also ends the part
    /// before: nothing that is not fresh is served past it.
    pub(super) fn windows(&self, validity: &Validity) -> Windows {
        let Validity { validated_at, spread, good_until, replayed } = *validity;
        let after = |window: Duration| validated_at + window.mul_f32(spread);
        let fresh_until = match good_until {
            _ if !replayed => validated_at,
            None => after(self.fresh_for),
            Some(good) => after(self.fresh_for).max(good.min(after(self.feed_fresh_for))),
        };
        let stale_until = validated_at + self.stale_if_error_for;
        let revalidating_until = (fresh_until + self.revalidate_for).min(stale_until);
        Windows { fresh_until, revalidating_until, stale_until }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> CacheConfig {
        CacheConfig {
            fresh_for: 30 * SECOND,
            feed_fresh_for: 600 * SECOND,
            revalidate_for: 300 * SECOND,
            stale_if_error_for: 3600 * SECOND,
            ..CacheConfig::default()
        }
    }

    /// The life of an entry that was validated at 0, by seconds.
    struct Bench {
        start: Instant,
        config: CacheConfig,
        validity: Validity,
    }

    impl Bench {
        fn new() -> Self {
            let start = Instant::now() + 10_000 * SECOND;
            let validity =
                Validity { validated_at: start, spread: 1.0, good_until: None, replayed: true };
            Self { start, config: config(), validity }
        }

        fn vouched_until(mut self, second: u32) -> Self {
            self.validity.good_until = Some(self.start + second * SECOND);
            self
        }

        fn at(&self, second: u32) -> Life {
            self.config.life(&self.validity, self.start + second * SECOND)
        }

        fn lives(&self, seconds: [u32; 6]) -> [Life; 6] {
            seconds.map(|second| self.at(second))
        }
    }

    use Life::{Expired, Fresh, Revalidating, Stale};

    #[test]
    fn without_a_feed_an_entry_is_fresh_for_its_window_alone() {
        let lives = Bench::new().lives([0, 29, 30, 329, 330, 3600]);
        assert_eq!(lives, [Fresh, Fresh, Revalidating, Revalidating, Stale, Expired]);
    }

    #[test]
    fn while_the_feed_vouches_for_it_an_entry_is_fresh_for_the_longer_window() {
        let lives = Bench::new().vouched_until(100_000).lives([30, 599, 600, 899, 900, 3599]);
        assert_eq!(lives, [Fresh, Fresh, Revalidating, Revalidating, Stale, Stale]);
    }

    #[test]
    fn when_the_feed_falls_silent_freshness_ends_with_its_word_but_not_before_the_short_window() {
        let lives = Bench::new().vouched_until(200).lives([199, 200, 499, 500, 3599, 3600]);
        assert_eq!(lives, [Fresh, Revalidating, Revalidating, Stale, Stale, Expired]);
        assert_eq!(Bench::new().vouched_until(10).at(29), Fresh);
    }

    #[test]
    fn what_came_from_a_snapshot_is_not_fresh_before_the_changes_are_replayed() {
        let mut bench = Bench::new().vouched_until(1000);
        bench.validity.replayed = false;
        assert_eq!(bench.lives([0, 29, 299, 300, 3599, 3600])[..3], [Revalidating; 3]);
        assert_eq!(bench.lives([0, 29, 299, 300, 3599, 3600])[3..], [Stale, Stale, Expired]);
    }

    #[test]
    fn nothing_that_is_not_fresh_is_served_past_the_bound_of_an_outage() {
        let mut bench = Bench::new();
        bench.config.stale_if_error_for = 60 * SECOND;
        let lives = bench.lives([0, 29, 30, 59, 60, 61]);
        assert_eq!(lives, [Fresh, Fresh, Revalidating, Revalidating, Expired, Expired]);
        assert_eq!(bench.vouched_until(1000).at(599), Fresh, "the feed vouches for it");
    }

    #[test]
    fn the_spread_moves_the_end_of_freshness() {
        let mut bench = Bench::new();
        bench.validity.spread = 1.1;
        assert_eq!([bench.at(32), bench.at(33)], [Fresh, Revalidating]);
        bench.validity.spread = 0.9;
        assert_eq!([bench.at(26), bench.at(27)], [Fresh, Revalidating]);
    }

    proptest! {
        #[test]
        fn an_entry_never_grows_younger(
            windows in [1..5000u32, 1..5000, 0..5000, 0..5000],
            good in proptest::option::of(0..5000u32),
            spread in 0.9..1.1f32,
            replayed: bool,
        ) {
            let mut bench = Bench::new();
            let [fresh, feed, revalidate, stale] = windows.map(|seconds| seconds * SECOND);
            bench.config = CacheConfig {
                fresh_for: fresh,
                feed_fresh_for: feed,
                revalidate_for: revalidate,
                stale_if_error_for: stale,
                ..bench.config
            };
            bench.validity.good_until = good.map(|second| bench.start + second * SECOND);
            bench.validity.spread = spread;
            bench.validity.replayed = replayed;
            let rank = |second| bench.at(second) as u8;
            let ranks: Vec<_> = (0..12_000).step_by(7).map(rank).collect();
            prop_assert!(ranks.is_sorted());
        }
    }
}
