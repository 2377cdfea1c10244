//! Compares the breaker with a naive model, written from the module documentation of
//! `breaker.rs`, on random histories.

use std::num::{NonZeroU32, NonZeroUsize};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::store::StoreError;

/// One step of a history.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A call requests admission.
    Admit,
    /// A call in flight ends, chosen by a number.
    End(usize, End),
    /// Time passes, in milliseconds.
    Pass(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Well,
    Slowly,
    Failed,
    FailedSlowly,
    Dropped,
    Saturated,
}

/// The settings; durations in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Set {
    window: u64,
    min_calls: u32,
    failure_percent: u32,
    slow_percent: u32,
    open_for: u64,
    max_open_for: u64,
    probes: usize,
    ramp: u64,
    places: usize,
}

const SLOW: Duration = Duration::from_millis(50);

/// The jitter, in milliseconds.
const ADDED: u64 = 7;

/// The naive breaker. It keeps all calls.
struct Model {
    set: Set,
    now: u64,
    mode: Mode,
    /// Number of mode changes.
    number: usize,
    last_pause: Option<u64>,
}

enum Mode {
    Closed { since: u64, again: bool, ended: Vec<(u64, bool, bool)> },
    Open { until: u64 },
    HalfOpen { in_flight: usize, answered: usize },
}

