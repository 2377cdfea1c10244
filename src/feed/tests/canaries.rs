//! The measure of how soon a change arrives.

use super::*;

impl Bench {
    /// How many canaries have come back or were lost, and how many of them took
    /// five seconds at most.
    fn measured(&self) -> (u32, u32) {
        let text = String::from_utf8(self.exposition.text().unwrap()).unwrap();
        let value = |series: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(series));
            line.map_or(0, |value| value.trim().parse().unwrap())
        };
        (
            value("keystead_revocation_latency_seconds_count "),
            value(r#"keystead_revocation_latency_seconds_bucket{le="5"} "#),
        )
    }
}

fn with_canaries(config: &mut FeedConfig) {
    config.canary_every = Duration::from_secs(10);
}

#[tokio::test(start_paused = true)]
async fn canaries_measure_how_long_a_change_takes() {
    let bench = bench_with(with_canaries).await;
    let key = bench.warm(1).await;
    sleep(Duration::from_secs(35)).await;
    assert_eq!((bench.store.canaries(), bench.measured()), (3, (3, 3)));
    assert!(bench.has(&key), "a canary changes no key");
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_does_not_come_back_counts_as_a_minute() {
    let bench = bench_with(|config| {
        with_canaries(config);
        config.heartbeat_every = Duration::from_mins(1);
    })
    .await;
    bench.store.tune(|channel| channel.loses_words = true);
    sleep(Duration::from_secs(20)).await;
    assert_eq!((bench.store.canaries(), bench.measured()), (1, (1, 0)));
    bench.store.tune(|channel| channel.loses_words = false);
    sleep(Duration::from_secs(11)).await;
    assert_eq!((bench.store.canaries(), bench.measured()), (2, (2, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_canaries_is_asked_again_only_after_a_reconnect() {
    let bench = bench_with(with_canaries).await;
    let refuse = |kind| bench.store.tune(|channel| channel.refuses_canaries = kind);
    refuse(Some(StoreErrorKind::Forbidden));
    sleep(Duration::from_secs(15)).await;
    refuse(None);
    sleep(Duration::from_mins(1)).await;
    assert_eq!((bench.store.canaries(), bench.measured()), (0, (0, 0)));
    bench.store.cut();
    sleep(Duration::from_secs(15)).await;
    assert_eq!((bench.store.canaries(), bench.measured()), (1, (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn canaries_are_written_again_after_the_store_was_down() {
    let bench = bench_with(with_canaries).await;
    bench.store.set(Mood::Fails(StoreErrorKind::Unreachable));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(bench.measured(), (0, 0));
    bench.store.set(Mood::Answers);
    sleep(Duration::from_secs(15)).await;
    assert!(bench.measured().0 >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_cannot_be_written_just_now_is_tried_again_soon() {
    let bench = bench_with(with_canaries).await;
    bench.store.tune(|channel| channel.refuses_canaries = Some(StoreErrorKind::Saturated));
    sleep(Duration::from_secs(15)).await;
    bench.store.tune(|channel| channel.refuses_canaries = None);
    sleep(Duration::from_secs(11)).await;
    assert_eq!((bench.store.canaries(), bench.measured()), (1, (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_canary_whose_writing_took_too_long_is_measured_if_it_comes_back() {
    let bench = bench_with(with_canaries).await;
    bench.store.tune(|channel| channel.refuses_canaries = Some(StoreErrorKind::Timeout));
    sleep(Duration::from_secs(15)).await;
    assert_eq!((bench.store.canaries(), bench.measured()), (1, (1, 1)));
}
