//! After changes were missed: every key in memory is asked for again, at a
//! bounded rate. Nothing is purged.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{cache::Memory, fill::Fill, key::Digest, store::Lookups, tier::Refresh};

/// How many portions a second the rate is cut into, so that the store sees a
/// stream and not a burst.
const PORTIONS_A_SECOND: u32 = 50;

/// Where a sweep is asked for. What is asked while one is under way is one more
/// after it, however often.
#[derive(Debug)]
pub(super) struct Sweeps(watch::Sender<()>);

/// Asks for keys again when it is told to.
#[derive(Debug)]
pub(super) struct Sweep<S> {
    asked: watch::Receiver<()>,
    memory: Arc<Memory>,
    fill: Fill<S>,
    rate: NonZeroU32,
}

/// A sweep that begins when it is asked for, of `rate` keys a second.
pub(super) fn sweep<S>(memory: Arc<Memory>, fill: Fill<S>, rate: NonZeroU32) -> (Sweeps, Sweep<S>) {
    let (ask, asked) = watch::channel(());
    (Sweeps(ask), Sweep { asked, memory, fill, rate })
}

impl Sweeps {
    pub(super) fn ask(&self) {
        self.0.send_replace(());
    }
}

impl<S: Lookups> Sweep<S> {
    /// Sweeps whenever it is asked to, until nobody can ask any more.
    pub(super) async fn run(mut self) {
        while self.asked.changed().await.is_ok() {
            tracing::info!(keys = self.memory.len(), "asking for every key in memory again");
            let refresh = |digest| self.fill.refresh(digest).is_ok();
            let asked_for = at_rate(self.rate, self.memory.digests(), refresh).await;
            tracing::info!(keys = asked_for, "every key in memory has been asked for again");
        }
    }
}

/// Calls `refresh` for each digest, `rate` times a second at most. False means
/// that there is no room, and that it is to be tried again. Returns how many
/// there were.
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
    async fn every_key_is_asked_for_once_and_no_faster_than_the_rate() {
        let asked = RefCell::new(Vec::new());
        let began = Instant::now();
        let count = at_rate(RATE, digests(10_000), |digest| {
            asked.borrow_mut().push((digest, began.elapsed()));
            true
        })
        .await;
        assert_eq!(count, 10_000);
        let asked = asked.into_inner();
        assert!(asked.iter().map(|(digest, _)| *digest).eq(digests(10_000)));
        assert!((4_900..=5_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        for second in 0..5 {
            let within = asked.iter().filter(|(_, at)| at.as_secs() == second).count();
            assert!(within <= 2_000, "{within} in one second");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_below_the_number_of_portions_is_kept_too() {
        let began = Instant::now();
        at_rate(NonZeroU32::new(3).unwrap(), digests(10), |_| true).await;
        assert_eq!(began.elapsed().as_millis(), 3_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_room_is_tried_again_and_not_passed_over() {
        let asked = RefCell::new(Vec::new());
        let room_from = Instant::now() + Duration::from_secs(1);
        let tries = RefCell::new(0);
        at_rate(RATE, digests(100), |digest| {
            *tries.borrow_mut() += 1;
            let room = Instant::now() >= room_from;
            if room {
                asked.borrow_mut().push(digest);
            }
            room
        })
        .await;
        assert!(asked.into_inner().into_iter().eq(digests(100)));
        assert!(tries.into_inner() <= 100 + 51, "it does not spin");
    }
}
