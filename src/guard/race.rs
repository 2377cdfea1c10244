//! Model-checks the gate with a few threads.
//!
//! `loom` and not `shuttle`: with one lock and one atomic, all interleavings can be
//! tried instead of some.

use std::num::{NonZeroU32, NonZeroUsize};

use loom::{sync::Arc, thread};

use super::*;

/// The locks and atomics that [`gate`] is compiled with here.
mod sync {
    pub(super) use std::sync::PoisonError;

    pub(super) use loom::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU8, Ordering},
    };
}

#[path = "gate.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code on other locks is the point")]
#[expect(dead_code, reason = "the tests do not use all of it")]
mod raced;

use raced::{Admission, Gate};

const PAUSE: Duration = Duration::from_millis(500);

/// A gate that opens at the first failure and admits one probe.
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

fn admit(gate: &Gate, now: Instant) -> Option<(Ticket, Option<Transition>)> {
    match gate.admit(now) {
        (Admission::Granted(ticket), transition) => Some((ticket, transition)),
        (Admission::Full { .. } | Admission::Refused, _) => None,
    }
}

fn failed() -> Outcome {
    let error = StoreError::new(StoreErrorKind::Unreachable, "injected");
    Outcome::of::<()>(&Err(error), Duration::ZERO)
}

fn answered() -> Outcome {
    Outcome::of(&Ok(()), Duration::ZERO)
}

/// An open gate, and when it admits a probe.
fn opened() -> (Arc<Gate>, Instant) {
    let now = Instant::now();
    let gate = gate(now);
    let (ticket, _) = admit(&gate, now).unwrap();
    gate.release(ticket, failed(), now);
    (gate, now + PAUSE)
}

/// Runs a closure in two threads and returns both results.
fn both<T: 'static>(gate: &Arc<Gate>, does: impl Fn(&Gate) -> T + Clone + 'static) -> [T; 2] {
    let threads = [(); 2].map(|()| {
        let (gate, does) = (Arc::clone(gate), does.clone());
        thread::spawn(move || does(&gate))
    });
    threads.map(|thread| thread.join().unwrap())
}

#[test]
fn probes_in_flight_are_bounded_and_half_open_is_reported_once() {
    loom::model(|| {
        let (gate, now) = opened();
        let got: Vec<_> = both(&gate, move |gate| admit(gate, now)).into_iter().flatten().collect();
        let [(_, Some(Transition::HalfOpened))] = got.as_slice() else {
            panic!("one probe, which reports the change: {got:?}");
        };
        assert!(!gate.admits(|| now));
    });
}

#[test]
fn probe_dropped_while_others_arrive_is_never_lost() {
    loom::model(|| {
        let (gate, now) = opened();
        let got = both(&gate, move |gate| {
            let (ticket, transition) = admit(gate, now)?;
            assert_eq!(gate.release(ticket, Outcome::Nothing, now), None);
            Some(transition)
        });
        let reported = got.iter().flatten().filter(|transition| transition.is_some()).count();
        assert_eq!(reported, 1, "{got:?}");
        // In either order, the probe is available again and closes the breaker.
        assert!(gate.admits(|| now));
        let (ticket, _) = admit(&gate, now).expect("the probe was released");
        let closed = gate.release(ticket, answered(), now);
        assert!(matches!(closed, Some(Transition::Closed { .. })), "{closed:?}");
    });
}

#[test]
fn concurrent_failures_open_the_breaker_once() {
    loom::model(|| {
        let now = Instant::now();
        let gate = gate(now);
        let got = both(&gate, move |gate| {
            let (ticket, _) = admit(gate, now)?;
            gate.release(ticket, failed(), now)
        });
        assert_eq!(got.iter().flatten().count(), 1, "{got:?}");
        assert_eq!(gate.state(), BreakerState::Open);
        assert!(gate.in_doubt() && !gate.admits(|| now));
    });
}

#[test]
fn permits_are_neither_lost_nor_granted_twice() {
    loom::model(|| {
        let now = Instant::now();
        let gate = gate(now);
        let held = admit(&gate, now).unwrap().0;
        both(&gate, move |gate| {
            if let Some((ticket, _)) = admit(gate, now) {
                gate.release(ticket, answered(), now);
            }
        });
        let other = admit(&gate, now).expect("one of two permits is free").0;
        assert!(matches!(gate.admit(now), (Admission::Full { until: None }, None)));
        gate.release(held, answered(), now);
        gate.release(other, Outcome::Nothing, now);
        assert!(!gate.in_doubt());
    });
}

#[test]
fn lock_free_reads_see_the_state_written_under_the_lock() {
    loom::model(|| {
        let (gate, now) = opened();
        let closing = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || {
                let (ticket, _) = admit(&gate, now).expect("no other call requests the probe");
                gate.release(ticket, answered(), now);
            })
        };
        // Open, half-open, closed, and never back.
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
