//! The gate under every interleaving of a few threads.
//!
//! `loom` and not `shuttle`: there is one lock and one atomic, so that all
//! interleavings can be tried instead of some.

use std::num::{NonZeroU32, NonZeroUsize};

use loom::{sync::Arc, thread};

use super::*;

/// What [`gate`] is compiled on here.
mod sync {
    pub(super) use std::sync::PoisonError;

    pub(super) use loom::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU8, Ordering},
    };
}

#[path = "gate.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code on other locks is the point")]
#[expect(dead_code, reason = "not all of it is raced")]
mod raced;

use raced::{Admission, Gate};

const PAUSE: Duration = Duration::from_millis(500);

/// A gate that opens with the first failure and lets one probe through.
fn gate(now: Instant) -> Arc<Gate> {
    let breaker = BreakerConfig {
        min_calls: NonZeroU32::MIN,
        half_open_calls: NonZeroUsize::MIN,
        open_for: PAUSE,
        ramp_up_for: Duration::ZERO,
        ..BreakerConfig::default()
    };
    let config = GuardConfig {
        max_in_flight: NonZeroUsize::new(2).unwrap(),
        breaker,
        ..GuardConfig::default()
    };
    Arc::new(Gate::new(&config, |pause| pause, now))
}

fn place(gate: &Gate, now: Instant) -> Option<(Ticket, Option<Transition>)> {
    match gate.admit(now) {
        (Admission::Place(ticket), transition) => Some((ticket, transition)),
        (Admission::Full { .. } | Admission::Refused, _) => None,
    }
}

fn failed() -> Outcome {
    let error = StoreError::new(StoreErrorKind::Unreachable, "as it was told");
    Outcome::of::<()>(&Err(error), Duration::ZERO)
}

fn answered() -> Outcome {
    Outcome::of(&Ok(()), Duration::ZERO)
}

/// A gate that has opened, and when it may be tried.
fn opened() -> (Arc<Gate>, Instant) {
    let now = Instant::now();
    let gate = gate(now);
    let (ticket, _) = place(&gate, now).unwrap();
    gate.give_back(ticket, failed(), now);
    (gate, now + PAUSE)
}

/// Runs the same in two threads and returns what both did.
fn both<T: 'static>(gate: &Arc<Gate>, does: impl Fn(&Gate) -> T + Clone + 'static) -> [T; 2] {
    let threads = [(); 2].map(|()| {
        let (gate, does) = (Arc::clone(gate), does.clone());
        thread::spawn(move || does(&gate))
    });
    threads.map(|thread| thread.join().unwrap())
}

#[test]
fn no_more_probes_than_allowed_are_out_at_once_and_half_open_is_told_once() {
    loom::model(|| {
        let (gate, now) = opened();
        let got: Vec<_> = both(&gate, move |gate| place(gate, now)).into_iter().flatten().collect();
        let [(_, Some(Transition::HalfOpened))] = got.as_slice() else {
            panic!("one probe, which is told of the change: {got:?}");
        };
        assert!(!gate.admits(|| now));
    });
}

#[test]
fn a_probe_that_is_dropped_while_others_come_is_never_lost() {
    loom::model(|| {
        let (gate, now) = opened();
        let got = both(&gate, move |gate| {
            let (ticket, transition) = place(gate, now)?;
            assert_eq!(gate.give_back(ticket, Outcome::Nothing, now), None);
            Some(transition)
        });
        let told = got.iter().flatten().filter(|transition| transition.is_some()).count();
        assert_eq!(told, 1, "{got:?}");
        // Whoever came first or second, the probe can be had again, and closes it.
        assert!(gate.admits(|| now));
        let (ticket, _) = place(&gate, now).expect("the probe was given back");
        let closed = gate.give_back(ticket, answered(), now);
        assert!(matches!(closed, Some(Transition::Closed { .. })), "{closed:?}");
    });
}

#[test]
fn calls_that_fail_together_open_it_once() {
    loom::model(|| {
        let now = Instant::now();
        let gate = gate(now);
        let got = both(&gate, move |gate| {
            let (ticket, _) = place(gate, now)?;
            gate.give_back(ticket, failed(), now)
        });
        assert_eq!(got.iter().flatten().count(), 1, "{got:?}");
        assert_eq!(gate.state(), BreakerState::Open);
        assert!(gate.in_doubt() && !gate.admits(|| now));
    });
}

#[test]
fn places_are_neither_lost_nor_given_out_twice() {
    loom::model(|| {
        let now = Instant::now();
        let gate = gate(now);
        let held = place(&gate, now).unwrap().0;
        both(&gate, move |gate| {
            if let Some((ticket, _)) = place(gate, now) {
                gate.give_back(ticket, answered(), now);
            }
        });
        let other = place(&gate, now).expect("one of two is free").0;
        assert!(matches!(gate.admit(now), (Admission::Full { until: None }, None)));
        gate.give_back(held, answered(), now);
        gate.give_back(other, Outcome::Nothing, now);
        assert!(!gate.in_doubt());
    });
}

#[test]
fn what_is_read_without_the_lock_is_what_was_written_under_it() {
    loom::model(|| {
        let (gate, now) = opened();
        let closing = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || {
                let (ticket, _) = place(&gate, now).expect("nobody else wants the probe");
                gate.give_back(ticket, answered(), now);
            })
        };
        // From open to closed by way of half-open, and never back.
        let order = |state| match state {
            BreakerState::Open => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Closed => 2,
        };
        let (first, second) = (order(gate.state()), order(gate.state()));
        assert!(first <= second);
        closing.join().unwrap();
        assert_eq!(gate.state(), BreakerState::Closed);
        assert!(!gate.in_doubt());
    });
}
