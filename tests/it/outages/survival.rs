//! Every fault, its whole way: it strikes while callers check continuously, holds,
//! and ends.
//!
//! What is in memory has short windows, so that all parts of the life of an entry
//! are served while the store is down.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use keystead::transport::pb::Freshness;
use tonic::Code;

use super::{
    RECOVERY,
    fault::Fault,
    site::{Site, until_answered},
};
use crate::harness::{
    app::{Service, presenting},
    eventually,
    keys::{Key, Keys},
    load::{KeyClass, Load, Plan, Record},
    observer::{Observer, counting, lookups_carried_out},
    proxy::Conduct,
    refusal::Refusal,
};

/// As it is by default.
const QUERY_TIMEOUT: Duration = Duration::from_millis(100);

/// Places at the store.
const PLACES: usize = 4;

/// How long a fault holds at least.
const HOLDS: Duration = Duration::from_secs(2);

/// Keys that were seen before the fault.
const SEEN: usize = 50;

/// Keys that were not: more than are answered before it strikes.
const UNSEEN: usize = 2000;

/// Makes a test of each fault.
macro_rules! survived {
    ($($name:ident: $fault:expr,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                survived($fault).await;
            }
        )*
    };
}

survived! {
    killed_server_denies_nobody_and_is_survived: Fault::Killed,
    stopped_server_denies_nobody_and_is_survived: Fault::Stopped,
    refused_connections_deny_nobody_and_are_survived: Fault::Network(Conduct::Refuse),
    reset_connections_deny_nobody_and_are_survived: Fault::Network(Conduct::Reset),
    black_hole_denies_nobody_and_is_survived: Fault::Network(Conduct::Swallow),
    slow_network_denies_nobody_and_is_survived: Fault::SLOW,
    connections_that_end_again_and_again_deny_nobody_and_are_survived: Fault::Terminated,
    renamed_table_denies_nobody_and_is_survived: Fault::TableRenamed,
    missing_rights_deny_nobody_and_are_survived: Fault::RightsRevoked,
    used_up_connections_deny_nobody_and_are_survived: Fault::Crowded,
    renamed_database_denies_nobody_and_is_survived: Fault::DatabaseRenamed,
    killed_primary_denies_nobody_and_its_promoted_standby_takes_over: Fault::PrimaryKilled,
    hanging_primary_denies_nobody_and_its_promoted_standby_takes_over: Fault::PrimaryStopped,
}

async fn survived(fault: Fault) {
    let mut site = site(fault).await;
    let keys = site.keys(SEEN + UNSEEN).await;
    let (seen, unseen) = keys.split_at(SEEN);
    let (last, unseen) = unseen.split_last().unwrap();
    let service = warm(&site, seen).await;
    let observers: Vec<_> = site.servers().map(Observer::of).collect();
    let before = service.admin.scrape().await;

    let mut load = Load::start(&service, plan(seen, unseen), "before");
    eventually("there is load", async || (load.count() > 100).then_some(())).await;
    load.phase("during");
    let struck = Instant::now();
    fault.strike(&mut site).await;
    if fault.silences() {
        is_degraded_but_ready(&service, fault).await;
        let stale = async || (load.served(Freshness::StaleIfError) > SEEN).then_some(());
        eventually("entries outlive their windows", stale).await;
    }
    eventually("it has held for long enough", async || (struck.elapsed() > HOLDS).then_some(()))
        .await;

    fault.mend(&mut site).await;
    load.phase("after");
    all_is_well_again(&site, &service, last).await;
    let record = load.stop().await;

    warm_keys_noticed_nothing(&record, fault);
    unseen_keys_get_answers_or_store_errors(&site, &record, fault);
    let masked = service.admin.scrape().await;
    let masked = masked.changes_since(&before, "keystead_masked_failures_total");
    assert!(!fault.silences() || !masked.is_empty(), "{masked:?}");
    for most in observers.iter().map(Observer::most) {
        // Its own, and one of the feed.
        assert!(most.lookups <= PLACES && most.statements <= PLACES + 1, "{most:?}");
    }
    assert_ne!(lookups_carried_out(site.servers().last().unwrap()).await, 0);
}

