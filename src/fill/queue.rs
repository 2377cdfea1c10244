//! The lookups that wait or are under way: a data structure without time of its
//! own, without I/O, and bounded.

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

/// For how long a lane is never empty before it counts as overloaded: an
/// interval of `CoDel` (RFC 8289), in which a burst is gone.
const STANDING_AFTER: Duration = Duration::from_millis(100);

/// Which keys are looked up together. A lane cannot keep another one waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Keys that are ours by their tag or are in memory.
    Known,
    /// Keys that nobody here has seen: they may have been imported, or made up.
    NeverSeen,
}

impl Lane {
    /// Both lanes.
    pub const ALL: [Self; 2] = [Self::Known, Self::NeverSeen];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::NeverSeen => "never_seen",
        }
    }
}

/// How far a lookup has come, as its callers see it.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    Queued,
    AtTheStore,
    Done(Result<Observation, Unavailable>),
}

/// Stands for one lookup, so that a later one of the same key is not mistaken
/// for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

#[derive(Debug)]
struct Lookup {
    ticket: Ticket,
    stage: Sender<Stage>,
    ours: bool,
    /// Until when an answer is worth something to anybody.
    answer_by: Instant,
    /// Whether it is wanted even without callers.
    kept: bool,
    /// Whether it ever had a caller.
    called: bool,
}

/// A lookup that was taken off its lane to be carried out.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) digest: Digest,
    pub(super) ticket: Ticket,
    /// See [`LookupRequest::ours`].
    pub(super) ours: bool,
    pub(super) stage: Sender<Stage>,
    /// Whether a caller is told, or was until it gave up, how it ended.
    pub(super) called: bool,
}

/// What of a lane is to be asked for now.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) taken: Vec<Taken>,
    /// Waited for so long that they could not be answered in time.
    pub(super) late: Vec<Sender<Stage>>,
}

/// Who waits in one lane, and how many workers serve it.
#[derive(Debug, Default)]
struct Waiting {
    /// Those that a caller waits for, and of late perhaps nobody any more.
    digests: VecDeque<(Digest, Ticket)>,
    /// Those that nobody waits for: asked for when there is room in a query.
    background: VecDeque<(Digest, Ticket)>,
    /// Since when it has not been empty.
    standing_since: Option<Instant>,
    workers: usize,
}

#[derive(Debug)]
pub(super) struct Queue {
    under_way: HashMap<Digest, Lookup>,
    /// Keys that have changed while lookups of them are at the store that began
    /// before: how many, and the last change.
    fences: HashMap<Digest, (usize, Revision)>,
    lanes: [Waiting; 2],
    next: u64,
    max_queued: usize,
}

/// What a lookup is asked for with.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookupRequest {
    pub(super) digest: Digest,
    pub(super) lane: Lane,
    /// Whether its tag was made with one of our secrets, as far as that is known.
    pub(super) ours: bool,
    pub(super) answer_by: Instant,
    /// Nobody waits: it is carried out without callers too, after those that
    /// somebody waits for.
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

impl Waiting {
    fn is_empty(&self) -> bool {
        self.digests.is_empty() && self.background.is_empty()
    }

    fn push(&mut self, order: &LookupRequest, ticket: Ticket, now: Instant) {
        if order.background {
            self.background.push_back((order.digest, ticket));
        } else {
            self.digests.push_back((order.digest, ticket));
            self.standing_since.get_or_insert(now);
        }
    }

    fn pop(&mut self) -> Option<(Digest, Ticket)> {
        self.digests.pop_front().or_else(|| self.background.pop_front())
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
        lane.digests.len() + lane.background.len()
    }

    /// Joins the lookup of a key, or `None` if there is none. Who joins one that
    /// nobody waited for puts it in line with those that somebody does.
    pub(super) fn join(&mut self, order: &LookupRequest, now: Instant) -> Option<Receiver<Stage>> {
        let lookup = self.under_way.get_mut(&order.digest)?;
        lookup.answer_by = lookup.answer_by.max(order.answer_by);
        lookup.kept |= order.background;
        lookup.ours |= order.ours;
        if !order.background && !mem::replace(&mut lookup.called, true) {
            self.lanes[order.lane as usize].push(order, lookup.ticket, now);
        }
        Some(lookup.stage.subscribe())
    }

