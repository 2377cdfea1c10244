//! A bounded queue of log lines, and the thread that writes them to stderr.
//!
//! A caller that logs copies its line under a lock that is never held during a write. A reader that
//! is slow, stopped or gone costs lines, which are counted, and nothing else.

use std::{
    io::{self, ErrorKind, Write},
    mem,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Capacity of the queue in bytes: some 4,000 lines, seconds of a bad outage. The writer thread may
/// hold as many again.
pub(super) const CAPACITY_BYTES: usize = 1 << 20;

/// How long the writer thread pauses when a non-blocking stderr is full: a parent may share stderr
/// with a program that made it non-blocking.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lines: Mutex<Lines>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Lines {
    /// Whole lines, each with its newline.
    waiting: Vec<u8>,
    /// Whether the writer thread is writing a batch.
    writing: bool,
}

impl Queue {
    /// Appends a line, which includes its newline, or counts it as dropped when the queue is full.
    /// Never waits for a write.
    pub(super) fn push(&self, line: &[u8]) {
        let mut lines = self.lines();
        if lines.waiting.len() + line.len() > CAPACITY_BYTES {
            drop(lines);
            self.count_dropped(line);
            return;
        }
        lines.waiting.extend_from_slice(line);
        self.changed.notify_all();
    }

    /// Number of lines dropped so far: the queue was full, or writing failed.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines have been written or dropped. Returns false after `limit`.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let busy = |lines: &mut Lines| lines.writing || !lines.waiting.is_empty();
        let waited = self.changed.wait_timeout_while(self.lines(), limit, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Moves the queued lines into `batch` as soon as there are any, or nothing after `limit`. The
    /// caller must then call [`write`](Self::write).
    pub(super) fn take(&self, batch: &mut Vec<u8>, limit: Duration) {
        batch.clear();
        let waited =
            self.changed.wait_timeout_while(self.lines(), limit, |lines| lines.waiting.is_empty());
        let (mut lines, _) = waited.unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut lines.waiting, batch);
        lines.writing = true;
    }

    /// Writes a batch. Returns false when part of it could not be written, which is counted.
    pub(super) fn write(&self, out: &mut impl Write, batch: &[u8]) -> bool {
        let unwritten = self.write_all(out, batch);
        self.count_dropped(unwritten);
        self.lines().writing = false;
        self.changed.notify_all();
        unwritten.is_empty()
    }

    /// Returns the part that could not be written.
    fn write_all<'a>(&self, out: &mut impl Write, mut rest: &'a [u8]) -> &'a [u8] {
        while !rest.is_empty() {
            match out.write(rest) {
                Ok(0) => break,
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.pause(),
                Err(_) => break,
            }
        }
        rest
    }

    /// Pauses for the full time: a notification does not end it early.
    fn pause(&self) {
        let end = Instant::now() + RETRY_AFTER;
        let mut lines = self.lines();
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let waited = self.changed.wait_timeout(lines, left);
            (lines, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn count_dropped(&self, lines: &[u8]) {
        let lines = lines.split_inclusive(|byte| *byte == b'\n').count();
        self.dropped.fetch_add(lines.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Appends to the queue what `tracing-subscriber` writes: one whole line per call.
pub(super) struct QueueWriter<'a>(pub(super) &'a Queue);

impl Write for QueueWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts this many bytes, then fails.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let taken = self.0.min(bytes.len());
            self.0 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Succeeds only on every third call.
    struct Unready(Vec<u8>, usize);

    impl Write for Unready {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            match self.1 % 3 {
                1 => Err(ErrorKind::WouldBlock.into()),
                2 => Err(ErrorKind::Interrupted.into()),
                _ => self.0.write(&bytes[..1]),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn write_next(queue: &Queue, out: &mut impl Write) -> bool {
        let mut batch = Vec::new();
        queue.take(&mut batch, Duration::ZERO);
        queue.write(out, &batch)
    }

    #[test]
    fn lines_are_written_in_order() {
        let queue = Queue::default();
        queue.push(b"one\n");
        queue.push(b"two\n");
        let mut out = Vec::new();
        assert!(write_next(&queue, &mut out));
        assert!(write_next(&queue, &mut out), "there is nothing to write");
        assert_eq!((out.as_slice(), queue.dropped()), (b"one\ntwo\n".as_slice(), 0));
    }

    #[test]
    fn line_beyond_the_capacity_is_dropped_and_counted() {
        let queue = Queue::default();
        let line = [vec![b'x'; CAPACITY_BYTES / 2 - 1], vec![b'\n']].concat();
        for _ in 0..5 {
            queue.push(&line);
        }
        assert_eq!(queue.dropped(), 3);
        let mut out = Vec::new();
        write_next(&queue, &mut out);
        assert_eq!(out.len(), CAPACITY_BYTES);
        queue.push(&line);
        assert_eq!(queue.dropped(), 3, "there is room again");
    }

    #[test]
    fn partly_written_line_is_counted_as_dropped() {
        let queue = Queue::default();
        queue.push(b"one\ntwo\nthree\n");
        assert!(!write_next(&queue, &mut Full(5)));
        assert_eq!(queue.dropped(), 2);
        queue.push(b"four\n");
        assert!(!write_next(&queue, &mut Full(0)));
        assert_eq!(queue.dropped(), 3);
    }

    #[test]
    fn output_that_would_block_is_retried() {
        let queue = Queue::default();
        queue.push(b"one\n");
        let mut out = Unready(Vec::new(), 0);
        assert!(write_next(&queue, &mut out));
        assert_eq!((out.0.as_slice(), queue.dropped()), (b"one\n".as_slice(), 0));
    }

    #[test]
    fn flush_ends_with_the_last_line_or_its_limit() {
        let queue = Queue::default();
        assert!(queue.flush(Duration::ZERO), "there is nothing to write");
        queue.push(b"one\n");
        assert!(!queue.flush(Duration::from_millis(20)), "nobody writes");
        std::thread::scope(|scope| {
            scope.spawn(|| write_next(&queue, &mut Vec::new()));
            assert!(queue.flush(Duration::from_mins(1)));
        });
    }
}
