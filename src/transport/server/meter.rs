//! What a connection holds in memory: parts of messages that have not come in whole,
//! and answers that have not been taken.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::telemetry::ConnectionEnd;

/// What every connection may hold, however much others do: a typical message of Envoy,
/// or some hundred answers.
const ALWAYS: usize = 64 * 1024;

/// Which part of the budget one connection may hold.
const SHARE: usize = 16;

/// How much is read from a connection before others of its thread have their turn: some
/// three hundred requests, a few milliseconds.
const TURN: usize = 64 * 1024;

/// How many bytes all connections of the process together hold, and may hold.
#[derive(Debug)]
pub struct Budget {
    held: AtomicUsize,
    max: usize,
}

impl Budget {
    /// A budget of so many bytes, and what every connection may hold beside it.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), max })
    }

    /// How many bytes are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }
}

/// The meter of one connection.
#[derive(Debug)]
pub(super) struct Meter {
    budget: Arc<Budget>,
    held: AtomicUsize,
    /// How many pieces of answers wait to be taken, and how many were.
    waiting: AtomicUsize,
    taken: AtomicUsize,
    turn: AtomicUsize,
    end: OnceLock<ConnectionEnd>,
}

impl Meter {
    pub(super) fn new(budget: Arc<Budget>) -> Arc<Self> {
        let (held, waiting, taken) = Default::default();
        let turn = AtomicUsize::new(TURN);
        Arc::new(Self { budget, held, waiting, taken, turn, end: OnceLock::new() })
    }

    /// Holds so many bytes more. `None` when that is too much.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let mut held = Held { meter: Arc::clone(self), bytes: 0 };
        held.grow(bytes).then_some(held)
    }

    /// Holds a piece of an answer until it has been taken. Where that is too much, its
    /// reader does not read: the connection ends.
    pub(super) fn hold_answer(self: &Arc<Self>, bytes: usize) -> Option<HeldAnswer> {
        let Some(held) = self.hold(bytes) else {
            self.end(ConnectionEnd::Unread);
            return None;
        };
        self.waiting.fetch_add(1, Relaxed);
        Some(HeldAnswer(held))
    }

    /// How many pieces of answers have been taken, if some wait now.
    pub(super) fn taken_while_some_wait(&self) -> Option<usize> {
        (self.waiting.load(Relaxed) > 0).then(|| self.taken.load(Relaxed))
    }

    /// Gives the connection another turn.
    pub(super) fn begin_turn(&self) {
        self.turn.store(TURN, Relaxed);
    }

    /// How much may still be read in this turn.
    pub(super) fn turn(&self) -> usize {
        self.turn.load(Relaxed)
    }

    /// So much was read. Only ever called from the task of the connection.
    pub(super) fn read(&self, bytes: usize) {
        self.turn.store(self.turn().saturating_sub(bytes), Relaxed);
    }

    /// Ends the connection when it is looked at next. The first reason counts.
    pub(super) fn end(&self, why: ConnectionEnd) {
        let _ = self.end.set(why);
    }

    /// Why it is to end, if it is.
    pub(super) fn ended(&self) -> Option<ConnectionEnd> {
        self.end.get().copied()
    }
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    meter: Arc<Meter>,
    bytes: usize,
}

impl Held {
    /// Holds so many bytes more. False when that is too much.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let Meter { budget, held, .. } = &*self.meter;
        let own = held.fetch_add(bytes, Relaxed) + bytes;
        let all = budget.held.fetch_add(bytes, Relaxed) + bytes;
        self.bytes += bytes;
        own <= ALWAYS || own <= budget.max / SHARE && all <= budget.max
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.meter.held.fetch_sub(self.bytes, Relaxed);
        self.meter.budget.held.fetch_sub(self.bytes, Relaxed);
    }
}

/// A piece of an answer that is held until it has been taken.
#[derive(Debug)]
pub(super) struct HeldAnswer(Held);

impl Drop for HeldAnswer {
    fn drop(&mut self) {
        self.0.meter.waiting.fetch_sub(1, Relaxed);
        self.0.meter.taken.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_may_hold_a_little_and_none_more_than_its_share() {
        let budget = Budget::new(SHARE * 4 * ALWAYS);
        let meters: Vec<_> = (0..=SHARE).map(|_| Meter::new(Arc::clone(&budget))).collect();
        let full: Vec<_> = meters[..SHARE].iter().map(|it| it.hold(4 * ALWAYS).unwrap()).collect();
        assert!(meters[0].hold(1).is_none(), "beyond its share");
        let last = &meters[SHARE];
        let always = last.hold(ALWAYS).unwrap();
        assert!(last.hold(1).is_none(), "beyond what all may hold");
        drop(full);
        assert!(last.hold(1).is_some());
        assert_eq!(budget.held(), ALWAYS);
        drop(always);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn what_grows_is_given_back_whole() {
        let budget = Budget::new(SHARE * 4 * ALWAYS);
        let meter = Meter::new(Arc::clone(&budget));
        let mut held = meter.hold(1).unwrap();
        assert!(held.grow(4 * ALWAYS - 1));
        assert!(!held.grow(1));
        drop(held);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_connection_whose_answers_are_too_many_is_to_end() {
        let meter = Meter::new(Budget::new(SHARE * 4 * ALWAYS));
        assert_eq!(meter.taken_while_some_wait(), None);
        let held = meter.hold_answer(4 * ALWAYS).unwrap();
        assert_eq!((meter.taken_while_some_wait(), meter.ended()), (Some(0), None));
        assert!(meter.hold_answer(1).is_none());
        assert_eq!(meter.ended(), Some(ConnectionEnd::Unread));
        drop(held);
        assert_eq!(meter.taken_while_some_wait(), None);
    }
}
