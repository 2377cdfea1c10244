//! Steady traffic over one channel, and what became of each request.

use std::{error::Error, time::Instant};

use tokio::{sync::watch, task::JoinHandle};
use tonic::{Status, transport::Channel};

use crate::harness::{
    app::{check_over, presenting},
    beside, eventually,
    keys::Key,
};

/// How many requests are under way at once.
const WORKERS: usize = 4;

/// Sequential requests by several concurrent workers, until stopped or until the
/// server has gone.
pub(super) struct Traffic {
    stop: watch::Sender<bool>,
    answered: watch::Receiver<usize>,
    workers: Vec<JoinHandle<Vec<Sent>>>,
}

/// A request.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) at: Instant,
    pub(super) failure: Option<Status>,
}

/// Whether the request never left: the client's own library gives back what it
/// was about to send when the connection ended. A client with a retry policy
/// sends it over the next one without a word, and so does this traffic.
fn was_given_back(status: &Status) -> bool {
    let source = status.source().and_then(Error::source);
    source.and_then(<dyn Error>::downcast_ref).is_some_and(hyper::Error::is_canceled)
}

impl Traffic {
    /// Begins. Ends by itself at the first failure of each worker.
    pub(super) fn over(channel: &Channel, key: &Key) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (answers, answered) = watch::channel(0);
        let worker = |_| {
            let (channel, key) = (channel.clone(), key.clone());
            let (stopped, answers) = (stopped.clone(), answers.clone());
            beside(async move {
                let mut sent = Vec::new();
                while !*stopped.borrow() {
                    let at = Instant::now();
                    let outcome = loop {
                        match check_over(channel.clone(), presenting(&key.text)).await {
                            Err(status) if was_given_back(&status) => {}
                            outcome => break outcome,
                        }
                    };
                    let failed = outcome.is_err();
                    sent.push(Sent { at, failure: outcome.err() });
                    if failed {
                        break;
                    }
                    answers.send_modify(|count| *count += 1);
                }
                sent
            })
        };
        let workers = (0..WORKERS).map(worker).collect();
        Self { stop, answered, workers }
    }

    pub(super) fn answered(&self) -> usize {
        *self.answered.borrow()
    }

    /// Waits until this number of further requests have been answered.
    pub(super) async fn goes_on(&self, more: usize) {
        let goal = self.answered() + more;
        eventually("requests are answered", async || (self.answered() >= goal).then_some(())).await;
    }

    /// Stops, and returns all requests.
    pub(super) async fn ended(self) -> Vec<Sent> {
        self.stop.send_replace(true);
        let mut all = Vec::new();
        for worker in self.workers {
            all.extend(worker.await.unwrap());
        }
        all
    }
}
