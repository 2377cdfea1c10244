//! Computes the state of an entry from its age and the coverage of the feed, as pure
//! functions.

use std::time::Duration;

use tokio::time::Instant;

use super::{CacheConfig, Serve};
use crate::{
    tier::Freshness,
    time::{ShortInstant, nanos},
};

/// The state of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryState {
    /// Served at once.
    Fresh,
    /// Served at once and refreshed in the background (stale-while-revalidate).
    Revalidating,
    /// Served only if the store gives no answer (stale-if-error).
    Stale,
    /// Not served.
    Expired,
}

impl EntryState {
    /// How an entry in this state is served, if at all. `missing`: the store has no
    /// such row, which is not believed yet. `lagging`: the data of the store are too
    /// old for anything to be fresh.
    pub(super) const fn served(self, missing: bool, lagging: bool) -> Option<(Freshness, Serve)> {
        match self {
            Self::Expired => None,
            Self::Fresh | Self::Revalidating | Self::Stale if missing => {
                Some((Freshness::StaleIfError, Serve::AndRefresh))
            }
            Self::Fresh if lagging => Some((Freshness::StaleIfError, Serve::AtOnce)),
            Self::Revalidating if lagging => Some((Freshness::StaleIfError, Serve::AndRefresh)),
            Self::Fresh => Some((Freshness::Fresh, Serve::AtOnce)),
            Self::Revalidating => Some((Freshness::Revalidating, Serve::AndRefresh)),
            Self::Stale => Some((Freshness::StaleIfError, Serve::IfError)),
        }
    }
}

/// When the states of an entry end, in sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Until then it is fresh.
    pub fresh_until: Instant,
    /// Until then it is revalidating.
    pub revalidating_until: Instant,
    /// Until then it is stale.
    pub stale_until: Instant,
}

/// [`Windows`] with eight bytes each, for comparison on a hit.
#[derive(Debug, Clone, Copy)]
struct Ends {
    fresh: ShortInstant,
    revalidating: ShortInstant,
    stale: ShortInstant,
}

/// The configured windows, converted to nanoseconds once for all hits.
#[derive(Debug)]
pub(super) struct TtlPolicy {
    fresh: SpreadSpan,
    feed_fresh: SpreadSpan,
    revalidate: i64,
    stale_if_error: i64,
}

/// A duration with jitter of ±10 % per entry, so that entries filled together do not
/// end together.
#[derive(Debug)]
struct SpreadSpan {
    least: i64,
    range: i64,
}

/// What the state of an entry depends on besides the time and the feed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    /// When the store vouched for it.
    pub(super) validated_at: ShortInstant,
    /// Jitter of its windows, from shortest to longest; uniform over all entries.
    pub(super) drawn: u32,
    /// Whether later changes have been replayed, for an entry from a snapshot; true for
    /// all others.
    pub(super) replayed: bool,
}

impl TtlPolicy {
    pub(super) fn of(config: &CacheConfig) -> Self {
        Self {
            fresh: SpreadSpan::around(config.fresh_for),
            feed_fresh: SpreadSpan::around(config.feed_fresh_for),
            revalidate: nanos(config.revalidate_for),
            stale_if_error: nanos(config.stale_if_error_for),
        }
    }

    /// The state of an entry at `now`. `good_until` returns until when the feed vouches
    /// that the record has not changed since its validation, if it does; it is called
    /// only if that makes a difference.
    pub(super) fn life(
        &self,
        validity: &Validity,
        good_until: impl FnOnce() -> Option<ShortInstant>,
        now: ShortInstant,
    ) -> EntryState {
        let Validity { validated_at, drawn, replayed } = *validity;
        if replayed && now < validated_at.later_by(self.fresh.of(drawn)) {
            return EntryState::Fresh;
        }
        self.ends(validity, good_until()).life(now)
    }

