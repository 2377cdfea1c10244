//! Callers that check continuously, and their outcomes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use keystead::transport::pb::{CheckResponse, Evidence, Freshness};
use tokio::{task::JoinHandle, time::sleep};
use tonic::{Code, Status, transport::Channel};

use super::{
    app::{Service, check_over, presenting},
    beside,
    keys::Key,
    refusal::Refusal,
};

/// The keys that a caller checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyClass {
    /// Those that the service has seen, in turn.
    Warm,
    /// Those that it has not. One that was answered is not checked again;
    /// one that was not goes to the end of the queue.
    Unseen,
}

/// What to check, and how fast.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) warm: Vec<Key>,
    pub(crate) unseen: Vec<Key>,
    /// Number of callers of each kind.
    pub(crate) callers: usize,
    /// Pause of a caller after an answer.
    pub(crate) rest: Duration,
}

/// Callers that check until they are stopped, or their test ends.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<()>>,
    phases: Vec<(&'static str, Instant)>,
}

#[derive(Debug)]
struct Shared {
    channel: Channel,
    warm: Vec<Key>,
    next_warm: AtomicUsize,
    unseen: Mutex<VecDeque<Key>>,
    rest: Duration,
    stop: AtomicBool,
    samples: Mutex<Vec<Sample>>,
}

/// One check.
#[derive(Debug, Clone)]
struct Sample {
    asked: KeyClass,
    at: Instant,
    took: Duration,
    /// Of what was answered with OK.
    freshness: Option<Freshness>,
    end: End,
}

/// Outcome of a check: the code, and the reason unless it is OK.
type End = (i32, String);

/// Outcomes of all callers.
#[derive(Debug)]
pub(crate) struct Record {
    phases: Vec<(&'static str, Instant)>,
    ended: Instant,
    samples: Vec<Sample>,
}

/// Outcomes of the callers of one kind in one phase.
#[derive(Debug)]
pub(crate) struct Slice {
    pub(crate) tally: Tally,
    /// How many were answered from which part of the life of an entry.
    freshness: BTreeMap<i32, usize>,
    /// Ascending.
    times: Vec<Duration>,
}

/// Number of checks by outcome.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally(pub(crate) BTreeMap<End, usize>);

impl Load {
    /// From now on; the first phase has a name already.
    pub(crate) fn start(service: &Service, plan: Plan, phase: &'static str) -> Self {
        let shared = Arc::new(Shared {
            channel: service.channel(),
            warm: plan.warm,
            next_warm: AtomicUsize::new(0),
            unseen: Mutex::new(plan.unseen.into()),
            rest: plan.rest,
            stop: AtomicBool::new(false),
            samples: Mutex::default(),
        });
        let kinds = [KeyClass::Warm, KeyClass::Unseen].into_iter().cycle().take(2 * plan.callers);
        let callers = kinds.map(|asked| beside(Arc::clone(&shared).call(asked))).collect();
        Self { shared, callers, phases: vec![(phase, Instant::now())] }
    }

    /// From now on is another phase.
    pub(crate) fn phase(&mut self, name: &'static str) {
        self.phases.push((name, Instant::now()));
    }

    /// Number of checks that have ended so far.
    pub(crate) fn count(&self) -> usize {
        self.shared.samples.lock().unwrap().len()
    }

    /// Number of this phase that have ended so.
    pub(crate) fn count_now(&self, asked: KeyClass, code: Code) -> usize {
        let since = self.phases.last().expect("there is a first phase").1;
        let samples = self.shared.samples.lock().unwrap();
        let ours = |sample: &&Sample| sample.asked == asked && sample.at >= since;
        samples.iter().filter(ours).filter(|sample| sample.end.0 == code as i32).count()
    }

    /// How many were answered so far from a part of the life of an entry.
    pub(crate) fn served(&self, freshness: Freshness) -> usize {
        let samples = self.shared.samples.lock().unwrap();
        samples.iter().filter(|sample| sample.freshness == Some(freshness)).count()
    }

    /// Waits for the last answers. Panics when a refusal was not honest.
    pub(crate) async fn stop(self) -> Record {
        let ended = Instant::now();
        self.shared.stop.store(true, Ordering::SeqCst);
        for caller in self.callers {
            caller.await.unwrap();
        }
        let samples = std::mem::take(&mut *self.shared.samples.lock().unwrap());
        Record { phases: self.phases, ended, samples }
    }
}

impl Shared {
    async fn call(self: Arc<Self>, asked: KeyClass) {
        while !self.stop.load(Ordering::SeqCst) {
            if let Some(key) = self.next(asked) {
                let at = Instant::now();
                let outcome = check_over(self.channel.clone(), presenting(&key.text)).await;
                self.note(asked, at, &key, &outcome);
                if asked == KeyClass::Unseen && is_unavailable(&outcome) {
                    self.unseen.lock().unwrap().push_back(key);
                }
            }
            sleep(self.rest).await;
        }
    }

