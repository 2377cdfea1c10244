//! What every surface does around a check, whatever it speaks.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use http::Response;
use tonic::Code;

use super::{
    Admission,
    refused::{self, Early},
    status::{self, Refusal},
};
use crate::{
    check::{Decision, Grant},
    outage::Unavailable,
    telemetry::Metrics,
    tier::Tier,
    time::Clock,
};

/// What callers are told under one name: without bugs that tear a connection, and
/// counted.
#[derive(Debug)]
pub(super) struct Outcomes {
    name: &'static str,
    metrics: Arc<Metrics>,
}

/// A way in for checks, which are counted under its name.
#[derive(Debug)]
pub(super) struct Surface<T> {
    outcomes: Outcomes,
    admission: Arc<Admission<T>>,
    clock: Clock,
}

impl Outcomes {
    /// All outcomes exist in the metrics from now on. The name is the label
    /// `surface`.
    pub(super) fn new(name: &'static str, metrics: Arc<Metrics>) -> Self {
        metrics.expect_checks(name, status::all_outcomes());
        Self { name, metrics }
    }

    /// Waits for an answer. A bug in it is told as one, a denial without evidence
    /// too, and what it comes to is counted.
    pub(super) async fn of<A>(
        &self,
        answer: impl Future<Output = Result<A, Refusal>>,
    ) -> Result<A, Refusal> {
        // One request fails, not the connection that it shares with others.
        let answered = AssertUnwindSafe(answer).catch_unwind().await;
        let answered = answered.unwrap_or_else(|_| Err(Unavailable::Internal.into()));
        let answered = answered.map_err(|refusal| refusal.audited(&self.metrics));
        let (code, reason) = answered
            .as_ref()
            .err()
            .map_or((Code::Ok, ""), |refusal| (refusal.code, refusal.reason));
        self.metrics.check(self.name, status::code_name(code), reason);
        answered
    }

    /// Counts here what the transport of a gRPC surface refuses by itself, and has
    /// it answered by `answer`.
    pub(super) fn completing<B, A>(
        &self,
        answer: A,
    ) -> impl Fn(Response<B>) -> Response<B> + Clone + use<A, B>
    where
        A: Fn(Early) -> Response<B> + Clone,
    {
        let (name, metrics) = (self.name, Arc::clone(&self.metrics));
        move |response| {
            let count = |code, reason| metrics.check(name, code, reason);
            refused::complete_with(response, count, &answer)
        }
    }
}

impl<T: Tier> Surface<T> {
    /// A surface with this name in the metrics.
    pub(super) fn new(
        name: &'static str,
        admission: Arc<Admission<T>>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        Self { outcomes: Outcomes::new(name, metrics), admission, clock }
    }

    /// Who decides.
    pub(super) fn admission(&self) -> &Admission<T> {
        &self.admission
    }

    /// What is counted.
    pub(super) fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// Waits for a check, which is reading the request and [`Admission::check`], and
    /// builds with `granted` what a grant is answered: one of the [`Outcomes`],
    /// which is timed.
    pub(super) async fn answer<A>(
        &self,
        check: impl Future<Output = Result<Decision, Refusal>>,
        granted: impl FnOnce(&Grant) -> A,
    ) -> Result<A, Refusal> {
        let began = self.clock.monotonic();
        let answer = async {
            match check.await? {
                Decision::Allow(grant) => Ok(granted(&grant)),
                Decision::Deny(denial) => Err(Refusal::from(&denial)),
            }
        };
        let answered = self.outcomes.of(answer).await;
        let Outcomes { name, metrics } = &self.outcomes;
        metrics.check_took(name, began.elapsed());
        answered
    }
}