    /// Puts the lookup of a key in line that has none yet. Fails when the lane is
    /// full: of those that somebody waits for, or of those that nobody does.
    pub(super) fn push(
        &mut self,
        order: &LookupRequest,
        now: Instant,
    ) -> Result<Receiver<Stage>, Unavailable> {
        if !order.background && self.lanes[order.lane as usize].digests.len() >= self.max_queued {
            self.forget_unwanted(order.lane);
        }
        let lane = &mut self.lanes[order.lane as usize];
        let room = if order.background { &lane.background } else { &lane.digests };
        if room.len() >= self.max_queued {
            return Err(Unavailable::Overloaded);
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        let (stage, caller) = channel(Stage::Queued);
        lane.push(order, ticket, now);
        let LookupRequest { digest, ours, answer_by, background: kept, .. } = *order;
        let lookup = Lookup { ticket, stage, ours, answer_by, kept, called: !kept };
        self.under_way.insert(digest, lookup);
        Ok(caller)
    }

    /// Those who have gone make room.
    fn forget_unwanted(&mut self, lane: Lane) {
        let under_way = &mut self.under_way;
        self.lanes[lane as usize].digests.retain(|(digest, ticket)| {
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

    /// Takes on a worker for a lane in which somebody waits, if it has fewer than
    /// `most`.
    pub(super) fn add_worker(&mut self, lane: Lane, most: usize) -> bool {
        let lane = &mut self.lanes[lane as usize];
        let added = lane.workers < most && !lane.is_empty();
        lane.workers += usize::from(added);
        added
    }

    /// Lets a worker go if nobody waits.
    pub(super) fn dismiss_if_idle(&mut self, lane: Lane) -> bool {
        let lane = &mut self.lanes[lane as usize];
        let idle = lane.is_empty();
        lane.workers -= usize::from(idle);
        idle
    }

    /// Takes the first `max` of a lane that are still wanted, and all before them
    /// that nobody wants any more or that could not be answered in time.
    ///
    /// In time is who can wait for a query as they are `expected` to take. A lane
    /// that has not been empty for a while is overloaded: waiting there answers
    /// nobody more and only makes every answer late, so that in time is only who
    /// can wait for the longest query there may be (`at_most`). See
    /// `docs/adr/2026-11-22-queue-discipline.md`.
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
            // One that somebody has joined stands in both lines.
            let queued = |l: &&Lookup| l.ticket == ticket && l.is_queued();
            let Some(lookup) = self.under_way.get(&digest).filter(queued) else {
                continue;
            };
            let wanted = lookup.is_wanted();
            let in_time = answered_at <= lookup.answer_by;
            if wanted && in_time {
                let stage = lookup.stage.clone();
                stage.send_replace(Stage::AtTheStore);
                let Lookup { ours, called, .. } = *lookup;
                batch.taken.push(Taken { digest, ticket, ours, stage, called });
            } else if let Some(lookup) = self.under_way.remove(&digest)
                && wanted
            {
                batch.late.push(lookup.stage);
            }
        }
        let lane = &mut self.lanes[lane as usize];
        if lane.digests.is_empty() {
            lane.standing_since = None;
        }
        batch
    }

    /// Takes a lookup off the list. `Some` if its key was changed meanwhile, with
    /// the number of the last change: what it brings may be from before.
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

    /// The key was changed. A lookup of it that has reached the store goes on for
    /// its callers alone; whoever comes later asks anew.
    pub(super) fn fence(&mut self, digest: &Digest, revision: Revision) {
        let asked = self.under_way.get(digest).is_some_and(|lookup| !lookup.is_queued());
        if asked {
            self.under_way.remove(digest);
            self.fences.entry(*digest).or_insert((0, revision)).0 += 1;
        }
        // Those that were parted from the key earlier may bring what is older
        // than this change, too.
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
