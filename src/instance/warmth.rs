//! Counts the checks of known keys that are answered while the store is in doubt.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::key::Digest;

/// Number of spans in the window of ten seconds: long enough for an instance with
/// few checks, short enough to take a cold one out of rotation while callers wait.
const SPANS: usize = 5;

/// Length of a span, in seconds.
const SPAN_SECONDS: u64 = 2;

/// Minimum number of distinct keys for a share to be significant.
const MIN_KEYS: u64 = 5;

/// Words in a bit set: 4096 bits distinguish thousands of keys well enough.
const WORDS: usize = 64;

/// A sliding window of ten seconds over the outcomes of checks, by distinct keys: a key that is
/// checked repeatedly counts once. Recording takes no lock.
#[derive(Debug)]
pub struct Warmth {
    start: Instant,
    spans: [Span; SPANS],
}

/// One span. The first check of a new round empties it; a check that is counted at the same moment
/// may be lost.
#[derive(Debug, Default)]
struct Span {
    number: AtomicU64,
    answered: Ends,
    unanswered: Ends,
}

/// The checks of one outcome.
#[derive(Debug, Default)]
struct Ends {
    checks: AtomicU64,
    keys: Keys,
}

/// A set of keys, as bits indexed by part of their digests.
#[derive(Debug)]
struct Keys([AtomicU64; WORDS]);

impl Default for Keys {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Ends {
    fn clear(&self) {
        self.checks.store(0, Ordering::Relaxed);
        self.keys.clear();
    }

    fn insert(&self, digest: &Digest) {
        self.checks.fetch_add(1, Ordering::Relaxed);
        self.keys.insert(digest);
    }
}

impl Keys {
    fn clear(&self) {
        for word in &self.0 {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn insert(&self, digest: &Digest) {
        let [a, b, ..] = *digest.as_bytes();
        self.0[usize::from(a) % WORDS].fetch_or(1 << (b % 64), Ordering::Relaxed);
    }
}

/// Recent outcomes of checks: by distinct keys and by checks. A key may be among both outcomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// By distinct keys.
    pub keys: Counts,
    /// By checks.
    pub checks: Counts,
}

/// How many ended with a decision, allowed or denied, and how many without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// With a decision.
    pub answered: u64,
    /// Without a decision.
    pub unanswered: u64,
}

impl Counts {
    const fn total(self) -> u64 {
        self.answered + self.unanswered
    }

    /// Whether fewer than one in ten were answered.
    const fn are_hardly_answered(self) -> bool {
        self.answered * 10 < self.total()
    }

    /// Whether at least one in five was answered, or there was none.
    const fn are_answered_again(self) -> bool {
        self.answered * 5 >= self.total()
    }
}

impl Share {
    /// Whether fewer than one in ten are answered, both of the checks and of the keys. An instance
    /// that answers warm traffic is useful whatever cold keys others check: neither one caller that
    /// repeats a key nor one that checks many keys takes it away from the others.
    #[must_use]
    pub const fn is_cold(self) -> bool {
        self.keys.total() >= MIN_KEYS
            && self.keys.are_hardly_answered()
            && self.checks.are_hardly_answered()
    }

    /// Whether one in five of the checks or of the keys is answered, or there are no checks.
    /// Between the two thresholds the state stays as it was, so that it does not flap (hysteresis).
    #[must_use]
    pub const fn is_warm(self) -> bool {
        self.keys.are_answered_again() || self.checks.are_answered_again()
    }
}

impl Warmth {
    /// Creates an empty window.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self { start, spans: Default::default() }
    }

    /// Records how a check of a key ended.
    pub fn note(&self, digest: &Digest, answered: bool, now: Instant) {
        let number = self.number(now);
        let span = &self.spans[slot(number)];
        if span.number.swap(number, Ordering::Relaxed) != number {
            span.answered.clear();
            span.unanswered.clear();
        }
        let ends = if answered { &span.answered } else { &span.unanswered };
        ends.insert(digest);
    }

