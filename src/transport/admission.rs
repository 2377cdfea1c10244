//! Who may wait, and for how long.
//!
//! What is in memory is answered at once, always. What has to wait for the
//! store takes one of a bounded number of places, keeps a deadline, and is told
//! so when the instance stops before the store has answered.

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

/// How much sooner than its caller a check gives up, so that the answer still
/// arrives: a tenth of the caller's time, but never more than this. 5 ms is
/// above the round trip inside a region.
const MAX_HEAD_START: Duration = Duration::from_millis(5);

/// Lets checks in. Shared by all surfaces of the data listener.
#[derive(Debug)]
pub struct Admission<T> {
    checker: Checker<T>,
    uses: UseLog,
    waiting: Semaphore,
    timeout: Duration,
    cut_off: CancellationToken,
}

impl<T: Tier> Admission<T> {
    /// An admission to `checker`, which notes in `uses` which keys are used. When
    /// `cut_off` is cancelled, whatever still waits is told that the instance is
    /// draining.
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

    /// Decides about what a client presented at `now`, if anything.
    ///
    /// `patience` is how long the caller will wait, `None` if it did not say; asked
    /// for when there is something to wait for. Ends within the check time-out and
    /// before the caller's patience does.
    pub async fn check(
        &self,
        presented: Option<&[u8]>,
        needs: Needs<'_>,
        patience: impl FnOnce() -> Option<Duration>,
        now: Moment,
    ) -> Result<Decision, Unavailable> {
        let Some(presented) = presented else {
            return Ok(Decision::Deny(Denial::from(MissingCredential)));
        };
        let mut decision = match self.checker.peek(presented, needs, now) {
            Peek::Decided(decision) => decision,
            Peek::Unavailable(cause) => return Err(cause),
            Peek::Unknown(credential) => {
                let deadline = now.monotonic + self.budget(patience());
                // Apart, so that a check that need not wait does not carry what it
                // takes to do so.
                Box::pin(self.wait(self.checker.find(credential, needs, deadline))).await?
            }
        };
        match &mut decision {
            Decision::Allow(grant) => self.uses.note(&grant.record, now.wall),
            Decision::Deny(denial) => denial.look_at(presented, self.checker.prefix()),
        }
        Ok(decision)
    }

    /// Waits for a decision, in one of the places for those who wait. One that can be
    /// made at once takes none.
    async fn wait(
        &self,
        decision: impl Future<Output = Result<Decision, Unavailable>>,
    ) -> Result<Decision, Unavailable> {
        let mut decision = pin!(decision);
        if let Poll::Ready(decided) = poll!(decision.as_mut()) {
            return decided;
        }
        let _place = self.waiting.try_acquire().map_err(|_| Unavailable::Overloaded)?;
        tokio::select! {
            biased;
            decided = decision => decided,
            () = self.cut_off.cancelled() => Err(Unavailable::Draining),
        }
    }

    /// How long something that a caller waits for may take.
    pub(super) fn budget(&self, patience: Option<Duration>) -> Duration {
        patience.map_or(self.timeout, |patience| {
            let head_start = (patience / 10).min(MAX_HEAD_START);
            self.timeout.min(patience.saturating_sub(head_start))
        })
    }
}
