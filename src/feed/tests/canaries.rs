//! Canaries and what they measure.

use super::*;
use crate::{instance::InstanceState, store::CanaryError};

impl Fixture {
    fn refuse_canaries(&self, how: CanaryError) {
        self.store.tune(|channel| channel.refuses_canaries = Some(how));
    }

    fn write_path(&self) -> &'static str {
        self.instance.standing().write_path.as_write_path()
    }

    /// Number of canaries that arrived or were lost, and number of those that took at most five
    /// seconds.
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

fn failing(kind: StoreErrorKind) -> CanaryError {
    CanaryError::Failed(StoreError::new(kind, "pid 123 (psql)"))
}

fn with_canaries(config: &mut FeedConfig) {
    config.canary_every = Duration::from_secs(10);
}

#[tokio::test(start_paused = true)]
async fn canaries_measure_how_long_a_change_takes() {
    let fixture = fixture_with(with_canaries).await;
    let key = fixture.warm(1).await;
    sleep(Duration::from_secs(35)).await;
    assert_eq!((fixture.store.canaries(), fixture.measured()), (3, (3, 3)));
    assert!(fixture.has(&key), "a canary changes no key");
}

#[tokio::test(start_paused = true)]
async fn lost_canary_counts_as_a_minute() {
    let fixture = fixture_with(|config| {
        with_canaries(config);
        config.heartbeat_every = Duration::from_mins(1);
    })
    .await;
    fixture.store.tune(|channel| channel.loses_announcements = true);
    sleep(Duration::from_secs(20)).await;
    assert_eq!((fixture.store.canaries(), fixture.measured()), (1, (1, 0)));
    fixture.store.tune(|channel| channel.loses_announcements = false);
    sleep(Duration::from_secs(11)).await;
    assert_eq!((fixture.store.canaries(), fixture.measured()), (2, (2, 1)));
}

#[tokio::test(start_paused = true)]
async fn read_only_store_gets_no_canary_until_a_reconnect() {
    let fixture = fixture_with(with_canaries).await;
    fixture.refuse_canaries(CanaryError::ReadOnly("as configured".to_owned()));
    sleep(Duration::from_secs(15)).await;
    assert_eq!(fixture.instance.standing().write_path, TierState::None);
    fixture.store.tune(|channel| channel.refuses_canaries = None);
    sleep(Duration::from_mins(1)).await;
    assert_eq!((fixture.store.canaries(), fixture.measured()), (0, (0, 0)));
    fixture.store.cut();
    sleep(Duration::from_secs(15)).await;
    assert_eq!((fixture.store.canaries(), fixture.measured()), (1, (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn canaries_resume_after_an_outage() {
    let fixture = fixture_with(with_canaries).await;
    fixture.store.set(Mood::Fails(StoreErrorKind::Unreachable));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(fixture.measured(), (0, 0));
    fixture.store.set(Mood::Answers);
    sleep(Duration::from_secs(15)).await;
    assert!(fixture.measured().0 >= 1);
}

#[tokio::test(start_paused = true)]
async fn failed_canary_is_retried_soon() {
    let fixture = fixture_with(with_canaries).await;
    fixture.refuse_canaries(failing(StoreErrorKind::Saturated));
    sleep(Duration::from_secs(15)).await;
    fixture.store.tune(|channel| channel.refuses_canaries = None);
    sleep(Duration::from_secs(2)).await;
    assert_eq!((fixture.store.canaries(), fixture.measured()), (1, (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn canary_that_timed_out_is_measured_if_it_arrives() {
    let fixture = fixture_with(with_canaries).await;
    fixture.refuse_canaries(failing(StoreErrorKind::Timeout));
    sleep(Duration::from_secs(15)).await;
    assert_eq!((fixture.store.canaries(), fixture.measured()), (1, (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn held_lock_and_its_release_are_noticed_within_two_canaries() {
    let fixture = fixture_with(with_canaries).await;
    TierWatch::new(Dependency::Store, fixture.instance.clone(), Clock::System).observe(Ok(()));
    assert_eq!(fixture.write_path(), "unknown");
    sleep(Duration::from_secs(12)).await;
    assert_eq!(fixture.write_path(), "ok");

    fixture.refuse_canaries(failing(StoreErrorKind::Blocked));
    sleep(Duration::from_secs(13)).await;
    let standing = fixture.instance.standing();
    assert_eq!((fixture.write_path(), standing.state), ("blocked", InstanceState::Degraded));
    assert!(!fixture.guarded.in_doubt(), "lookups are not affected");

    fixture.store.tune(|channel| channel.refuses_canaries = None);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        (fixture.write_path(), fixture.instance.standing().state),
        ("ok", InstanceState::Normal)
    );
}

#[tokio::test(start_paused = true)]
async fn lock_holder_that_lets_other_changes_through_is_no_failure() {
    let fixture = fixture_with(with_canaries).await;
    sleep(Duration::from_secs(12)).await;
    fixture.refuse_canaries(failing(StoreErrorKind::Blocked));
    for number in 1..=60 {
        fixture.store.announce(100 + number, Digest::sha256_of(b"any"), ChangeKind::Created);
        sleep(Duration::from_millis(500)).await;
        assert_eq!(fixture.write_path(), "ok", "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn store_that_takes_no_changes_fails_with_its_cause() {
    let fixture = fixture_with(with_canaries).await;
    fixture.refuse_canaries(failing(StoreErrorKind::Unreachable));
    sleep(Duration::from_secs(13)).await;
    let TierState::Down { cause, detail, .. } = fixture.instance.standing().write_path else {
        panic!("{}", fixture.write_path());
    };
    assert_eq!((fixture.write_path(), cause), ("failing", StoreErrorKind::Unreachable));
    assert_eq!(&*detail, "pid 123 (psql)");
}

#[tokio::test(start_paused = true)]
async fn canary_waits_for_a_permit_at_a_busy_store() {
    let fixture = fixture_with(with_canaries).await;
    let mut places = Vec::new();
    for _ in 0..fixture.guarded.max_in_flight() {
        places.push(fixture.guarded.acquire(Instant::now()).await.unwrap());
    }
    sleep(Duration::from_secs(12)).await;
    assert_eq!(fixture.store.canaries(), 0);
    places.pop();
    sleep(AT_ONCE).await;
    assert_eq!((fixture.store.canaries(), fixture.write_path()), (1, "ok"));
}
