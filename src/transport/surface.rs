//! What every surface does around a check, whatever it speaks.

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

/// As what a call counts whose caller gave it up. Nobody is told.
pub(super) const GIVEN_UP: (Code, &str) = (Code::Cancelled, "");

/// What callers are told under one name: without bugs that tear a connection, and
/// counted.
#[derive(Debug, Clone)]
pub(super) struct Outcomes {
    counts: Arc<SurfaceMetrics>,
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
    pub(super) fn new(name: &'static str, metrics: &Arc<Metrics>) -> Self {
        let counts = metrics.surface(name, status::all_outcomes());
        Self { counts, metrics: Arc::clone(metrics) }
    }

    /// Waits for an answer. A bug in it is told as one, a denial without evidence
    /// too, and what it comes to is counted.
    pub(super) async fn of<A>(
        &self,
        answer: impl Future<Output = Result<A, Refusal>>,
    ) -> Result<A, Refusal> {
        let pending = self.begin();
        // One request fails, not the connection that it shares with others.
        let answered = AssertUnwindSafe(answer).catch_unwind().await;
        pending.ended();
        let answered = answered.unwrap_or_else(|_| Err(Unavailable::Internal.into()));
        let answered = answered.map_err(|refusal| refusal.audited(&self.metrics));
        let (code, reason) = answered
            .as_ref()
            .err()
            .map_or((Code::Ok, ""), |refusal| (refusal.code, refusal.reason));
        self.counts.answered(status::code_name(code), reason);
        answered
    }

    /// A call that has come in. It is counted as given up if it goes before it
    /// [ended](Pending::ended): its caller no longer waits, and so neither do we.
    pub(super) fn begin(&self) -> Pending<'_> {
        Pending(Some(&self.counts))
    }

    /// Counts a call that was refused before it was made.
    pub(super) fn refused(&self, rejection: &Rejection) {
        let Rejection { refusal, .. } = rejection;
        self.counts.answered(status::code_name(refusal.code), refusal.reason);
    }
}

/// A call that has not ended.
#[derive(Debug)]
#[must_use = "it is counted as given up when it is dropped"]
pub struct Pending<'a>(Option<&'a SurfaceMetrics>);

impl Pending<'_> {
    /// The call has ended otherwise, and is counted as what it came to.
    pub(super) fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(counts) = self.0 {
            let (code, reason) = GIVEN_UP;
            counts.answered(status::code_name(code), reason);
        }
    }
}

impl<T: Tier> Surface<T> {
    /// A surface with this name in the metrics.
    pub(super) fn new(
        name: &'static str,
        admission: Arc<Admission<T>>,
        metrics: &Arc<Metrics>,
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

    /// When a check begins: its one look at the clocks.
    pub(super) fn now(&self) -> Moment {
        self.clock.moment()
    }

    /// Waits for a check that began at `now`, which is reading the request and
    /// [`Admission::check`], and builds with `granted` what a grant is answered: one
    /// of the [`Outcomes`], which is timed.
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
        let answered = self.outcomes.of(answer).await;
        self.outcomes.counts.took(now.monotonic.elapsed());
        answered
    }
}
