//! Deadlines of queued lookups and their errors.

use std::num::NonZeroU32;

use super::*;

#[tokio::test(start_paused = true)]
async fn late_lookup_is_rejected_without_a_query() {
    let fixture = of(Mood::Hangs, &Settings::default().places(1).batch_max(1));
    for _ in 0..40 {
        fixture.fill.0.pace.took(Duration::from_millis(60), 1, Instant::now());
    }
    let began = Instant::now();
    let first = fixture.fill.find(ours(KEY), soon());
    let late = fixture.fill.find(ours(nth(1)), soon());
    let slow = async {
        sleep(Duration::from_millis(95)).await;
        fixture.store.set(Mood::Answers);
    };
    let (first, late, ()) = tokio::join!(first, late, slow);
    assert_eq!(principal(first), "acme");
    assert_eq!(late, Err(Unavailable::Store(StoreErrorKind::Saturated)));
    assert_eq!(fixture.store.queries(), 1);
    assert_eq!(began.elapsed(), Duration::from_millis(95), "rejected as soon as it was late");
}

#[tokio::test(start_paused = true)]
async fn opening_breaker_rejects_queued_lookups_at_once() {
    let mut settings = Settings::default().places(1).batch_max(1);
    settings.guard.breaker.min_calls = NonZeroU32::MIN;
    let fixture = of(Mood::Hangs, &settings);
    let began = Instant::now();
    let answer_by = began + 10 * TIMEOUT;
    let (first, second) = tokio::join!(
        fixture.fill.find(ours(KEY), answer_by),
        fixture.fill.find(ours(nth(1)), answer_by)
    );
    assert_eq!(first, Err(Unavailable::Store(StoreErrorKind::Timeout)));
    assert_eq!(second, Err(Unavailable::BreakerOpen));
    assert_eq!(began.elapsed(), fixture.guarded.query_timeout());
    assert_eq!(fixture.store.queries(), 1);
}

#[tokio::test(start_paused = true)]
async fn callers_with_short_deadlines_are_answered_once_the_store_is_fast_again() {
    let fixture = fixture(Mood::Hangs, 8, 10);
    let impatient = || Instant::now() + Duration::from_millis(50);
    for n in 0..40 {
        let _ = fixture.fill.find(ours(nth(n)), soon()).await;
    }
    fixture.store.set(Mood::Answers);
    let began = Instant::now();
    while fixture.fill.find(ours(KEY), impatient()).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn joining_caller_extends_the_deadline_of_a_lookup() {
    let fixture = of(Mood::Hangs, &Settings::default().places(1).batch_max(1));
    let mut at_the_store = Box::pin(fixture.fill.find(ours(nth(1)), soon()));
    assert!(futures::poll!(&mut at_the_store).is_pending());
    until(|| fixture.store.queries() == 1).await;
    let impatient = fixture.fill.find(ours(KEY), Instant::now() + Duration::from_millis(10));
    let patient = fixture.fill.find(ours(KEY), soon() + TIMEOUT);
    let release = async {
        sleep(Duration::from_millis(20)).await;
        fixture.store.set(Mood::Answers);
    };
    let (impatient, patient, ()) = tokio::join!(impatient, patient, release);
    assert_eq!(impatient, Err(Unavailable::Store(StoreErrorKind::Saturated)));
    assert_eq!(principal(patient), "acme");
}
