//! What every check counts, without threads that serve getting into each other's
//! way: each thread has a place of its own, and whoever reads adds them up.
//!
//! One counter for all threads is a cache line that moves between the cores with
//! every check, which takes longer the more cores there are.

use std::{
    cell::Cell,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::metrics::BoundHistogram;

/// How many threads have a place of their own; further ones share. More than
/// most machines have cores, and some kilobytes in all.
const PLACES: usize = 64;

/// How many durations a place gathers before they go into the histogram: then the
/// histogram moves between the cores once for so many.
const GATHERED: usize = 64;

/// Something for each thread, in cache lines of its own.
///
/// Processors fetch lines in pairs, so that it takes two of 64 bytes.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CachePadded<T>(T);

/// One thing for each thread.
#[derive(Debug)]
struct Local<T>(Box<[CachePadded<T>]>);

impl<T> Local<T> {
    fn new(make: impl Fn() -> T) -> Self {
        Self((0..PLACES).map(|_| CachePadded(make())).collect())
    }

    /// That of this thread.
    fn mine(&self) -> &T {
        &self.0[place()].0
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|CachePadded(one)| one)
    }
}

/// The place of this thread, below [`PLACES`].
fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    const NONE: usize = usize::MAX;
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(NONE) };
    }
    MINE.with(|mine| {
        if mine.get() == NONE {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % PLACES);
        }
        mine.get()
    })
}

/// Counters, told apart by their index.
#[derive(Debug)]
pub(super) struct ShardedCounters(Local<Box<[AtomicU64]>>);

impl ShardedCounters {
    /// So many counters at zero.
    pub(super) fn new(counters: usize) -> Self {
        Self(Local::new(|| (0..counters).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Adds one to a counter. Panics if there is no such counter.
    pub(super) fn count(&self, counter: usize) {
        self.0.mine()[counter].fetch_add(1, Ordering::Relaxed);
    }

    /// How often something was counted.
    pub(super) fn total(&self, counter: usize) -> u64 {
        self.0.all().map(|counters| counters[counter].load(Ordering::Relaxed)).sum()
    }

    /// How often anything was counted.
    pub(super) fn sum(&self) -> u64 {
        self.0.all().flatten().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }
}

/// Durations on their way into a histogram, gathered by thread.
pub(super) struct BufferedHistogram {
    gathered: Local<Mutex<Vec<f64>>>,
    histogram: BoundHistogram<f64>,
}

impl BufferedHistogram {
    pub(super) fn new(histogram: BoundHistogram<f64>) -> Self {
        Self { gathered: Local::new(|| Mutex::new(Vec::with_capacity(GATHERED))), histogram }
    }

    /// Notes a duration, in seconds, which is in the histogram from the next
    /// [`BufferedHistogram::flush`] on at the latest.
    pub(super) fn record(&self, took: Duration) {
        let mut gathered = lock(self.gathered.mine());
        gathered.push(took.as_secs_f64());
        if gathered.len() >= GATHERED {
            self.pass_on(&mut gathered);
        }
    }

    /// Puts all that was noted into the histogram.
    pub(super) fn flush(&self) {
        for gathered in self.gathered.all() {
            self.pass_on(&mut lock(gathered));
        }
    }

    fn pass_on(&self, gathered: &mut Vec<f64>) {
        for seconds in gathered.drain(..) {
            self.histogram.record(seconds);
        }
    }
}

impl fmt::Debug for BufferedHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferedHistogram").finish_non_exhaustive()
    }
}

/// Nothing panics while it holds this lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn nothing_that_any_thread_counts_is_lost() {
        let tally = ShardedCounters::new(3);
        thread::scope(|scope| {
            for _ in 0..2 * PLACES {
                scope.spawn(|| (0..100).for_each(|_| tally.count(1)));
            }
        });
        assert_eq!([0, 1, 2].map(|counter| tally.total(counter)), [0, 12_800, 0]);
    }

    #[test]
    fn threads_that_are_alive_together_have_places_apart() {
        let local = Local::new(AtomicU64::default);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| local.mine().fetch_add(1, Ordering::Relaxed));
            }
        });
        // Other tests start threads too: some places may be shared when their
        // number has gone round.
        assert!(local.all().filter(|one| one.load(Ordering::Relaxed) > 0).count() > 1);
        assert_eq!(align_of::<CachePadded<u8>>(), 128);
    }
}