async fn site(fault: Fault) -> Site {
    let mut site = match fault {
        Fault::PrimaryKilled | Fault::PrimaryStopped => {
            Site::with_standby(QUERY_TIMEOUT, counting()).await
        }
        _ => Site::with(QUERY_TIMEOUT, counting()).await,
    };
    site.config.store.guard.max_in_flight = NonZeroUsize::new(PLACES).unwrap();
    site.config.cache.fresh_for = Duration::from_millis(300);
    site.config.cache.feed_fresh_for = Duration::from_millis(300);
    site.config.cache.revalidate_for = Duration::from_millis(500);
    site
}

fn plan(seen: &[Key], unseen: &[Key]) -> Plan {
    let (warm, unseen) = (seen.to_vec(), unseen.to_vec());
    Plan { warm, unseen, callers: 10, rest: Duration::from_millis(20) }
}

/// A service that has seen some of the keys of its site.
async fn warm(site: &Site, seen: &[Key]) -> Service {
    let service = Service::ready(&site.config).await;
    for key in seen {
        until_answered(&service, key).await;
    }
    service
}

/// What an operator sees.
async fn is_degraded_but_ready(service: &Service, fault: Fault) {
    let (_, expected) = fault.row();
    let status = eventually("the outage and its cause are shown", async || {
        let status = service.admin.status().await;
        let cause = status["dominant_cause"]["cause"].as_str();
        // A server that is silent is a time-out to one call, and out of reach
        // to the next, which finds no connection.
        let silent = expected == "timeout" && cause == Some("unreachable");
        (status["state"] == "degraded" && (cause == Some(expected) || silent)).then_some(status)
    })
    .await;
    assert_eq!(status["tiers"]["store"]["state"], "down", "{status}");
    assert_eq!(service.admin.get("/readyz").await.status, 200);
}

/// In time, and with no help.
async fn all_is_well_again(site: &Site, service: &Service, unseen: &Key) {
    let mended = Instant::now();
    until_answered(service, unseen).await;
    eventually("the service says that all is well", async || {
        (service.admin.status().await["state"] == "normal").then_some(())
    })
    .await;
    // The store's own answer counts again.
    let unknown = Keys::open(&site.config).await.draw();
    let refusal = eventually("an unknown key is denied", async || {
        let status = service.check(presenting(unknown.key.expose())).await.unwrap_err();
        (status.code() != Code::Unavailable).then(|| Refusal::of(&status))
    });
    assert_eq!(refusal.await.reason, "KEY_UNKNOWN");
    let took = mended.elapsed();
    assert!(took < RECOVERY, "all was well only after {took:?}");
}

/// Every one was answered at all times, without waiting for the store.
fn warm_keys_noticed_nothing(record: &Record, fault: Fault) {
    let all = record.all(KeyClass::Warm);
    assert_eq!(all.tally.of_code(Code::Ok), all.count(), "{:?}", all.tally);
    let during = record.during("during", KeyClass::Warm);
    if fault.silences() {
        for freshness in [Freshness::Revalidating, Freshness::StaleIfError] {
            assert_ne!(during.served(freshness), 0, "{during:?}");
        }
    }
    // The median: in a slow build beside other tests, some wait longer than that
    // for a processor. Waiting for the store would take all of them as long.
    let median = during.permille(500);
    assert!(median < QUERY_TIMEOUT, "{median:?}");
    for second in record.by_second("during", KeyClass::Warm) {
        assert_ne!(second.count(), 0, "for a second nobody was answered");
    }
}

/// None was denied; each unanswered one got a store error in time.
fn unseen_keys_get_answers_or_store_errors(site: &Site, record: &Record, fault: Fault) {
    let all = record.all(KeyClass::Unseen);
    assert_eq!(all.denials(), 0, "{:?}", all.tally);
    let of_the_store = ["STORE_UNREACHABLE", "STORE_TIMEOUT", "STORE_SATURATED", "BREAKER_OPEN"];
    for (_, reason) in all.tally.0.keys().filter(|(code, _)| *code != Code::Ok as i32) {
        assert!(of_the_store.contains(&reason.as_str()), "{:?}", all.tally);
    }
    let during = record.during("during", KeyClass::Unseen);
    let (reason, _) = fault.row();
    let told = during.tally.0.contains_key(&(Code::Unavailable as i32, reason.to_owned()));
    assert!(told || !fault.silences(), "{:?}", during.tally);
    let slowest = during.permille(1000);
    assert!(slowest < site.patience(), "{slowest:?}");
}
