//! Pending lookups, queued or in flight: a bounded data structure without a clock or
//! I/O.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    time::Duration,
};

use tokio::{
    sync::watch::{Receiver, Sender, channel},
    time::Instant,
};

use crate::{
    key::{Digest, Revision},
    outage::Unavailable,
    tier::Observation,
};

/// How long a lane must be non-empty to count as overloaded: one interval of `CoDel`
/// (RFC 8289), within which a burst drains.
const STANDING_AFTER: Duration = Duration::from_millis(100);

/// A class of keys with its own queue, so that no lane delays the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Keys that carry our tag or are cached.
    Known,
    /// Keys that this instance has not seen: imported, or made up.
    NeverSeen,
}

impl Lane {
    /// Both lanes.
    pub const ALL: [Self; 2] = [Self::Known, Self::NeverSeen];

    /// The name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::NeverSeen => "never_seen",
        }
    }
}

/// The stage of a lookup, as its callers observe it.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    Queued,
    InFlight,
    Done(Result<Observation, Unavailable>),
}

/// Identifies one lookup, and tells it from later ones of the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

#[derive(Debug)]
struct Lookup {
    ticket: Ticket,
    stage: Sender<Stage>,
    ours: bool,
    /// The latest deadline of its callers.
    answer_by: Instant,
    /// Whether it runs even without callers.
    kept: bool,
    /// Whether it ever had a caller.
    had_caller: bool,
}

/// A lookup taken from its lane to be queried.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) digest: Digest,
    pub(super) ticket: Ticket,
    /// See [`LookupRequest::ours`].
    pub(super) ours: bool,
    pub(super) stage: Sender<Stage>,
    /// Whether it ever had a caller.
    pub(super) had_caller: bool,
}

/// The lookups of the next query of a lane.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) taken: Vec<Taken>,
    /// Lookups that could no longer be answered in time.
    pub(super) late: Vec<Sender<Stage>>,
}

/// The queued lookups of one lane and the number of its workers.
#[derive(Debug, Default)]
struct LaneQueue {
    /// Lookups with callers, some of which may have cancelled.
    foreground: VecDeque<(Digest, Ticket)>,
    /// Lookups without callers: queried when a batch has room left.
    background: VecDeque<(Digest, Ticket)>,
    /// Since when `foreground` has not been empty.
    standing_since: Option<Instant>,
    workers: usize,
}

#[derive(Debug)]
pub(super) struct Queue {
    under_way: HashMap<Digest, Lookup>,
    /// Keys that changed while older lookups of them are in flight: the number of
    /// those lookups, and the last change.
    fences: HashMap<Digest, (usize, Revision)>,
    lanes: [LaneQueue; 2],
    next: u64,
    max_queued: usize,
}

/// A request to look a key up.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookupRequest {
    pub(super) digest: Digest,
    pub(super) lane: Lane,
    /// Whether its tag was made with one of our secrets; false if unknown.
    pub(super) ours: bool,
    pub(super) answer_by: Instant,
    /// Background refresh: runs without callers, after foreground lookups.
    pub(super) background: bool,
}

impl Lookup {
    fn is_wanted(&self) -> bool {
        self.kept || self.stage.receiver_count() > 0
    }

    fn is_queued(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Queued)
    }
}

impl LaneQueue {
    fn is_empty(&self) -> bool {
        self.foreground.is_empty() && self.background.is_empty()
    }

    fn push(&mut self, request: &LookupRequest, ticket: Ticket, now: Instant) {
        if request.background {
            self.background.push_back((request.digest, ticket));
        } else {
            self.foreground.push_back((request.digest, ticket));
            self.standing_since.get_or_insert(now);
        }
    }

    fn pop(&mut self) -> Option<(Digest, Ticket)> {
        self.foreground.pop_front().or_else(|| self.background.pop_front())
    }
}

impl Queue {
    pub(super) fn new(max_queued: usize) -> Self {
        Self {
            under_way: HashMap::new(),
            fences: HashMap::new(),
            lanes: Default::default(),
            next: 0,
            max_queued,
        }
    }

    pub(super) fn waiting(&self, lane: Lane) -> usize {
        let lane = &self.lanes[lane as usize];
        lane.foreground.len() + lane.background.len()
    }

    /// Joins the pending lookup of a key; `None` if there is none. The first caller of
    /// a background lookup also queues it in the foreground.
    pub(super) fn join(
        &mut self,
        request: &LookupRequest,
        now: Instant,
    ) -> Option<Receiver<Stage>> {
        let lookup = self.under_way.get_mut(&request.digest)?;
        lookup.answer_by = lookup.answer_by.max(request.answer_by);
        lookup.kept |= request.background;
        lookup.ours |= request.ours;
        if !request.background && !mem::replace(&mut lookup.had_caller, true) {
            self.lanes[request.lane as usize].push(request, lookup.ticket, now);
        }
        Some(lookup.stage.subscribe())
    }

