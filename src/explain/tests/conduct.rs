//! What explaining does not do.

use super::*;
use crate::{cache::Serve, fill::fixture::until, tasks::Tasks};

#[tokio::test(start_paused = true)]
async fn an_explanation_changes_nothing_that_checks_see() {
    let fixture = Fixture::new(|_| {});
    fixture.check().await.unwrap();
    let memory = &fixture.tiers.memory;
    advance(34 * SECOND).await;
    fixture.tiers.store.remove(&fixture.digest);
    for _ in 0..10 {
        fixture.explain(Needs::default()).await;
    }
    // The refresh is still to be claimed, and the missing row is not noticed.
    let held = memory.look(&fixture.digest, Instant::now()).unwrap();
    assert_eq!(held.serve, Serve::AndRefresh);
    assert_eq!(held.observation.freshness, Freshness::Revalidating);
    assert!(!fixture.tiers.suspicion.is_suspect());
    for (counter, value) in [
        (r#"keystead_cache_lookups_total{result="miss"}"#, 1),
        (r#"keystead_cache_lookups_total{result="revalidating"}"#, 0),
        ("keystead_store_queries_total", 1),
        (r#"keystead_store_lookups_total{result="absent"}"#, 0),
    ] {
        let counted = fixture.tiers.metric(counter);
        assert_eq!(counted, value, "{counter}");
    }
    // What nobody knows is not known afterwards either.
    let unknown = Fixture { key: "sk_unknown".to_owned(), ..fixture };
    unknown.explain(Needs::default()).await;
    let digest = Digest::sha256_of(b"sk_unknown");
    assert!(unknown.tiers.memory.inspect(&digest, true, Instant::now()).held.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_explained_by_the_deadline() {
    let fixture = Arc::new(Fixture::new(|_| {}));
    fixture.tiers.store.set(Mood::Hangs);
    let began = Instant::now();
    let explanation = fixture.explain(Needs::default()).await;
    assert!(began.elapsed() <= TIMEOUT);
    assert_eq!(explanation.decision, Err(Unavailable::Store(StoreErrorKind::Timeout)));
    // Given up by its caller, it leaves nothing behind.
    let queries = fixture.tiers.store.queries();
    let tasks = Tasks::here();
    let abandoned = Arc::clone(&fixture);
    tasks.spawn_until_stopped("explain", async move {
        abandoned.explain(Needs::default()).await;
    });
    until(|| fixture.tiers.store.queries() > queries).await;
    assert!(tasks.stop(SECOND).await);
    fixture.tiers.store.set(Mood::Answers);
    assert!(fixture.explain(Needs::default()).await.decision.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_the_store_says_of_a_bad_row_is_told_without_the_digest() {
    let fixture = Fixture::new(|_| {});
    fixture.tiers.store.spoil(fixture.digest);
    let explanation = fixture.agrees(Needs::default()).await;
    let silence = explanation.seen.unwrap().store.answer.unwrap_err();
    assert_eq!(silence.cause, Unavailable::Store(StoreErrorKind::Unreadable));
    assert_eq!(silence.detail, "there are two keys with the digest …");
}
