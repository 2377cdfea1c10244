//! Counts the bytes that connections hold in memory: parts of incomplete messages, and unread
//! responses.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::telemetry::ConnectionEnd;

/// How many bytes a connection may always hold, whatever others do: a typical message of Envoy, or
/// some hundred responses.
const GUARANTEED: usize = 64 * 1024;

/// Divisor of the budget: the share that one connection may hold.
const SHARE: usize = 16;

/// How many bytes are read from a connection before others on its thread get their turn: some three
/// hundred requests, a few milliseconds.
const TURN_BYTES: usize = 64 * 1024;

/// The bytes that all connections of the process hold together, and their limit.
#[derive(Debug)]
pub struct Budget {
    held: AtomicUsize,
    max: usize,
}

impl Budget {
    /// Creates a budget of `max` bytes. What every connection may always hold comes on top.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), max })
    }

    /// The number of bytes held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }
}

/// The byte counts of one connection.
#[derive(Debug)]
pub(super) struct Meter {
    budget: Arc<Budget>,
    held: AtomicUsize,
    /// Number of response chunks not yet sent, and number sent.
    pending: AtomicUsize,
    sent: AtomicUsize,
    turn: AtomicUsize,
    end: OnceLock<ConnectionEnd>,
}

impl Meter {
    pub(super) fn new(budget: Arc<Budget>) -> Arc<Self> {
        let (held, pending, sent) = Default::default();
        let turn = AtomicUsize::new(TURN_BYTES);
        Arc::new(Self { budget, held, pending, sent, turn, end: OnceLock::new() })
    }

    /// Holds `bytes` more. `None` if that exceeds the limit.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let mut held = Held { meter: Arc::clone(self), bytes: 0 };
        held.grow(bytes).then_some(held)
    }

    /// Holds a response chunk until it has been sent. If that exceeds the limit, the client does
    /// not read: the connection ends.
    pub(super) fn hold_response(self: &Arc<Self>, bytes: usize) -> Option<HeldResponse> {
        let Some(held) = self.hold(bytes) else {
            self.end(ConnectionEnd::Unread);
            return None;
        };
        self.pending.fetch_add(1, Relaxed);
        Some(HeldResponse(held))
    }

    /// The number of response chunks sent, if some are pending.
    pub(super) fn sent_if_pending(&self) -> Option<usize> {
        (self.pending.load(Relaxed) > 0).then(|| self.sent.load(Relaxed))
    }

    /// Starts the next turn of the connection.
    pub(super) fn begin_turn(&self) {
        self.turn.store(TURN_BYTES, Relaxed);
    }

    /// How many bytes may still be read in this turn.
    pub(super) fn turn(&self) -> usize {
        self.turn.load(Relaxed)
    }

    /// Records that `bytes` were read. Only called from the task of the connection.
    pub(super) fn read(&self, bytes: usize) {
        self.turn.store(self.turn().saturating_sub(bytes), Relaxed);
    }

    /// Makes the connection end at its next read. The first reason counts.
    pub(super) fn end(&self, why: ConnectionEnd) {
        let _ = self.end.set(why);
    }

    /// Why the connection has to end, if it has.
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
    /// Holds `bytes` more. Returns false if that exceeds the limit.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let Meter { budget, held, .. } = &*self.meter;
        let own = held.fetch_add(bytes, Relaxed) + bytes;
        let all = budget.held.fetch_add(bytes, Relaxed) + bytes;
        self.bytes += bytes;
        own <= GUARANTEED || own <= budget.max / SHARE && all <= budget.max
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.meter.held.fetch_sub(self.bytes, Relaxed);
        self.meter.budget.held.fetch_sub(self.bytes, Relaxed);
    }
}

/// A response chunk that is held until it has been sent.
#[derive(Debug)]
pub(super) struct HeldResponse(Held);

impl Drop for HeldResponse {
    fn drop(&mut self) {
        self.0.meter.pending.fetch_sub(1, Relaxed);
        self.0.meter.sent.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_its_guaranteed_bytes_and_at_most_its_share() {
        let budget = Budget::new(SHARE * 4 * GUARANTEED);
        let meters: Vec<_> = (0..=SHARE).map(|_| Meter::new(Arc::clone(&budget))).collect();
        let full: Vec<_> =
            meters[..SHARE].iter().map(|it| it.hold(4 * GUARANTEED).unwrap()).collect();
        assert!(meters[0].hold(1).is_none(), "beyond its share");
        let last = &meters[SHARE];
        let guaranteed = last.hold(GUARANTEED).unwrap();
        assert!(last.hold(1).is_none(), "beyond the budget");
        drop(full);
        assert!(last.hold(1).is_some());
        assert_eq!(budget.held(), GUARANTEED);
        drop(guaranteed);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn grown_bytes_are_all_released() {
        let budget = Budget::new(SHARE * 4 * GUARANTEED);
        let meter = Meter::new(Arc::clone(&budget));
        let mut held = meter.hold(1).unwrap();
        assert!(held.grow(4 * GUARANTEED - 1));
        assert!(!held.grow(1));
        drop(held);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn connection_with_too_many_unread_responses_ends() {
        let meter = Meter::new(Budget::new(SHARE * 4 * GUARANTEED));
        assert_eq!(meter.sent_if_pending(), None);
        let held = meter.hold_response(4 * GUARANTEED).unwrap();
        assert_eq!((meter.sent_if_pending(), meter.ended()), (Some(0), None));
        assert!(meter.hold_response(1).is_none());
        assert_eq!(meter.ended(), Some(ConnectionEnd::Unread));
        drop(held);
        assert_eq!(meter.sent_if_pending(), None);
    }
}