    /// When the states of an entry end if the feed vouches for it until `good_until`,
    /// and its state at `now`.
    pub(super) fn windows(
        &self,
        validity: &Validity,
        good_until: Option<ShortInstant>,
        now: ShortInstant,
    ) -> (Windows, EntryState) {
        let ends = self.ends(validity, good_until);
        let windows = Windows {
            fresh_until: ends.fresh.into(),
            revalidating_until: ends.revalidating.into(),
            stale_until: ends.stale.into(),
        };
        (windows, ends.life(now))
    }

    /// An entry is fresh for `fresh_for`, or while the feed vouches for it up to
    /// `feed_fresh_for`; then revalidating for `revalidate_for`; then stale until its
    /// age is `stale_if_error_for`, which also bounds revalidating: only a fresh entry
    /// is served past it.
    fn ends(&self, validity: &Validity, good_until: Option<ShortInstant>) -> Ends {
        let Validity { validated_at, drawn, replayed } = *validity;
        let after = |span: &SpreadSpan| validated_at.later_by(span.of(drawn));
        let fresh = match good_until {
            _ if !replayed => validated_at,
            None => after(&self.fresh),
            Some(good) => after(&self.fresh).max(good.min(after(&self.feed_fresh))),
        };
        let stale = validated_at.later_by(self.stale_if_error);
        let revalidating = fresh.later_by(self.revalidate).min(stale);
        Ends { fresh, revalidating, stale }
    }
}

impl Ends {
    fn life(&self, now: ShortInstant) -> EntryState {
        if now < self.fresh {
            EntryState::Fresh
        } else if now < self.revalidating {
            EntryState::Revalidating
        } else if now < self.stale {
            EntryState::Stale
        } else {
            EntryState::Expired
        }
    }
}

impl SpreadSpan {
    fn around(span: Duration) -> Self {
        // Leaves room to add `range` to `least`.
        let span = nanos(span).min(i64::MAX / 2);
        Self { least: span - span / 10, range: span / 5 }
    }

