//! Callers that call the service through Envoy continuously.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{task::JoinHandle, time::sleep};

use super::replicas::Fleet;
use crate::{
    envoy::site::bearer,
    harness::{
        beside, eventually,
        http::{Connection, get},
        keys::Key,
    },
};

/// Number of concurrent callers, each over its own connection.
pub(super) const CALLERS: usize = 8;

/// How long each rests after an answer.
const REST: Duration = Duration::from_millis(10);

/// How many requests are enough to have met both replicas.
const ENOUGH: usize = 200;

/// Callers that check until they are stopped, or their test ends.
pub(super) struct Traffic {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<()>>,
}

struct Shared {
    envoy: SocketAddr,
    keys: Vec<Key>,
    next: AtomicUsize,
    stop: AtomicBool,
    samples: Mutex<Vec<Sample>>,
}

/// One request.
#[derive(Debug, Clone)]
struct Sample {
    status: u16,
    took: Duration,
}

/// What became of all.
pub(super) struct Samples(Vec<Sample>);

impl Traffic {
    pub(super) fn on(fleet: &Fleet) -> Self {
        let shared = Arc::new(Shared {
            envoy: fleet.envoy.address,
            keys: fleet.keys.clone(),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            samples: Mutex::default(),
        });
        let callers = (0..CALLERS).map(|_| beside(Arc::clone(&shared).call())).collect();
        Self { shared, callers }
    }

    /// Waits until many more have been answered.
    pub(super) async fn goes_on(&self) {
        let count = || self.shared.samples.lock().unwrap().len();
        let before = count();
        eventually("traffic goes on", async || (count() >= before + ENOUGH).then_some(())).await;
    }

    /// Waits for the last answers.
    pub(super) async fn stop(self) -> Samples {
        self.shared.stop.store(true, Ordering::SeqCst);
        for caller in self.callers {
            caller.await.unwrap();
        }
        Samples(std::mem::take(&mut self.shared.samples.lock().unwrap()))
    }
}

impl Shared {
    async fn call(self: Arc<Self>) {
        let mut connection = Connection::open(self.envoy).await;
        while !self.stop.load(Ordering::SeqCst) {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let presented = bearer(&self.keys[turn % self.keys.len()].text);
            let at = Instant::now();
            let answer = connection.send(get("/", &[("authorization", &presented)])).await;
            let answer = answer.expect("Envoy itself does not go away");
            let sample = Sample { status: answer.status, took: at.elapsed() };
            self.samples.lock().unwrap().push(sample);
            sleep(REST).await;
        }
    }
}

impl Samples {
    pub(super) fn all_succeeded(&self) {
        let failed: Vec<_> = self.0.iter().filter(|sample| sample.status != 200).collect();
        assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), self.0.len());
    }

    pub(super) fn slower_than(&self, limit: Duration) -> usize {
        self.0.iter().filter(|sample| sample.took > limit).count()
    }
}
