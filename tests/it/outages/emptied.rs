//! Keys that are gone: all of them without a word, as from a wrong or emptied
//! database, and single ones.

use std::time::{Duration, Instant};

use keystead::transport::pb::Freshness;
use tonic::Code;

use super::{
    ALLOWANCE, RECOVERY,
    fault::Fault,
    site::{Site, until_answered},
};
use crate::harness::{
    app::{Service, presenting},
    eventually,
    keys::{Key, Keys},
    load::{KeyClass, Load, Plan},
    refusal::Refusal,
};

/// Keys that were seen before the fault.
const SEEN: usize = 50;

/// Keys that were not: more than are answered before it strikes.
const UNSEEN: usize = 2000;

/// How soon an emptied store is suspect: a probe finds it.
const SUSPECT_WITHIN: Duration = Duration::from_secs(2);

/// How long the keys are gone.
const HOLDS: Duration = Duration::from_secs(3);

/// How long a single missing key is doubted.
const CONFIRM_FOR: Duration = Duration::from_secs(1);

const FRESH_FOR: Duration = Duration::from_millis(200);

/// Seen keys are checked again all the time.
async fn site() -> Site {
    let mut site = Site::new(Duration::from_secs(5)).await;
    site.config.cache.fresh_for = FRESH_FOR;
    site.config.cache.feed_fresh_for = FRESH_FOR;
    site.config.cache.absent_for = Duration::from_mins(10);
    site.config.suspect.confirm_for = CONFIRM_FOR;
    site
}

async fn warm(site: &Site, seen: &[Key]) -> Service {
    let service = Service::ready(&site.config).await;
    for key in seen {
        until_answered(&service, key).await;
    }
    service
}

/// Why a key is refused.
async fn reason(service: &Service, text: &str) -> String {
    Refusal::of(&service.check(presenting(text)).await.unwrap_err()).reason
}