    const fn of(&self, drawn: u32) -> i64 {
        let share = (self.range as i128 * drawn as i128) >> u32::BITS;
        #[expect(clippy::cast_possible_truncation, reason = "it is a part of the range")]
        let share = share as i64;
        self.least + share
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The jitter that leaves windows as configured.
    const MIDDLE: u32 = 1 << 31;

    fn config() -> CacheConfig {
        CacheConfig {
            fresh_for: 30 * SECOND,
            feed_fresh_for: 600 * SECOND,
            revalidate_for: 300 * SECOND,
            stale_if_error_for: 3600 * SECOND,
            ..CacheConfig::default()
        }
    }

    /// The states of an entry validated at second 0.
    struct Fixture {
        start: Instant,
        config: CacheConfig,
        validity: Validity,
        good_until: Option<Instant>,
    }

    impl Fixture {
        fn new() -> Self {
            let start = Instant::now() + 10_000 * SECOND;
            let validated_at = start.into();
            let validity = Validity { validated_at, drawn: MIDDLE, replayed: true };
            Self { start, config: config(), validity, good_until: None }
        }

        fn vouched_until(mut self, second: u32) -> Self {
            self.good_until = Some(self.start + second * SECOND);
            self
        }

        fn at(&self, second: u32) -> EntryState {
            let (ttl, now) = (TtlPolicy::of(&self.config), (self.start + second * SECOND).into());
            let good_until = self.good_until.map(ShortInstant::from);
            let life = ttl.life(&self.validity, || good_until, now);
            // `windows` reports the same state.
            let (windows, state) = ttl.windows(&self.validity, good_until, now);
            assert_eq!(state, life);
            let ends = [windows.fresh_until, windows.revalidating_until, windows.stale_until];
            let passed = ends.iter().take_while(|end| ShortInstant::from(**end) <= now).count();
            assert_eq!([Fresh, Revalidating, Stale, Expired][passed], life, "{windows:?}");
            life
        }

        fn lives(&self, seconds: [u32; 6]) -> [EntryState; 6] {
            seconds.map(|second| self.at(second))
        }
    }

    use EntryState::{Expired, Fresh, Revalidating, Stale};

    #[test]
    fn entry_is_fresh_only_for_its_window_without_a_feed() {
        let lives = Fixture::new().lives([0, 29, 30, 329, 330, 3600]);
        assert_eq!(lives, [Fresh, Fresh, Revalidating, Revalidating, Stale, Expired]);
    }

    #[test]
    fn entry_is_fresh_for_the_longer_window_while_the_feed_vouches_for_it() {
        let lives = Fixture::new().vouched_until(100_000).lives([30, 599, 600, 899, 900, 3599]);
        assert_eq!(lives, [Fresh, Fresh, Revalidating, Revalidating, Stale, Stale]);
    }

    #[test]
    fn silent_feed_ends_freshness_but_not_before_the_short_window() {
        let lives = Fixture::new().vouched_until(200).lives([199, 200, 499, 500, 3599, 3600]);
        assert_eq!(lives, [Fresh, Revalidating, Revalidating, Stale, Stale, Expired]);
        assert_eq!(Fixture::new().vouched_until(10).at(29), Fresh);
    }

    #[test]
    fn snapshot_entry_is_not_fresh_before_changes_are_replayed() {
        let mut fixture = Fixture::new().vouched_until(1000);
        fixture.validity.replayed = false;
        assert_eq!(fixture.lives([0, 29, 299, 300, 3599, 3600])[..3], [Revalidating; 3]);
        assert_eq!(fixture.lives([0, 29, 299, 300, 3599, 3600])[3..], [Stale, Stale, Expired]);
    }

    #[test]
    fn only_fresh_entries_are_served_past_the_stale_if_error_bound() {
        let mut fixture = Fixture::new();
        fixture.config.stale_if_error_for = 60 * SECOND;
        let lives = fixture.lives([0, 29, 30, 59, 60, 61]);
        assert_eq!(lives, [Fresh, Fresh, Revalidating, Revalidating, Expired, Expired]);
        assert_eq!(fixture.vouched_until(1000).at(599), Fresh, "the feed vouches for it");
    }

    #[test]
    fn jitter_moves_the_end_of_freshness() {
        let mut fixture = Fixture::new();
        fixture.validity.drawn = u32::MAX;
        assert_eq!([fixture.at(32), fixture.at(33)], [Fresh, Revalidating]);
        fixture.validity.drawn = 0;
        assert_eq!([fixture.at(26), fixture.at(27)], [Fresh, Revalidating]);
    }

    #[test]
    fn longest_windows_do_not_overflow() {
        let mut fixture = Fixture::new();
        fixture.config.fresh_for = Duration::MAX;
        fixture.config.stale_if_error_for = Duration::MAX;
        fixture.validity.drawn = u32::MAX;
        assert_eq!(fixture.at(u32::MAX), Fresh);
    }

    proptest! {
        #[test]
        fn entry_states_only_advance(
            windows in [1..5000u32, 1..5000, 0..5000, 0..5000],
            good in proptest::option::of(0..5000u32),
            drawn: u32,
            replayed: bool,
        ) {
            let mut fixture = Fixture::new();
            let [fresh, feed, revalidate, stale] = windows.map(|seconds| seconds * SECOND);
            fixture.config = CacheConfig {
                fresh_for: fresh,
                feed_fresh_for: feed,
                revalidate_for: revalidate,
                stale_if_error_for: stale,
                ..fixture.config
            };
            fixture.good_until = good.map(|second| fixture.start + second * SECOND);
            fixture.validity.drawn = drawn;
            fixture.validity.replayed = replayed;
            let rank = |second| fixture.at(second) as u8;
            let ranks: Vec<_> = (0..12_000).step_by(7).map(rank).collect();
            prop_assert!(ranks.is_sorted());
        }
    }
}
