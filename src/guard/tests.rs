use futures::poll;
use std::{num::NonZeroUsize, pin::pin, task::Poll};

use super::*;
use crate::{
    store::fake::{FakeStore, Mood},
    telemetry::Exposition,
};

const KEY: Digest = Digest::from_bytes([7; 32]);
const QUERY_TIMEOUT: Duration = Duration::from_millis(100);

fn guarded(store: &FakeStore, permits: usize) -> Guarded<FakeStore> {
    let (metrics, _) = Metrics::new().unwrap();
    let max_in_flight = NonZeroUsize::new(permits).unwrap();
    let config =
        GuardConfig { max_in_flight, query_timeout: QUERY_TIMEOUT, ..GuardConfig::default() };
    Guarded::new(store.clone(), config, metrics, Clock::System)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

#[tokio::test(start_paused = true)]
async fn concurrent_permits_are_limited_to_max_in_flight() {
    let guarded = guarded(&FakeStore::new(Mood::Answers), 2);
    assert_eq!((guarded.max_in_flight(), guarded.query_timeout()), (2, QUERY_TIMEOUT));
    let (first, second) = (guarded.acquire(soon()).await, guarded.acquire(soon()).await);
    assert!(first.is_ok() && second.is_ok());
    assert!(guarded.try_acquire().is_none());
    let began = Instant::now();
    assert_eq!(guarded.acquire(began + QUERY_TIMEOUT).await.err(), Some(Refused::Saturated));
    assert_eq!(began.elapsed(), QUERY_TIMEOUT);
    drop(first);
    assert!(guarded.try_acquire().is_some());
}

#[tokio::test(start_paused = true)]
async fn permits_are_granted_in_fifo_order_and_before_background_work() {
    let guarded = guarded(&FakeStore::new(Mood::Answers), 1);
    let held = guarded.acquire(soon()).await;
    let mut first = pin!(guarded.acquire(soon()));
    let mut second = pin!(guarded.acquire(soon()));
    assert!(poll!(first.as_mut()).is_pending() && poll!(second.as_mut()).is_pending());
    drop(held);
    assert!(guarded.try_acquire().is_none(), "a call waits");
    assert!(poll!(second.as_mut()).is_pending());
    let Poll::Ready(Ok(permit)) = poll!(first.as_mut()) else {
        panic!("the first waiter gets the permit");
    };
    drop(permit);
    assert!(second.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn cancelled_wait_leaks_no_permit() {
    let guarded = guarded(&FakeStore::new(Mood::Answers), 1);
    let held = guarded.acquire(soon()).await;
    {
        let mut gone = pin!(guarded.acquire(soon()));
        assert!(poll!(gone.as_mut()).is_pending());
    }
    drop(held);
    assert!(guarded.try_acquire().is_some());
}

#[tokio::test(start_paused = true)]
async fn hanging_call_times_out_and_releases_its_permit() {
    let store = FakeStore::new(Mood::Hangs);
    let guarded = guarded(&store, 1);
    let began = Instant::now();
    let outcome = guarded.acquire(soon()).await.unwrap().find(&[KEY]).await;
    assert_eq!(outcome.unwrap_err().kind(), StoreErrorKind::Timeout);
    assert_eq!(began.elapsed(), QUERY_TIMEOUT);
    assert!(guarded.try_acquire().is_some());
}

#[tokio::test(start_paused = true)]
async fn dropped_call_releases_its_permit() {
    let store = FakeStore::new(Mood::Hangs);
    let guarded = guarded(&store, 1);
    {
        let mut dropped = pin!(guarded.acquire(soon()).await.unwrap().find(&[KEY]));
        assert!(poll!(dropped.as_mut()).is_pending());
        assert!(guarded.try_acquire().is_none());
    }
    assert!(guarded.try_acquire().is_some());
}

#[tokio::test(start_paused = true)]
async fn panicking_call_releases_its_permit() {
    use futures::FutureExt;
    let store = FakeStore::new(Mood::Panics);
    let guarded = guarded(&store, 1);
    let call = guarded.acquire(soon()).await.unwrap().find(&[KEY]);
    assert!(std::panic::AssertUnwindSafe(call).catch_unwind().await.is_err());
    assert!(guarded.try_acquire().is_some());
}

const FAILS: Mood = Mood::Fails(StoreErrorKind::Unreachable);

fn guarded_with(
    store: &FakeStore,
    permits: usize,
    tune: impl FnOnce(&mut BreakerConfig),
) -> (Guarded<FakeStore>, Exposition) {
    let (metrics, exposition) = Metrics::new().unwrap();
    let mut config = GuardConfig {
        max_in_flight: NonZeroUsize::new(permits).unwrap(),
        query_timeout: QUERY_TIMEOUT,
        ..GuardConfig::default()
    };
    tune(&mut config.breaker);
    (Guarded::new(store.clone(), config, metrics, Clock::System), exposition)
}

/// Makes calls until the breaker opens.
async fn fail_until_open(guarded: &Guarded<FakeStore>) {
    guarded.store.set(FAILS);
    while let Ok(permit) = guarded.acquire(soon()).await {
        permit.find(&[KEY]).await.unwrap_err();
    }
    assert_eq!(guarded.breaker().state(), BreakerState::Open);
}

/// Advances time until the next probe.
async fn until_probe(guarded: &Guarded<FakeStore>) {
    tokio::time::sleep(guarded.tries_in().unwrap()).await;
}

/// Makes enough successful calls to close a half-open breaker.
async fn all_probes_are_answered(guarded: &Guarded<FakeStore>) {
    for _ in 0..3 {
        call(guarded).await.unwrap();
    }
}

async fn call(guarded: &Guarded<FakeStore>) -> Result<(), Refused> {
    let permit = guarded.acquire(soon()).await?;
    permit.run(async |store: &FakeStore| store.find(&[KEY]).await).await.map(drop).unwrap();
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn open_breaker_rejects_at_once_without_a_query() {
    let store = FakeStore::new(FAILS);
    let guarded = guarded(&store, 2);
    assert!(guarded.admits());
    fail_until_open(&guarded).await;
    let (queries, began) = (store.queries(), Instant::now());
    assert!(!guarded.admits());
    assert_eq!(guarded.acquire(soon()).await.err(), Some(Refused::Open));
    assert!(guarded.try_acquire().is_none());
    assert_eq!((store.queries(), began.elapsed()), (queries, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn opening_rejects_every_waiter_at_once_even_behind_an_unpolled_one() {
    let store = FakeStore::new(FAILS);
    let (guarded, _) = guarded_with(&store, 1, |breaker| {
        breaker.min_calls = 1.try_into().unwrap();
    });
    let held = guarded.acquire(soon()).await.unwrap();
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(guarded.acquire(soon()))).collect();
    for waits in &mut waiting {
        assert!(poll!(waits).is_pending());
    }
    let began = Instant::now();
    held.find(&[KEY]).await.unwrap_err();
    // Last first: the waiters before it in the queue are not polled.
    for waits in waiting.into_iter().rev() {
        assert_eq!(waits.await.err(), Some(Refused::Open));
    }
    assert_eq!((store.queries(), began.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn half_open_admits_a_limited_number_of_probes_and_rejects_others_at_once() {
    let store = FakeStore::new(FAILS);
    let guarded = guarded(&store, 8);
    fail_until_open(&guarded).await;
    until_probe(&guarded).await;
    assert!(guarded.admits());
    let probes = [(); 3].map(|()| guarded.acquire(soon()));
    let probes = futures::future::join_all(probes).await;
    assert!(probes.iter().all(Result::is_ok));
    assert_eq!(guarded.breaker().state(), BreakerState::HalfOpen);
    assert!(!guarded.admits());
    assert_eq!(guarded.acquire(soon()).await.err(), Some(Refused::Open));
    // Unused probes that are released are available again.
    drop(probes);
    assert!(guarded.admits());
    assert!(guarded.try_acquire().is_none(), "background work never probes");
    store.set(Mood::Answers);
    all_probes_are_answered(&guarded).await;
    assert_eq!(guarded.breaker().state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn dropped_or_panicking_probe_is_released() {
    use futures::FutureExt;
    let store = FakeStore::new(FAILS);
    let guarded = guarded(&store, 8);
    fail_until_open(&guarded).await;
    until_probe(&guarded).await;
    for _ in 0..10 {
        store.set(Mood::Panics);
        let call = guarded.acquire(soon()).await.unwrap().find(&[KEY]);
        assert!(std::panic::AssertUnwindSafe(call).catch_unwind().await.is_err());
        store.set(Mood::Hangs);
        let mut dropped = pin!(guarded.acquire(soon()).await.unwrap().find(&[KEY]));
        assert!(poll!(dropped.as_mut()).is_pending());
    }
    assert_eq!(guarded.breaker().state(), BreakerState::HalfOpen);
    store.set(Mood::Answers);
    all_probes_are_answered(&guarded).await;
    assert_eq!(guarded.breaker().state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn timeouts_open_the_breaker() {
    let store = FakeStore::new(Mood::Hangs);
    let guarded = guarded(&store, 10);
    let calls =
        (0..10).map(|_| async { guarded.acquire(soon()).await.unwrap().find(&[KEY]).await });
    let ended = futures::future::join_all(calls).await;
    assert!(ended.iter().all(|end| end.as_ref().unwrap_err().kind() == StoreErrorKind::Timeout));
    assert_eq!(guarded.breaker().state(), BreakerState::Open);
    assert_eq!(guarded.last_failure().unwrap().kind(), StoreErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_the_breaker_and_are_reported_as_a_timeout() {
    let store = FakeStore::new(Mood::Answers);
    let guarded = guarded(&store, 10);
    for _ in 0..10 {
        let slowly = async |_: &FakeStore| {
            tokio::time::sleep(QUERY_TIMEOUT * 3 / 4).await;
            Ok(())
        };
        guarded.acquire(soon()).await.unwrap().run(slowly).await.unwrap();
    }
    assert_eq!(guarded.breaker().state(), BreakerState::Open);
    assert_eq!(guarded.last_failure().unwrap().kind(), StoreErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn neither_permit_timeouts_nor_a_saturated_store_open_the_breaker() {
    let store = FakeStore::new(Mood::Fails(StoreErrorKind::Saturated));
    let guarded = guarded(&store, 1);
    for _ in 0..100 {
        guarded.acquire(soon()).await.unwrap().find(&[KEY]).await.unwrap_err();
    }
    let _held = guarded.acquire(soon()).await.unwrap();
    for _ in 0..100 {
        assert_eq!(guarded.acquire(soon()).await.err(), Some(Refused::Saturated));
    }
    assert!(guarded.admits());
    assert!(guarded.in_doubt(), "waiting for it is futile");
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_permits_during_ramp_up() {
    let store = FakeStore::new(FAILS);
    let guarded = guarded(&store, 8);
    fail_until_open(&guarded).await;
    until_probe(&guarded).await;
    store.set(Mood::Answers);
    all_probes_are_answered(&guarded).await;
    let closed = Instant::now();
    let patient = closed + Duration::from_mins(1);
    let mut held = Vec::new();
    let mut given_out = Vec::new();
    for _ in 0..guarded.max_in_flight() {
        held.push(guarded.acquire(patient).await.unwrap());
        given_out.push(closed.elapsed().as_millis());
    }
    assert_eq!(given_out, [0, 0, 0, 400, 800, 1200, 1600, 2000]);
    assert_eq!(guarded.acquire(closed.max(Instant::now())).await.err(), Some(Refused::Saturated));
}

#[tokio::test(start_paused = true)]
async fn permit_released_during_ramp_up_goes_to_a_waiter() {
    let store = FakeStore::new(FAILS);
    let guarded = guarded(&store, 8);
    fail_until_open(&guarded).await;
    until_probe(&guarded).await;
    store.set(Mood::Answers);
    all_probes_are_answered(&guarded).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(guarded.acquire(soon()).await.unwrap());
    }
    assert!(guarded.try_acquire().is_none());
    let mut waits = pin!(guarded.acquire(soon()));
    assert!(poll!(waits.as_mut()).is_pending());
    held.pop();
    assert!(poll!(waits.as_mut()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn store_is_in_doubt_from_a_failure_to_an_answer_and_while_the_breaker_is_not_closed() {
    let store = FakeStore::new(FAILS);
    let guarded = guarded(&store, 8);
    assert!(!guarded.in_doubt(), "no call was made yet");
    guarded.acquire(soon()).await.unwrap().find(&[KEY]).await.unwrap_err();
    assert!(guarded.in_doubt());
    // Outcomes without evidence change nothing.
    store.set(Mood::Fails(StoreErrorKind::Saturated));
    guarded.acquire(soon()).await.unwrap().find(&[KEY]).await.unwrap_err();
    drop(guarded.acquire(soon()).await);
    assert!(guarded.in_doubt());
    store.set(Mood::Answers);
    call(&guarded).await.unwrap();
    assert!(!guarded.in_doubt());

    fail_until_open(&guarded).await;
    until_probe(&guarded).await;
    store.set(Mood::Answers);
    for _ in 0..2 {
        call(&guarded).await.unwrap();
        assert!(guarded.in_doubt(), "half-open");
    }
    call(&guarded).await.unwrap();
    assert!(!guarded.in_doubt());
}

#[tokio::test(start_paused = true)]
async fn open_time_varies_within_a_fifth_of_the_configured_time() {
    let mut pauses = Vec::new();
    for _ in 0..50 {
        let guarded = guarded(&FakeStore::new(FAILS), 1);
        fail_until_open(&guarded).await;
        pauses.push(guarded.tries_in().unwrap().as_millis());
    }
    assert!(pauses.iter().all(|pause| (400..=600).contains(pause)), "{pauses:?}");
    assert!(pauses.iter().any(|pause| *pause != pauses[0]));
}

#[tokio::test(start_paused = true)]
async fn metrics_show_the_state_and_count_each_transition_once() {
    let store = FakeStore::new(FAILS);
    let (guarded, exposition) = guarded_with(&store, 8, |_| ());
    let holds = |states: [u8; 3], changes: [u8; 3]| {
        let text = String::from_utf8(exposition.text().unwrap()).unwrap();
        for (position, state) in BreakerState::ALL.iter().map(|s| s.as_str()).enumerate() {
            let (now, to) = (states[position], changes[position]);
            for line in [
                format!(r#"keystead_breaker_state{{state="{state}",tier="store"}} {now}"#),
                format!(r#"keystead_breaker_transitions_total{{tier="store",to="{state}"}} {to}"#),
            ] {
                assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
            }
        }
    };
    // Closed, open, half-open.
    holds([1, 0, 0], [0, 0, 0]);
    fail_until_open(&guarded).await;
    holds([0, 1, 0], [0, 1, 0]);
    until_probe(&guarded).await;
    guarded.acquire(soon()).await.unwrap().find(&[KEY]).await.unwrap_err();
    holds([0, 1, 0], [0, 2, 1]);
    until_probe(&guarded).await;
    store.set(Mood::Answers);
    call(&guarded).await.unwrap();
    holds([0, 0, 1], [0, 2, 2]);
    for _ in 0..2 {
        call(&guarded).await.unwrap();
    }
    holds([1, 0, 0], [1, 2, 2]);
}
