//! Contention-free counting for the hot path: each thread writes to its own shard, and readers add
//! the shards up.
//!
//! A counter shared by all threads is a cache line that moves between cores with every check, which
//! takes longer the more cores there are.

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

/// Number of shards; further threads share them. More than most machines have cores, and a few
/// kilobytes in total.
const SHARDS: usize = 64;

/// How many durations a shard buffers before they go into the histogram, so that the histogram's
/// cache line moves between cores once per this many records.
const BUFFER_LEN: usize = 64;

/// A value in its own cache lines.
///
/// 128 bytes, because processors prefetch 64-byte lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CachePadded<T>(T);

/// One value per shard.
#[derive(Debug)]
struct Sharded<T>(Box<[CachePadded<T>]>);

impl<T> Sharded<T> {
    fn new(make: impl Fn() -> T) -> Self {
        Self((0..SHARDS).map(|_| CachePadded(make())).collect())
    }

    /// The value of this thread's shard.
    fn mine(&self) -> &T {
        &self.0[shard_index()].0
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|CachePadded(one)| one)
    }
}

/// Index of this thread's shard, below [`SHARDS`].
fn shard_index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    const NONE: usize = usize::MAX;
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(NONE) };
    }
    MINE.with(|mine| {
        if mine.get() == NONE {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        mine.get()
    })
}

/// Counters, addressed by index.
#[derive(Debug)]
pub(super) struct ShardedCounters(Sharded<Box<[AtomicU64]>>);

impl ShardedCounters {
    /// Creates `counters` counters at zero.
    pub(super) fn new(counters: usize) -> Self {
        Self(Sharded::new(|| (0..counters).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Increments a counter. Panics if the index is out of range.
    pub(super) fn count(&self, counter: usize) {
        self.0.mine()[counter].fetch_add(1, Ordering::Relaxed);
    }

    /// The value of one counter.
    pub(super) fn total(&self, counter: usize) -> u64 {
        self.0.all().map(|counters| counters[counter].load(Ordering::Relaxed)).sum()
    }

    /// The sum of all counters.
    pub(super) fn sum(&self) -> u64 {
        self.0.all().flatten().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }
}

/// A histogram with a buffer of durations per shard.
pub(super) struct BufferedHistogram {
    buffered: Sharded<Mutex<Vec<f64>>>,
    histogram: BoundHistogram<f64>,
}

impl BufferedHistogram {
    pub(super) fn new(histogram: BoundHistogram<f64>) -> Self {
        Self { buffered: Sharded::new(|| Mutex::new(Vec::with_capacity(BUFFER_LEN))), histogram }
    }

    /// Buffers a duration. It is in the histogram after the next [`BufferedHistogram::flush`] at
    /// the latest.
    pub(super) fn record(&self, took: Duration) {
        let mut buffered = lock(self.buffered.mine());
        buffered.push(took.as_secs_f64());
        if buffered.len() >= BUFFER_LEN {
            self.record_all(&mut buffered);
        }
    }

    /// Moves all buffered durations into the histogram.
    pub(super) fn flush(&self) {
        for buffered in self.buffered.all() {
            self.record_all(&mut lock(buffered));
        }
    }

    fn record_all(&self, buffered: &mut Vec<f64>) {
        for seconds in buffered.drain(..) {
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
    fn counts_of_all_threads_add_up() {
        let counters = ShardedCounters::new(3);
        thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| (0..100).for_each(|_| counters.count(1)));
            }
        });
        assert_eq!([0, 1, 2].map(|counter| counters.total(counter)), [0, 12_800, 0]);
    }

    #[test]
    fn concurrent_threads_have_separate_shards() {
        let local = Sharded::new(AtomicU64::default);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| local.mine().fetch_add(1, Ordering::Relaxed));
            }
        });
        // Other tests start threads too: some shards may be shared once the index has wrapped
        // around.
        assert!(local.all().filter(|one| one.load(Ordering::Relaxed) > 0).count() > 1);
        assert_eq!(align_of::<CachePadded<u8>>(), 128);
    }
}
