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

/// A way in for checks, which are counted under its name.
#[derive(Debug)]
pub(super) struct Surface<T> {
    name: &'static str,
    admission: Arc<Admission<T>>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl<T: Tier> Surface<T> {
    /// A surface whose outcomes all exist in the metrics from now on. Its name is
    /// the label `surface`.
    pub(super) fn new(
        name: &'static str,
        admission: Arc<Admission<T>>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        metrics.expect_checks(name, status::all_outcomes());
        Self { name, admission, metrics, clock }
    }

    /// Who decides.
    pub(super) fn admission(&self) -> &Admission<T> {
        &self.admission
    }

    /// Waits for a check, which is reading the request and [`Admission::check`], and
    /// builds with `granted` what a grant is answered. A bug in either is told as
    /// one, a denial without evidence too, and what it all comes to is counted and
    /// timed.
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
        // One request fails, not the connection that it shares with others.
        let answered = AssertUnwindSafe(answer).catch_unwind().await;
        let answered = answered.unwrap_or_else(|_| Err(Unavailable::Internal.into()));
        let answered = answered.map_err(|refusal| refusal.audited(&self.metrics));
        let (code, reason) = answered
            .as_ref()
            .err()
            .map_or((Code::Ok, ""), |refusal| (refusal.code, refusal.reason));
        self.metrics.check(self.name, status::code_name(code), reason);
        self.metrics.check_took(self.name, began.elapsed());
        answered
    }

    /// Counts here what the transport of a gRPC surface refuses by itself, and has
    /// it answered by `answer`.
    pub(super) fn completing<B, A>(
        &self,
        answer: A,
    ) -> impl Fn(Response<B>) -> Response<B> + Clone + use<A, B, T>
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