    /// Outcomes of the checks in the last ten seconds.
    #[must_use]
    pub fn share(&self, now: Instant) -> Share {
        let newest = self.number(now);
        let oldest = newest.saturating_sub(SPANS as u64 - 1).max(1);
        let recent =
            |span: &&Span| (oldest..=newest).contains(&span.number.load(Ordering::Relaxed));
        let ends = |of: fn(&Span) -> &Ends| self.spans.iter().filter(recent).map(of);
        let keys = |of| -> u64 {
            let word = |index: usize| {
                let words = ends(of).map(|ends| ends.keys.0[index].load(Ordering::Relaxed));
                words.fold(0, std::ops::BitOr::bitor).count_ones()
            };
            (0..WORDS).map(|index| u64::from(word(index))).sum()
        };
        let checks = |of| ends(of).map(|ends| ends.checks.load(Ordering::Relaxed)).sum();
        let with: fn(&Span) -> &Ends = |span| &span.answered;
        let without: fn(&Span) -> &Ends = |span| &span.unanswered;
        Share {
            keys: Counts { answered: keys(with), unanswered: keys(without) },
            checks: Counts { answered: checks(with), unanswered: checks(without) },
        }
    }

    /// The number of a span, from 1; 0 marks a span that was never used.
    fn number(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / SPAN_SECONDS + 1
    }
}

fn slot(number: u64) -> usize {
    usize::try_from(number % SPANS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SPAN: Duration = Duration::from_secs(SPAN_SECONDS);

    fn nth(n: u32) -> Digest {
        Digest::sha256_of(&n.to_be_bytes())
    }

    fn counts(answered: u64, unanswered: u64) -> Counts {
        Counts { answered, unanswered }
    }

    #[test]
    fn checks_count_for_ten_seconds() {
        let start = Instant::now();
        let warmth = Warmth::new(start);
        for span in 0..12 {
            let now = start + span * SPAN;
            warmth.note(&nth(3 * span), true, now);
            warmth.note(&nth(3 * span + 1), false, now);
            warmth.note(&nth(3 * span + 2), false, now);
            let spans = u64::from(span.min(4) + 1);
            let share = Share { keys: counts(spans, 2 * spans), checks: counts(spans, 2 * spans) };
            assert_eq!(warmth.share(now), share, "{span}");
        }
        let last = start + 11 * SPAN;
        assert_eq!(warmth.share(last + 4 * SPAN).keys, counts(1, 2));
        assert_eq!(warmth.share(last + 5 * SPAN), Share::default());
    }

    #[test]
    fn a_key_that_is_asked_for_again_and_again_counts_once_among_keys() {
        let start = Instant::now();
        let warmth = Warmth::new(start);
        for second in 0..8 {
            warmth.note(&nth(0), false, start + second * Duration::from_secs(1));
        }
        let share = warmth.share(start + Duration::from_secs(8));
        assert_eq!(share, Share { keys: counts(0, 1), checks: counts(0, 8) });
    }

    #[test]
    fn thousands_of_keys_are_told_from_each_other() {
        let start = Instant::now();
        let warmth = Warmth::new(start);
        for n in 0..2000 {
            warmth.note(&nth(n), n % 4 != 0, start);
        }
        let Counts { answered, unanswered } = warmth.share(start).keys;
        assert!((1100..=1500).contains(&answered) && (430..=500).contains(&unanswered));
    }

    #[test]
    fn it_is_cold_when_fewer_than_one_in_ten_of_checks_and_of_keys_are_answered() {
        let cold = |keys, checks| Share { keys, checks }.is_cold();
        assert!(cold(counts(0, 5), counts(0, 5)));
        assert!(!cold(counts(0, 4), counts(0, 400)), "too few to tell");
        assert!(cold(counts(9, 91), counts(9, 91)));
        assert!(!cold(counts(10, 90), counts(0, 900)) && !cold(counts(0, 900), counts(10, 90)));
    }

    #[test]
    fn warm_traffic_that_is_answered_keeps_an_instance_in_whatever_cold_keys_others_ask_for() {
        let start = Instant::now();
        let warmth = Warmth::new(start);
        for n in 0..80 {
            warmth.note(&nth(n), false, start);
        }
        for n in 80..95 {
            warmth.note(&nth(n), true, start);
        }
        assert!(!warmth.share(start).is_cold());
    }

    #[test]
    fn it_is_warm_again_when_one_in_five_checks_or_keys_is_answered_or_nobody_asks() {
        let warm = |keys, checks| Share { keys, checks }.is_warm();
        assert!(warm(counts(0, 0), counts(0, 0)));
        assert!(warm(counts(20, 80), counts(0, 99)) && warm(counts(0, 99), counts(20, 80)));
        assert!(!warm(counts(19, 81), counts(19, 81)));
    }
}
