//! Instants of eight and of four bytes, for data that every key holds.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The origin of all instants here: some instant of this process.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// An instant in eight bytes, half the size of [`Instant`]. Exact to the nanosecond
/// within 292 years before or after the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShortInstant(i64);

impl ShortInstant {
    /// The instant `nanos` nanoseconds later; saturates.
    #[must_use]
    pub const fn later_by(self, nanos: i64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// Nanoseconds since the origin; never `i64::MIN`.
    pub(super) const fn as_nanos(self) -> i64 {
        self.0
    }

    pub(super) const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Hundredths of a second since the origin, which wrap after 497 days.
    fn hundredths(self) -> u32 {
        const NANOS: i64 = 10_000_000;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "they wrap")]
        let hundredths = self.0.div_euclid(NANOS) as u32;
        hundredths
    }
}

/// A duration in nanoseconds; saturates at 292 years.
#[must_use]
pub fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

impl From<Instant> for ShortInstant {
    fn from(at: Instant) -> Self {
        Self(match at.checked_duration_since(*ORIGIN) {
            Some(after) => nanos(after),
            None => -nanos(ORIGIN.duration_since(at)),
        })
    }
}

impl From<ShortInstant> for Instant {
    fn from(ShortInstant(mark): ShortInstant) -> Self {
        let nanos = Duration::from_nanos(mark.unsigned_abs());
        let moved = if mark >= 0 { ORIGIN.checked_add(nanos) } else { ORIGIN.checked_sub(nanos) };
        moved.unwrap_or(*ORIGIN)
    }
}

/// An instant in four bytes, to a hundredth of a second, or never. Read and written
/// without a lock. Unambiguous for 248 days.
#[derive(Debug, Default)]
pub struct CoarseInstant(AtomicU32);

const NEVER: u32 = 0;

impl CoarseInstant {
    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire) != NEVER
    }

    /// The instant, rounded down; `None` means never. `near` must be within 248 days of it.
    #[must_use]
    pub fn get(&self, near: ShortInstant) -> Option<ShortInstant> {
        nearest(self.0.load(Ordering::Acquire), near)
    }

    /// Sets the instant.
    pub fn set(&self, at: Option<ShortInstant>) {
        self.0.store(at.map_or(NEVER, mark), Ordering::Release);
    }

    /// Sets the instant if it is never. Returns the resulting instant.
    pub fn get_or_set(&self, at: ShortInstant) -> ShortInstant {
        match self.0.compare_exchange(NEVER, mark(at), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => at,
            Err(earlier) => nearest(earlier, at).unwrap_or(at),
        }
    }

    /// Sets it to `now` if it is never or at least `every` away from `now`; `every` must be
    /// less than 248 days. Of several concurrent callers one succeeds.
    pub fn claim(&self, now: ShortInstant, every: Duration) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let every = u32::try_from(every.as_millis() / 10).unwrap_or(u32::MAX);
        let due = last == NEVER || since(last, now).unsigned_abs() >= every;
        due && self.0.compare_exchange(last, mark(now), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// Shifts one hundredth in 497 days by one, to keep 0 for "never".
fn mark(at: ShortInstant) -> u32 {
    at.hundredths().max(NEVER + 1)
}

/// Hundredths of a second from a mark to an instant.
fn since(mark: u32, at: ShortInstant) -> i32 {
    at.hundredths().wrapping_sub(mark).cast_signed()
}

fn nearest(mark: u32, near: ShortInstant) -> Option<ShortInstant> {
    const NANOS: i64 = 10_000_000;
    let whole = near.0.div_euclid(NANOS) - i64::from(since(mark, near));
    (mark != NEVER).then(|| ShortInstant(whole.saturating_mul(NANOS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn instants_before_and_after_the_origin_round_trip() {
        let now = Instant::now();
        let odd = Duration::new(1000, 123_456_789);
        for instant in [now, now + odd, now.checked_sub(odd).unwrap()] {
            assert_eq!(Instant::from(ShortInstant::from(instant)), instant);
        }
        assert_eq!(size_of::<ShortInstant>(), 8);
    }

    #[test]
    fn instants_are_ordered_by_time() {
        let now = Instant::now();
        let [before, now, after] = [now - SECOND, now, now + SECOND].map(ShortInstant::from);
        assert!(before < now && now < after);
        assert_eq!(now.later_by(nanos(SECOND)), after);
        assert!(after < now.later_by(i64::MAX), "it saturates");
    }

    #[test]
    fn coarse_instant_is_exact_to_a_hundredth_of_a_second_for_248_days() {
        let start = Instant::now();
        let hundredth = nanos(Duration::from_millis(10));
        for offset in [Duration::ZERO, 100 * DAY, 400 * DAY, 497 * DAY, 5000 * DAY] {
            let (at, coarse) = (ShortInstant::from(start + offset), CoarseInstant::default());
            assert_eq!((coarse.get(at), coarse.is_set()), (None, false));
            coarse.set(Some(at));
            for near in [start + offset + 248 * DAY, start + offset - SECOND] {
                let read = coarse.get(near.into()).unwrap();
                assert!(read <= at && at < read.later_by(hundredth), "{offset:?}");
            }
            coarse.set(None);
            assert!(!coarse.is_set());
        }
        assert_eq!(size_of::<CoarseInstant>(), 4);
    }

    #[test]
    fn first_setter_of_a_coarse_instant_wins() {
        let (coarse, now) = (CoarseInstant::default(), ShortInstant::from(Instant::now()));
        assert_eq!(coarse.get_or_set(now), now);
        let later = now.later_by(nanos(SECOND));
        assert!(coarse.get_or_set(later) <= now);
    }

    #[test]
    fn coarse_instant_is_claimed_once_per_interval() {
        let (coarse, start) = (CoarseInstant::default(), Instant::now());
        let claim = |after: Duration| coarse.claim((start + after).into(), SECOND);
        assert!(claim(Duration::ZERO));
        assert!(!claim(SECOND / 2));
        assert!(claim(SECOND));
        assert!(!claim(SECOND));
        assert!(!claim(SECOND / 2), "a late caller does not claim it again");
        assert!(claim(400 * DAY) && !claim(400 * DAY));
    }
}
