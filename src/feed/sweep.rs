//! Revalidates every cached key after missed changes, at a bounded rate. Purges nothing.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{cache::Memory, fill::Fill, key::Digest, store::Lookups, tier::Refresh};

/// Portions per second that the rate is split into, so that the store sees a stream and not a
/// burst.
const PORTIONS_A_SECOND: u32 = 50;

/// Requests sweeps. All requests during a sweep are coalesced into one more sweep.
#[derive(Debug)]
pub(super) struct Sweeps(watch::Sender<()>);

/// Revalidates the cache on request.
#[derive(Debug)]
pub(super) struct Sweep<S> {
    requests: watch::Receiver<()>,
    memory: Arc<Memory>,
    fill: Fill<S>,
    rate: NonZeroU32,
}

/// Creates a sweep that revalidates `rate` keys per second.
pub(super) fn sweep<S>(memory: Arc<Memory>, fill: Fill<S>, rate: NonZeroU32) -> (Sweeps, Sweep<S>) {
    let (sender, requests) = watch::channel(());
    (Sweeps(sender), Sweep { requests, memory, fill, rate })
}

impl Sweeps {
    pub(super) fn request(&self) {
        self.0.send_replace(());
    }
}

impl<S: Lookups> Sweep<S> {
    /// Sweeps on every request, until all requesters are gone.
    pub(super) async fn run(mut self) {
        while self.requests.changed().await.is_ok() {
            tracing::info!(keys = self.memory.len(), "revalidating every cached key");
            let refresh = |digest| self.fill.refresh(digest).is_ok();
            let refreshed = at_rate(self.rate, self.memory.digests(), refresh).await;
            tracing::info!(keys = refreshed, "revalidated every cached key");
        }
    }
}

/// Calls `refresh` for each digest, at most `rate` times per second. If it returns false, there
/// is no room, and the digest is retried. Returns the number of digests.
async fn at_rate(
    rate: NonZeroU32,
    digests: impl Iterator<Item = Digest>,
    refresh: impl Fn(Digest) -> bool,
) -> usize {
    let portion = (rate.get() / PORTIONS_A_SECOND).max(1);
    let mut ticks = interval(Duration::from_secs(1) * portion / rate.get());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut count, mut left) = (0, 0);
    for digest in digests {
        loop {
            if left == 0 {
                ticks.tick().await;
                left = portion;
            }
            if refresh(digest) {
                break;
            }
            left = 0;
        }
        (count, left) = (count + 1, left - 1);
    }
    count
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    const RATE: NonZeroU32 = NonZeroU32::new(2_000).unwrap();

    fn digests(count: u32) -> impl Iterator<Item = Digest> {
        (0..count).map(|n| Digest::sha256_of(&n.to_be_bytes()))
    }

    #[tokio::test(start_paused = true)]
    async fn every_key_is_refreshed_once_within_the_rate() {
        let refreshed = RefCell::new(Vec::new());
        let began = Instant::now();
        let count = at_rate(RATE, digests(10_000), |digest| {
            refreshed.borrow_mut().push((digest, began.elapsed()));
            true
        })
        .await;
        assert_eq!(count, 10_000);
        let refreshed = refreshed.into_inner();
        assert!(refreshed.iter().map(|(digest, _)| *digest).eq(digests(10_000)));
        assert!((4_900..=5_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        for second in 0..5 {
            let within = refreshed.iter().filter(|(_, at)| at.as_secs() == second).count();
            assert!(within <= 2_000, "{within} in one second");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rate_below_the_number_of_portions_is_kept() {
        let began = Instant::now();
        at_rate(NonZeroU32::new(3).unwrap(), digests(10), |_| true).await;
        assert_eq!(began.elapsed().as_millis(), 3_000);
    }

    #[tokio::test(start_paused = true)]
    async fn key_that_finds_no_room_is_retried() {
        let refreshed = RefCell::new(Vec::new());
        let room_from = Instant::now() + Duration::from_secs(1);
        let tries = RefCell::new(0);
        at_rate(RATE, digests(100), |digest| {
            *tries.borrow_mut() += 1;
            let room = Instant::now() >= room_from;
            if room {
                refreshed.borrow_mut().push(digest);
            }
            room
        })
        .await;
        assert!(refreshed.into_inner().into_iter().eq(digests(100)));
        assert!(tries.into_inner() <= 100 + 51, "it does not spin");
    }
}