impl Model {
    fn state(&self) -> BreakerState {
        match self.mode {
            Mode::Closed { .. } => BreakerState::Closed,
            Mode::Open { .. } => BreakerState::Open,
            Mode::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    fn go(&mut self, mode: Mode) {
        self.mode = mode;
        self.number += 1;
    }

    fn admit(&mut self) -> Option<usize> {
        if let Mode::Open { until } = self.mode
            && self.now >= until
        {
            self.go(Mode::HalfOpen { in_flight: 0, answered: 0 });
        }
        match &mut self.mode {
            Mode::Open { .. } => return None,
            Mode::HalfOpen { in_flight, answered } => {
                if *in_flight + *answered == self.set.probes {
                    return None;
                }
                *in_flight += 1;
            }
            Mode::Closed { .. } => {}
        }
        Some(self.number)
    }

    fn end(&mut self, admitted_in: usize, end: End) {
        if admitted_in != self.number {
            return;
        }
        let counts = !matches!(end, End::Dropped | End::Saturated);
        let failed = matches!(end, End::Failed | End::FailedSlowly);
        let slow = matches!(end, End::Slowly | End::FailedSlowly);
        match &mut self.mode {
            Mode::Open { .. } => unreachable!("nothing is admitted"),
            Mode::HalfOpen { in_flight, answered } => {
                *in_flight -= 1;
                if failed || slow {
                    self.open();
                } else if counts {
                    *answered += 1;
                    if *answered == self.set.probes {
                        let (since, ended) = (self.now, Vec::new());
                        self.go(Mode::Closed { since, again: true, ended });
                    }
                }
            }
            Mode::Closed { since, again, ended } if counts => {
                ended.push((self.now, failed, slow));
                let tenth = |at: u64| (at - *since) / (self.set.window / 10);
                let within: Vec<_> =
                    ended.iter().filter(|(at, ..)| tenth(self.now) - tenth(*at) < 10).collect();
                // In percent, as the ratios of these tests.
                let reaches = |of: usize, ratio: u32| of * 100 >= within.len() * ratio as usize;
                let too_many =
                    reaches(within.iter().filter(|e| e.1).count(), self.set.failure_percent);
                let too_slow =
                    reaches(within.iter().filter(|e| e.2).count(), self.set.slow_percent);
                let opens = failed && too_many || slow && too_slow;
                if within.len() >= self.set.min_calls as usize && opens {
                    if !*again || self.now >= *since + self.set.ramp {
                        self.last_pause = None;
                    }
                    self.open();
                }
            }
            Mode::Closed { .. } => {}
        }
    }

    fn open(&mut self) {
        let pause = self.last_pause.map_or(self.set.open_for, |last| last * 2);
        let pause = pause.min(self.set.max_open_for);
        self.last_pause = Some(pause);
        self.go(Mode::Open { until: self.now + pause + ADDED });
    }

    fn permits(&self) -> usize {
        match self.mode {
            Mode::Closed { since, again: true, .. } if self.now < since + self.set.ramp => {
                let from = self.set.probes.min(self.set.places) as u64;
                let more = self.set.places as u64 - from;
                usize::try_from(from + more * (self.now - since) / self.set.ramp).unwrap()
            }
            _ => self.set.places,
        }
    }
}

fn set() -> impl Strategy<Value = Set> {
    let percent = prop::sample::select(vec![1, 7, 33, 50, 55, 70, 100]);
    let times = (1..=20_u64, 1..=50_u64, 1..=8_u64, 0..=200_u64);
    (times, 1..=6_u32, percent.clone(), percent, 1..=4_usize, 1..=6_usize).prop_map(
        |(
            (window, open_for, longer, ramp),
            min_calls,
            failure_percent,
            slow_percent,
            probes,
            places,
        )| {
            Set {
                window: window * 10,
                min_calls,
                failure_percent,
                slow_percent,
                open_for,
                max_open_for: open_for * longer,
                probes,
                ramp,
                places,
            }
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let end = prop_oneof![
        3 => Just(End::Well),
        1 => Just(End::Slowly),
        2 => Just(End::Failed),
        1 => Just(End::FailedSlowly),
        1 => Just(End::Dropped),
        1 => Just(End::Saturated),
    ];
    prop_oneof![
        4 => Just(Event::Admit),
        4 => (any::<usize>(), end).prop_map(|(which, end)| Event::End(which, end)),
        1 => (0..4_u64).prop_map(Event::Pass),
        1 => (0..120_u64).prop_map(Event::Pass),
    ]
}

fn breaker(set: &Set, now: Instant) -> Breaker {
    let millis = Duration::from_millis;
    let config = GuardConfig {
        max_in_flight: NonZeroUsize::new(set.places).unwrap(),
        query_timeout: SLOW * 2,
        breaker: BreakerConfig {
            window: millis(set.window),
            min_calls: NonZeroU32::new(set.min_calls).unwrap(),
            failure_ratio: f64::from(set.failure_percent) / 100.0,
            slow_call: Some(SLOW),
            slow_ratio: f64::from(set.slow_percent) / 100.0,
            open_for: millis(set.open_for),
            max_open_for: millis(set.max_open_for),
            half_open_calls: NonZeroUsize::new(set.probes).unwrap(),
            ramp_up_for: millis(set.ramp),
        },
    };
    Breaker::new(&config, |pause| pause + Duration::from_millis(ADDED), now)
}

fn outcome(end: End) -> Outcome {
    let error = |kind| Err::<(), _>(StoreError::new(kind, ""));
    let fast = Duration::from_millis(49);
    match end {
        End::Well => Outcome::of(&Ok(()), fast),
        End::Slowly => Outcome::of(&Ok(()), SLOW),
        End::Failed => Outcome::of(&error(StoreErrorKind::Unreachable), fast),
        End::FailedSlowly => Outcome::of(&error(StoreErrorKind::Timeout), SLOW),
        End::Dropped => Outcome::Nothing,
        End::Saturated => Outcome::of(&error(StoreErrorKind::Saturated), SLOW),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_history_matches_the_documented_model(
        set in set(),
        events in vec(event(), 0..300),
    ) {
        let began = Instant::now();
        let mut breaker = breaker(&set, began);
        let closed = Mode::Closed { since: 0, again: false, ended: Vec::new() };
        let mut model = Model { set, now: 0, mode: closed, number: 0, last_pause: None };
        let mut in_flight: Vec<(Ticket, usize)> = Vec::new();
        for event in events {
            let now = began + Duration::from_millis(model.now);
            let before = model.number;
            let transition = match event {
                Event::Pass(millis) => {
                    model.now += millis;
                    None
                }
                Event::Admit => {
                    let would = breaker.admits(now);
                    let admitted = breaker.admit(now);
                    let expected = model.admit();
                    prop_assert_eq!(would, expected.is_some());
                    prop_assert_eq!(admitted.is_some(), expected.is_some());
                    admitted.zip(expected).and_then(|((ticket, transition), number)| {
                        in_flight.push((ticket, number));
                        transition
                    })
                }
                Event::End(..) if in_flight.is_empty() => None,
                Event::End(which, end) => {
                    let (ticket, number) = in_flight.swap_remove(which % in_flight.len());
                    model.end(number, end);
                    breaker.ended(ticket, &outcome(end), now)
                }
            };
            let now = began + Duration::from_millis(model.now);
            // A transition is reported exactly when the state changes, with its state.
            prop_assert_eq!(transition.is_some(), model.number != before);
            prop_assert!(transition.is_none_or(|change| change.to() == model.state()));
            prop_assert_eq!(breaker.state(), model.state());
            prop_assert_eq!(breaker.permits(now), model.permits());
            if let Mode::Open { until } = model.mode {
                let left = Duration::from_millis(until.saturating_sub(model.now));
                prop_assert_eq!(breaker.tries_in(now), Some(left));
            }
            let probes = in_flight.iter().filter(|(_, number)| *number == model.number).count();
            let half_open = model.state() == BreakerState::HalfOpen;
            prop_assert!(!half_open || probes <= set.probes);
        }
    }
}
