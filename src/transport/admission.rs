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
    check::{CheckConfig, Checker, Decision, Denial, MissingCredential, Needs},
    outage::Unavailable,
    tier::Tier,
    time::Clock,
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
    clock: Clock,
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
        clock: Clock,
    ) -> Arc<Self> {
        let waiting = Semaphore::new(config.max_waiting.get().min(Semaphore::MAX_PERMITS));
        Arc::new(Self { checker, uses, waiting, timeout: config.timeout, cut_off, clock })
    }

    /// Decides about what a client presented, if anything.
    ///
    /// `patience` is how long the caller will wait, `None` if it did not say.
    /// Ends within the check time-out and before the caller's patience does.
    pub async fn check(
        &self,
        presented: Option<&[u8]>,
        needs: Needs<'_>,
        patience: Option<Duration>,
    ) -> Result<Decision, Unavailable> {
        let Some(presented) = presented else {
            return Ok(Decision::Deny(Denial::from(MissingCredential)));
        };
        let decided = self.decide(presented, needs, self.budget(patience)).await;
        if let Ok(Decision::Allow(grant)) = &decided {
            self.uses.note(&grant.record, self.clock.wall());
        }
        decided
    }

    async fn decide(
        &self,
        presented: &[u8],
        needs: Needs<'_>,
        budget: Duration,
    ) -> Result<Decision, Unavailable> {
        let deadline = self.clock.monotonic() + budget;
        let mut check = pin!(self.checker.check(presented, needs, deadline));
        if let Poll::Ready(decided) = poll!(check.as_mut()) {
            return decided;
        }
        let _place = self.waiting.try_acquire().map_err(|_| Unavailable::Overloaded)?;
        tokio::select! {
            biased;
            decided = check => decided,
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
