use super::*;
use crate::store::StoreErrorKind;

const MS: Duration = Duration::from_millis(1);

/// Expected and maximum duration of a query.
const TIME: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

fn nth(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

/// A queue with a clock in milliseconds.
struct Fixture {
    queue: Queue,
    start: Instant,
}

impl Fixture {
    fn new(max_queued: usize) -> Self {
        Self { queue: Queue::new(max_queued), start: Instant::now() }
    }

    fn order(&self, n: u8, answer_by: u32) -> LookupRequest {
        let answer_by = self.start + answer_by * MS;
        LookupRequest {
            digest: nth(n),
            lane: Lane::Known,
            ours: true,
            answer_by,
            background: false,
        }
    }

    /// Requests a key at `now` with the deadline `answer_by`.
    fn push(&mut self, n: u8, now: u32, answer_by: u32) -> Receiver<Stage> {
        let order = self.order(n, answer_by);
        self.queue.push(&order, self.start + now * MS).unwrap()
    }

    fn take(&mut self, max: usize, now: u32) -> (Vec<Digest>, usize) {
        let batch = self.queue.take(Lane::Known, max, self.start + now * MS, TIME);
        (batch.taken.iter().map(|taken| taken.digest).collect(), batch.late.len())
    }
}

#[test]
fn take_is_fifo_and_bounded() {
    let mut fixture = Fixture::new(10);
    let _callers: Vec<_> = (0..5).map(|n| fixture.push(n, 0, 150)).collect();
    assert_eq!(fixture.take(3, 1), (vec![nth(0), nth(1), nth(2)], 0));
    assert_eq!(fixture.take(3, 1), (vec![nth(3), nth(4)], 0));
    assert_eq!(fixture.take(3, 1), (vec![], 0));
}

#[test]
fn burst_keeps_lookups_that_can_wait_for_an_expected_query() {
    let mut fixture = Fixture::new(10);
    let _callers = [fixture.push(0, 0, 90), fixture.push(1, 0, 89), fixture.push(2, 0, 150)];
    assert_eq!(fixture.take(9, 80), (vec![nth(0), nth(2)], 1));
}

#[test]
fn standing_lane_keeps_only_lookups_that_can_wait_for_the_longest_query() {
    let mut fixture = Fixture::new(10);
    let _callers = [fixture.push(0, 0, 199), fixture.push(1, 1, 200), fixture.push(2, 2, 300)];
    assert_eq!(fixture.take(2, 100), (vec![nth(1), nth(2)], 1));
    // The lane was empty, so that this is a burst again.
    let _caller = fixture.push(3, 101, 120);
    assert_eq!(fixture.take(9, 110), (vec![nth(3)], 0));
}

#[test]
fn lane_is_overloaded_only_after_the_whole_interval() {
    let mut fixture = Fixture::new(10);
    let _callers = [fixture.push(0, 0, 150), fixture.push(1, 0, 150)];
    assert_eq!(fixture.take(1, 99), (vec![nth(0)], 0));
    assert_eq!(fixture.take(1, 100), (vec![], 1));
}

#[test]
fn late_callers_are_rejected_and_cancelled_ones_are_not_counted() {
    let mut fixture = Fixture::new(10);
    drop(fixture.push(0, 0, 150));
    let mut late = fixture.push(1, 0, 5);
    let batch = fixture.queue.take(Lane::Known, 9, fixture.start, TIME);
    assert!(batch.taken.is_empty());
    let saturated = Err(Unavailable::Store(StoreErrorKind::Saturated));
    for stage in batch.late {
        stage.send_replace(Stage::Done(saturated.clone()));
    }
    let is_rejected =
        matches!(&*late.borrow_and_update(), Stage::Done(outcome) if *outcome == saturated);
    assert!(is_rejected);
    assert_eq!(fixture.queue.under_way(), 0);
}

#[test]
fn lookup_has_the_latest_deadline_of_its_callers() {
    let mut fixture = Fixture::new(10);
    let _first = fixture.push(0, 0, 20);
    let order = fixture.order(0, 90);
    let _second = fixture.queue.join(&order, fixture.start).unwrap();
    let order = fixture.order(0, 30);
    let _third = fixture.queue.join(&order, fixture.start).unwrap();
    assert_eq!(fixture.take(9, 80), (vec![nth(0)], 0));
}

#[test]
fn background_lookup_is_taken_without_callers() {
    let mut fixture = Fixture::new(10);
    let order = LookupRequest { background: true, ..fixture.order(0, 150) };
    drop(fixture.queue.push(&order, fixture.start).unwrap());
    drop(fixture.push(1, 0, 150));
    let order = LookupRequest { background: true, ..fixture.order(1, 150) };
    drop(fixture.queue.join(&order, fixture.start).unwrap());
    let batch = fixture.queue.take(Lane::Known, 9, fixture.start, TIME);
    let called: Vec<_> = batch.taken.iter().map(|taken| (taken.digest, taken.had_caller)).collect();
    assert_eq!(called, [(nth(1), true), (nth(0), false)]);
}

#[test]
fn background_lookups_come_last_until_a_caller_joins() {
    let mut fixture = Fixture::new(10);
    for n in 0..3 {
        let order = LookupRequest { background: true, ..fixture.order(n, 150) };
        drop(fixture.queue.push(&order, fixture.start).unwrap());
    }
    let _caller = fixture.push(3, 0, 150);
    let order = fixture.order(2, 150);
    let _joined = fixture.queue.join(&order, fixture.start).unwrap();
    assert_eq!(fixture.take(2, 0), (vec![nth(3), nth(2)], 0));
    assert_eq!(fixture.take(9, 0), (vec![nth(0), nth(1)], 0));
    assert_eq!(fixture.queue.waiting(Lane::Known), 0);
}

#[test]
fn joining_takes_no_room_in_the_queue() {
    let mut fixture = Fixture::new(10);
    let _caller = fixture.push(0, 0, 150);
    let order = fixture.order(0, 150);
    let _joined = [(); 3].map(|()| fixture.queue.join(&order, fixture.start).unwrap());
    let background = LookupRequest { background: true, ..fixture.order(1, 150) };
    drop(fixture.queue.push(&background, fixture.start).unwrap());
    drop(fixture.queue.join(&background, fixture.start).unwrap());
    assert_eq!(fixture.queue.waiting(Lane::Known), 2);
    let batch = fixture.queue.take(Lane::Known, 9, fixture.start, TIME);
    let called: Vec<_> = batch.taken.iter().map(|taken| (taken.digest, taken.had_caller)).collect();
    assert_eq!(called, [(nth(0), true), (nth(1), false)]);
}

#[test]
fn lookup_taken_in_another_lane_makes_room() {
    let mut fixture = Fixture::new(1);
    let background = LookupRequest { background: true, ..fixture.order(0, 150) };
    drop(fixture.queue.push(&background, fixture.start).unwrap());
    let never_seen = |order| LookupRequest { lane: Lane::NeverSeen, ..order };
    let joins = never_seen(fixture.order(0, 150));
    let _joined = fixture.queue.join(&joins, fixture.start).unwrap();
    assert_eq!(fixture.take(9, 0), (vec![nth(0)], 0));
    let other = never_seen(fixture.order(1, 150));
    assert!(fixture.queue.push(&other, fixture.start).is_ok());
    assert_eq!(fixture.queue.under_way(), 2, "lookups in flight are still pending");
}

#[test]
fn cancelled_lookups_make_room_in_a_full_lane() {
    let mut fixture = Fixture::new(2);
    let (stays, goes) = (fixture.push(0, 0, 150), fixture.push(1, 0, 150));
    drop(goes);
    let _new = fixture.push(2, 0, 150);
    let order = fixture.order(1, 150);
    assert!(
        fixture.queue.join(&order, fixture.start).is_none(),
        "no caller joins an abandoned lookup"
    );
    assert_eq!(fixture.take(9, 0), (vec![nth(0), nth(2)], 0));
    drop(stays);
}

#[test]
fn full_lane_rejects_and_the_other_does_not() {
    let mut fixture = Fixture::new(2);
    let _callers = [fixture.push(0, 0, 150), fixture.push(1, 0, 150)];
    let order = fixture.order(2, 150);
    let refused = fixture.queue.push(&order, fixture.start).map(drop);
    assert_eq!(refused, Err(Unavailable::Overloaded));
    let order = LookupRequest { lane: Lane::NeverSeen, ..order };
    fixture.queue.push(&order, fixture.start).unwrap();
    assert_eq!(
        (fixture.queue.waiting(Lane::Known), fixture.queue.waiting(Lane::NeverSeen)),
        (2, 1)
    );
}

#[test]
fn lookup_in_flight_is_detached_from_its_key_by_a_change() {
    let mut fixture = Fixture::new(10);
    let _first = fixture.push(0, 0, 150);
    fixture.queue.fence(&nth(0), Revision(1));
    let order = fixture.order(0, 150);
    assert!(
        fixture.queue.join(&order, fixture.start).is_some(),
        "a queued lookup has read nothing yet"
    );
    let first = fixture.queue.take(Lane::Known, 9, fixture.start, TIME).taken.pop().unwrap();
    fixture.queue.fence(&nth(0), Revision(2));
    assert!(fixture.queue.join(&order, fixture.start).is_none());
    let _second = fixture.push(0, 0, 150);
    let second = fixture.queue.take(Lane::Known, 9, fixture.start, TIME).taken.pop().unwrap();
    assert_eq!(fixture.queue.finish(&nth(0), first.ticket), Some(Revision(2)));
    assert_eq!(fixture.queue.finish(&nth(0), second.ticket), None);
    assert_eq!((fixture.queue.under_way(), fixture.queue.fences.len()), (0, 0));
}

#[test]
fn every_lookup_begun_before_a_change_is_compared_with_the_last_change() {
    let mut fixture = Fixture::new(10);
    let mut tickets = Vec::new();
    for revision in 1..=3 {
        let _caller = fixture.push(0, 0, 150);
        tickets.push(fixture.queue.take(Lane::Known, 9, fixture.start, TIME).taken[0].ticket);
        fixture.queue.fence(&nth(0), Revision(revision));
    }
    fixture.queue.fence(&nth(0), Revision(4));
    for ticket in tickets {
        assert_eq!(fixture.queue.finish(&nth(0), ticket), Some(Revision(4)));
    }
    assert!(fixture.queue.fences.is_empty());
}

#[test]
fn workers_are_added_while_lookups_wait_up_to_the_bound() {
    let mut fixture = Fixture::new(10);
    assert!(!fixture.queue.add_worker(Lane::Known, 2), "the lane is empty");
    let _caller = fixture.push(0, 0, 150);
    let added = [(); 3].map(|()| fixture.queue.add_worker(Lane::Known, 2));
    assert_eq!(added, [true, true, false]);
    assert!(!fixture.queue.dismiss_if_idle(Lane::Known), "a lookup waits");
    fixture.take(9, 0);
    assert!(fixture.queue.dismiss_if_idle(Lane::Known));
    let _caller = fixture.push(1, 0, 150);
    assert!(fixture.queue.add_worker(Lane::Known, 2));
}