    /// Queues a lookup of a key that has none pending. Fails if the lane is full;
    /// foreground and background lookups are counted separately.
    pub(super) fn push(
        &mut self,
        request: &LookupRequest,
        now: Instant,
    ) -> Result<Receiver<Stage>, Unavailable> {
        if !request.background
            && self.lanes[request.lane as usize].foreground.len() >= self.max_queued
        {
            self.remove_abandoned(request.lane);
        }
        let lane = &mut self.lanes[request.lane as usize];
        let room = if request.background { &lane.background } else { &lane.foreground };
        if room.len() >= self.max_queued {
            return Err(Unavailable::Overloaded);
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        let (stage, caller) = channel(Stage::Queued);
        lane.push(request, ticket, now);
        let LookupRequest { digest, ours, answer_by, background: kept, .. } = *request;
        let lookup = Lookup { ticket, stage, ours, answer_by, kept, had_caller: !kept };
        self.under_way.insert(digest, lookup);
        Ok(caller)
    }

    /// Removes queued lookups whose callers have all cancelled.
    fn remove_abandoned(&mut self, lane: Lane) {
        let under_way = &mut self.under_way;
        self.lanes[lane as usize].foreground.retain(|(digest, ticket)| {
            let current = |lookup: &&Lookup| lookup.ticket == *ticket && lookup.is_queued();
            match under_way.get(digest).filter(current).map(Lookup::is_wanted) {
                Some(true) => true,
                Some(false) => {
                    under_way.remove(digest);
                    false
                }
                None => false,
            }
        });
    }

    /// Adds a worker to a non-empty lane if it has fewer than `most`.
    pub(super) fn add_worker(&mut self, lane: Lane, most: usize) -> bool {
        let lane = &mut self.lanes[lane as usize];
        let added = lane.workers < most && !lane.is_empty();
        lane.workers += usize::from(added);
        added
    }

    /// Removes a worker if the lane is empty.
    pub(super) fn dismiss_if_idle(&mut self, lane: Lane) -> bool {
        let lane = &mut self.lanes[lane as usize];
        let idle = lane.is_empty();
        lane.workers -= usize::from(idle);
        idle
    }

    /// Takes the first `max` lookups of a lane that are still wanted, and removes all
    /// before them that are abandoned or late.
    ///
    /// A lookup is late if a query of the `expected` duration would miss its deadline.
    /// A lane that has not been empty for [`STANDING_AFTER`] is overloaded: queueing
    /// there only delays every answer, so that the longest query (`at_most`) counts
    /// instead. See `docs/adr/2026-11-22-queue-discipline.md`.
    pub(super) fn take(
        &mut self,
        lane: Lane,
        max: usize,
        now: Instant,
        (expected, at_most): (Duration, Duration),
    ) -> Batch {
        let mut batch = Batch::default();
        let since = self.lanes[lane as usize].standing_since;
        let overloaded = since.is_some_and(|since| now - since >= STANDING_AFTER);
        let answered_at = now + if overloaded { at_most } else { expected };
        while batch.taken.len() < max
            && let Some((digest, ticket)) = self.lanes[lane as usize].pop()
        {
            // A background lookup with a caller is in both queues.
            let queued = |l: &&Lookup| l.ticket == ticket && l.is_queued();
            let Some(lookup) = self.under_way.get(&digest).filter(queued) else {
                continue;
            };
            let wanted = lookup.is_wanted();
            let in_time = answered_at <= lookup.answer_by;
            if wanted && in_time {
                let stage = lookup.stage.clone();
                stage.send_replace(Stage::InFlight);
                let Lookup { ours, had_caller, .. } = *lookup;
                batch.taken.push(Taken { digest, ticket, ours, stage, had_caller });
            } else if let Some(lookup) = self.under_way.remove(&digest)
                && wanted
            {
                batch.late.push(lookup.stage);
            }
        }
        let lane = &mut self.lanes[lane as usize];
        if lane.foreground.is_empty() {
            lane.standing_since = None;
        }
        batch
    }

    /// Removes a lookup. Returns the revision of the last change if its key changed
    /// meanwhile: the answer may predate the change.
    pub(super) fn finish(&mut self, digest: &Digest, ticket: Ticket) -> Option<Revision> {
        if self.under_way.get(digest).is_some_and(|lookup| lookup.ticket == ticket) {
            self.under_way.remove(digest);
            return None;
        }
        let (outstanding, revision) = self.fences.get_mut(digest)?;
        let revision = *revision;
        *outstanding -= 1;
        if *outstanding == 0 {
            self.fences.remove(digest);
        }
        Some(revision)
    }

    /// Records a change of a key. A lookup of it in flight continues for its present
    /// callers only; later callers start a new one.
    pub(super) fn fence(&mut self, digest: &Digest, revision: Revision) {
        let in_flight = self.under_way.get(digest).is_some_and(|lookup| !lookup.is_queued());
        if in_flight {
            self.under_way.remove(digest);
            self.fences.entry(*digest).or_insert((0, revision)).0 += 1;
        }
        // Lookups detached by earlier changes may also predate this one.
        if let Some((_, last)) = self.fences.get_mut(digest) {
            *last = revision;
        }
    }

    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }
}

#[cfg(test)]
mod tests;