fn unknown(keys: &Keys) -> String {
    keys.draw().key.expose().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_table_denies_nobody_and_is_believed_again_when_the_rows_are_back() {
    let mut site = site().await;
    let keys = site.keys(SEEN + UNSEEN).await;
    let (warm_keys, unseen) = keys.split_at(SEEN);
    let service = warm(&site, warm_keys).await;
    let others = Keys::open(&site.config).await;
    let known_absent = unknown(&others);
    assert_eq!(reason(&service, &known_absent).await, "KEY_UNKNOWN");

    let plan = Plan {
        warm: warm_keys.to_vec(),
        unseen: unseen.to_vec(),
        callers: 10,
        rest: Duration::from_millis(20),
    };
    let mut load = Load::start(&service, plan, "before");
    eventually("there is load", async || (load.count() > 100).then_some(())).await;
    load.phase("during");
    let struck = Instant::now();
    Fault::Emptied.strike(&mut site).await;
    let truncated = Instant::now();
    assert_eq!(reason(&service, &unknown(&others)).await, "STORE_SUSPECT");
    eventually("what was absent before is no longer believed either", async || {
        (reason(&service, &known_absent).await == "STORE_SUSPECT").then_some(())
    })
    .await;
    let took = truncated.elapsed();
    assert!(took < SUSPECT_WITHIN + ALLOWANCE, "it was suspect only after {took:?}");
    eventually("it has held for long enough", async || (struck.elapsed() > HOLDS).then_some(()))
        .await;
    assert_eq!(service.admin.get("/readyz").await.status, 200);

    Fault::Emptied.mend(&mut site).await;
    load.phase("after");
    let mended = Instant::now();
    eventually("an unknown key is unknown again", async || {
        (reason(&service, &unknown(&others)).await == "KEY_UNKNOWN").then_some(())
    })
    .await;
    let took = mended.elapsed();
    assert!(took < RECOVERY, "the store was believed only after {took:?}");
    eventually("unseen keys are answered", async || {
        (load.count_now(KeyClass::Unseen, Code::Ok) > 0).then_some(())
    })
    .await;
    let record = load.stop().await;

    let warm = record.all(KeyClass::Warm);
    assert_eq!(warm.tally.of_code(Code::Ok), warm.count(), "{:?}", warm.tally);
    let unseen = record.all(KeyClass::Unseen);
    assert_eq!(unseen.denials(), 0, "{:?}", unseen.tally);
    let during = record.during("during", KeyClass::Unseen);
    let suspect = (Code::Unavailable as i32, "STORE_SUSPECT".to_owned());
    assert!(during.tally.0.contains_key(&suspect), "{:?}", during.tally);
    assert_ne!(record.during("during", KeyClass::Warm).served(Freshness::StaleIfError), 0);
}

#[tokio::test]
async fn truncated_table_is_noticed_by_a_service_that_knows_five_keys_and_no_more() {
    let mut site = site().await;
    let keys = site.keys(5).await;
    let service = warm(&site, &keys).await;
    let others = Keys::open(&site.config).await;
    Fault::Emptied.strike(&mut site).await;
    let struck = Instant::now();
    while struck.elapsed() < HOLDS {
        assert_eq!(reason(&service, &unknown(&others)).await, "STORE_SUSPECT");
        for key in &keys {
            service.check_key(key).await.expect("it was known");
        }
    }
    Fault::Emptied.mend(&mut site).await;
    eventually("an unknown key is unknown again", async || {
        (reason(&service, &unknown(&others)).await == "KEY_UNKNOWN").then_some(())
    })
    .await;
}

#[tokio::test]
async fn truncated_table_is_believed_where_the_suspicion_is_turned_off() {
    let mut site = site().await;
    site.config.suspect.enabled = false;
    let keys = site.keys(20).await;
    let service = warm(&site, &keys).await;
    Fault::Emptied.strike(&mut site).await;
    for key in &keys {
        eventually("it is unknown", async || match service.check_key(key).await {
            Ok(_) => None,
            Err(status) => (Refusal::of(&status).reason == "KEY_UNKNOWN").then_some(()),
        })
        .await;
    }
}

#[tokio::test]
async fn deleted_key_is_unknown_as_soon_as_its_deletion_is_announced() {
    let mut site = site().await;
    // Nothing but the record of the deletion can end it.
    site.config.cache.feed_fresh_for = Duration::from_hours(1);
    site.config.suspect.confirm_for = Duration::from_hours(1);
    let keys = site.keys(2).await;
    let service = warm(&site, &keys).await;
    site.postgres().sql(&delete(&keys[0])).await;
    let deleted = Instant::now();
    eventually("it is unknown", async || {
        let status = service.check_key(&keys[0]).await.err()?;
        assert_eq!(Refusal::of(&status).reason, "KEY_UNKNOWN");
        Some(())
    })
    .await;
    assert!(deleted.elapsed() < ALLOWANCE, "{:?}", deleted.elapsed());
    until_answered(&service, &keys[1]).await;
}

#[tokio::test]
async fn key_that_vanished_from_a_table_without_changes_goes_on_until_that_is_confirmed() {
    let mut site = site().await;
    site.config.store.relation = Some("keystead.api_keys".to_owned());
    let keys = site.keys(20).await;
    let service = warm(&site, &keys).await;
    let vanished = Instant::now();
    site.postgres().sql(&delete(&keys[0])).await;
    let mut doubted = 0;
    eventually("it is unknown", async || match service.check_key(&keys[0]).await {
        Ok(answer) => {
            doubted += usize::from(answer.evidence?.freshness() == Freshness::StaleIfError);
            None
        }
        Err(status) => {
            assert_eq!(Refusal::of(&status).reason, "KEY_UNKNOWN");
            Some(())
        }
    })
    .await;
    let took = vanished.elapsed();
    assert_ne!(doubted, 0, "it was believed at once");
    assert!((CONFIRM_FOR..CONFIRM_FOR + FRESH_FOR + ALLOWANCE).contains(&took), "{took:?}");
    for key in &keys[1..] {
        service.check_key(key).await.expect("the others go on");
    }
    let others = Keys::open(&site.config).await;
    assert_eq!(reason(&service, &unknown(&others)).await, "KEY_UNKNOWN");
}

fn delete(key: &Key) -> String {
    format!("DELETE FROM keystead.api_keys WHERE id = '{}'", key.id.as_str())
}
