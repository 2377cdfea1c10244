//! Admission control: which checks may wait for the store, and for how long.
//!
//! Checks that the cache can answer are always answered at once. A check that must wait for the
//! store takes one of a bounded number of permits, keeps a deadline, and fails with `DRAINING` when
//! the instance stops before the store has answered.

use std::{pin::pin, sync::Arc, task::Poll, time::Duration};

use futures::poll;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    check::{CheckConfig, Checker, Decision, Denial, MissingCredential, Needs, Peek},
    outage::Unavailable,
    tier::Tier,
    time::Moment,
    usage::UseLog,
};

/// A check ends before its caller's deadline so that the response still arrives: by a tenth of the
/// caller's time-out, but at most this much. 5 ms is above the round-trip time inside a region.
const MAX_RESPONSE_MARGIN: Duration = Duration::from_millis(5);

/// Admits checks. Shared by all surfaces of the data listener.
#[derive(Debug)]
pub struct Admission<T> {
    checker: Checker<T>,
    uses: UseLog,
    waiting: Semaphore,
    timeout: Duration,
    cut_off: CancellationToken,
}

impl<T: Tier> Admission<T> {
    /// Admits checks to `checker` and records key uses in `uses`. When `cut_off` is cancelled, all
    /// waiting checks fail with [`Unavailable::Draining`].
    #[must_use]
    pub fn new(
        checker: Checker<T>,
        uses: UseLog,
        config: CheckConfig,
        cut_off: CancellationToken,
    ) -> Arc<Self> {
        let waiting = Semaphore::new(config.max_waiting.get().min(Semaphore::MAX_PERMITS));
        Arc::new(Self { checker, uses, waiting, timeout: config.timeout, cut_off })
    }

    /// Decides about the credential that a client presented, if any, at `now`.
    ///
    /// `caller_timeout` returns how long the caller will wait, `None` if unknown; it is called only
    /// when the check must wait. Ends within the check time-out and before the caller's time-out.
    pub async fn check(
        &self,
        presented: Option<&[u8]>,
        needs: Needs<'_>,
        caller_timeout: impl FnOnce() -> Option<Duration>,
        now: Moment,
    ) -> Result<Decision, Unavailable> {
        let Some(presented) = presented else {
            return Ok(Decision::Deny(Denial::from(MissingCredential)));
        };
        let mut decision = match self.checker.peek(presented, needs, now) {
            Peek::Decided(decision) => decision,
            Peek::Unavailable(cause) => return Err(cause),
            Peek::Unknown(credential) => {
                let deadline = now.monotonic + self.budget(caller_timeout());
                // Boxed, so that the future of a check that does not wait stays small.
                Box::pin(self.wait(self.checker.find(credential, needs, deadline))).await?
            }
        };
        match &mut decision {
            Decision::Allow(grant) => self.uses.note(&grant.record, now.wall),
            Decision::Deny(denial) => denial.look_at(presented, self.checker.prefix()),
        }
        Ok(decision)
    }

    /// Waits for a decision while holding a permit. A decision that is ready at once takes none.
    async fn wait(
        &self,
        decision: impl Future<Output = Result<Decision, Unavailable>>,
    ) -> Result<Decision, Unavailable> {
        let mut decision = pin!(decision);
        if let Poll::Ready(decided) = poll!(decision.as_mut()) {
            return decided;
        }
        let _permit = self.waiting.try_acquire().map_err(|_| Unavailable::Overloaded)?;
        tokio::select! {
            biased;
            decided = decision => decided,
            () = self.cut_off.cancelled() => Err(Unavailable::Draining),
        }
    }

    /// How long an operation that a caller waits for may take.
    pub(super) fn budget(&self, caller_timeout: Option<Duration>) -> Duration {
        caller_timeout.map_or(self.timeout, |caller_timeout| {
            let margin = (caller_timeout / 10).min(MAX_RESPONSE_MARGIN);
            self.timeout.min(caller_timeout.saturating_sub(margin))
        })
    }
}
