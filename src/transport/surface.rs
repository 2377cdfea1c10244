//! Shared handling of checks on every surface, whatever its protocol.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use tonic::Code;

use super::{
    Admission,
    rejection::Rejection,
    status::{self, Refusal},
};
use crate::{
    check::{Decision, Grant},
    outage::Unavailable,
    telemetry::{Metrics, SurfaceMetrics},
    tier::Tier,
    time::{Clock, Moment},
};

/// The outcome of a call that its caller cancelled. It is counted, but not sent.
pub(super) const CANCELLED: (Code, &str) = (Code::Cancelled, "");

/// Counts the outcomes of calls under one name, and keeps panics from breaking their connection.
#[derive(Debug, Clone)]
pub(super) struct Outcomes {
    counts: Arc<SurfaceMetrics>,
    metrics: Arc<Metrics>,
}

/// A surface for checks, which are counted under its name.
#[derive(Debug)]
pub(super) struct Surface<T> {
    outcomes: Outcomes,
    admission: Arc<Admission<T>>,
    clock: Clock,
}

impl Outcomes {
    /// Creates the series of all outcomes. `name` is the label `surface`.
    pub(super) fn new(name: &'static str, metrics: &Arc<Metrics>) -> Self {
        let counts = metrics.surface(name, status::all_outcomes());
        Self { counts, metrics: Arc::clone(metrics) }
    }

    /// Runs a call and counts its outcome. A panic or a denial without evidence becomes `INTERNAL`.
    pub(super) async fn of<A>(
        &self,
        answer: impl Future<Output = Result<A, Refusal>>,
    ) -> Result<A, Refusal> {
        let pending = self.begin();
        // A panic fails one request, not the connection that it shares with others.
        let outcome = AssertUnwindSafe(answer).catch_unwind().await;
        pending.ended();
        let outcome = outcome.unwrap_or_else(|_| Err(Unavailable::Internal.into()));
        let outcome = outcome.map_err(|refusal| refusal.audited(&self.metrics));
        let (code, reason) =
            outcome.as_ref().err().map_or((Code::Ok, ""), |refusal| (refusal.code, refusal.reason));
        self.counts.answered(status::code_name(code), reason);
        outcome
    }

    /// Registers a call. It counts as cancelled if the value is dropped before it
    /// [ended](Pending::ended): its caller no longer waits.
    pub(super) fn begin(&self) -> Pending<'_> {
        Pending(Some(&self.counts))
    }

    /// Counts a call that was rejected before it reached the service.
    pub(super) fn refused(&self, rejection: &Rejection) {
        let Rejection { refusal, .. } = rejection;
        self.counts.answered(status::code_name(refusal.code), refusal.reason);
    }
}

/// A call in progress.
#[derive(Debug)]
#[must_use = "the call is counted as cancelled when this is dropped"]
pub struct Pending<'a>(Option<&'a SurfaceMetrics>);

impl Pending<'_> {
    /// The call has completed, and its outcome is counted elsewhere.
    pub(super) fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(counts) = self.0 {
            let (code, reason) = CANCELLED;
            counts.answered(status::code_name(code), reason);
        }
    }
}

impl<T: Tier> Surface<T> {
    /// Creates a surface with this name in the metrics.
    pub(super) fn new(
        name: &'static str,
        admission: Arc<Admission<T>>,
        metrics: &Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        Self { outcomes: Outcomes::new(name, metrics), admission, clock }
    }

    /// The admission control of checks.
    pub(super) fn admission(&self) -> &Admission<T> {
        &self.admission
    }

    /// The outcome counters.
    pub(super) fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// The start of a check: reads the clocks once.
    pub(super) fn now(&self) -> Moment {
        self.clock.moment()
    }

    /// Runs a check that began at `now`, which parses the request and calls [`Admission::check`],
    /// and builds the response to a grant with `granted`. Records the duration and one of the
    /// [`Outcomes`].
    pub(super) async fn answer<A>(
        &self,
        now: Moment,
        check: impl Future<Output = Result<Decision, Refusal>>,
        granted: impl FnOnce(Grant) -> A,
    ) -> Result<A, Refusal> {
        let answer = async {
            match check.await? {
                Decision::Allow(grant) => Ok(granted(grant)),
                Decision::Deny(denial) => Err(Refusal::from(&denial)),
            }
        };
        let outcome = self.outcomes.of(answer).await;
        self.outcomes.counts.took(now.monotonic.elapsed());
        outcome
    }
}