    fn next(&self, asked: KeyClass) -> Option<Key> {
        match asked {
            KeyClass::Warm => {
                let turn = self.next_warm.fetch_add(1, Ordering::Relaxed);
                self.warm.get(turn % self.warm.len().max(1)).cloned()
            }
            KeyClass::Unseen => self.unseen.lock().unwrap().pop_front(),
        }
    }

    fn note(
        &self,
        asked: KeyClass,
        at: Instant,
        key: &Key,
        outcome: &Result<CheckResponse, Status>,
    ) {
        let took = at.elapsed();
        if let Ok(answer) = outcome {
            assert_eq!(answer.key_id, key.id.as_str());
        }
        let evidence = outcome.as_ref().ok().and_then(|answer| answer.evidence.as_ref());
        let freshness = evidence.map(Evidence::freshness);
        let sample = Sample { asked, at, took, freshness, end: end_of(outcome) };
        self.samples.lock().unwrap().push(sample);
    }
}

fn is_unavailable(outcome: &Result<CheckResponse, Status>) -> bool {
    outcome.as_ref().is_err_and(|status| status.code() == Code::Unavailable)
}

/// Panics when it is a refusal that is not honest.
fn end_of(outcome: &Result<CheckResponse, Status>) -> End {
    match outcome {
        Ok(_) => (Code::Ok as i32, String::new()),
        Err(status) => {
            let refusal = Refusal::of(status);
            refusal.is_honest();
            (refusal.code as i32, refusal.reason)
        }
    }
}

impl Record {
    /// Outcomes of those sent in a phase, whenever they were answered.
    pub(crate) fn during(&self, phase: &str, asked: KeyClass) -> Slice {
        let (from, until) = self.times_of(phase);
        self.between(from, until, asked)
    }

    /// Outcomes of all of one kind.
    pub(crate) fn all(&self, asked: KeyClass) -> Slice {
        self.between(self.phases[0].1, self.ended, asked)
    }

    /// The same for each whole second of a phase.
    pub(crate) fn by_second(&self, phase: &str, asked: KeyClass) -> Vec<Slice> {
        const SECOND: Duration = Duration::from_secs(1);
        let (mut from, until) = self.times_of(phase);
        let mut seconds = Vec::new();
        while from + SECOND <= until {
            seconds.push(self.between(from, from + SECOND, asked));
            from += SECOND;
        }
        seconds
    }

    fn times_of(&self, phase: &str) -> (Instant, Instant) {
        let at = self.phases.iter().position(|(name, _)| *name == phase);
        let at = at.unwrap_or_else(|| panic!("there was no phase {phase}"));
        let until = self.phases.get(at + 1).map_or(self.ended, |(_, next)| *next);
        (self.phases[at].1, until)
    }

    fn between(&self, from: Instant, until: Instant, asked: KeyClass) -> Slice {
        let mut slice =
            Slice { tally: Tally::default(), freshness: BTreeMap::new(), times: Vec::new() };
        for sample in &self.samples {
            if sample.asked == asked && (from..until).contains(&sample.at) {
                *slice.tally.0.entry(sample.end.clone()).or_default() += 1;
                slice.times.push(sample.took);
                if let Some(freshness) = sample.freshness {
                    *slice.freshness.entry(freshness as i32).or_default() += 1;
                }
            }
        }
        slice.times.sort_unstable();
        slice
    }
}

impl Slice {
    pub(crate) fn count(&self) -> usize {
        self.times.len()
    }

    /// The latency at `rank` per mille.
    pub(crate) fn permille(&self, rank: usize) -> Duration {
        let last = self.times.len().checked_sub(1).expect("no request was sent");
        self.times[(self.times.len() * rank / 1000).min(last)]
    }

    /// How many were answered from a part of the life of an entry.
    pub(crate) fn served(&self, freshness: Freshness) -> usize {
        self.freshness.get(&(freshness as i32)).copied().unwrap_or_default()
    }

    /// Counts the denials.
    pub(crate) fn denials(&self) -> usize {
        self.tally.of_code(Code::Unauthenticated) + self.tally.of_code(Code::PermissionDenied)
    }
}

impl Tally {
    /// Panics when it is a refusal that is not honest.
    pub(crate) fn add(&mut self, outcome: &Result<CheckResponse, Status>) {
        *self.0.entry(end_of(outcome)).or_default() += 1;
    }

    pub(crate) fn of_code(&self, code: Code) -> usize {
        self.0.iter().filter(|((c, _), _)| *c == code as i32).map(|(_, count)| count).sum()
    }
}
