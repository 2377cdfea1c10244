//! Every fault, its whole way: it strikes under load, lasts, and ends.

use std::time::Instant;

use tonic::Code;

use super::{
    RECOVERY,
    fault::Fault,
    site::{Site, load, until_answered},
};
use crate::harness::{
    app::{Service, presenting},
    eventually,
    keys::{Key, Keys},
    proxy::Conduct,
    refusal::Refusal,
};

/// Keys that were never seen before the fault.
const UNSEEN: usize = 300;

/// Keys that were seen before it.
const SEEN: usize = 20;

/// Makes a test of each fault.
macro_rules! survived {
    ($($name:ident: $fault:expr,)*) => {
        $(
            #[tokio::test]
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
    renamed_table_denies_nobody_and_is_survived: Fault::TableRenamed,
    missing_rights_deny_nobody_and_are_survived: Fault::RightsRevoked,
    used_up_connections_deny_nobody_and_are_survived: Fault::Crowded,
    renamed_database_denies_nobody_and_is_survived: Fault::DatabaseRenamed,
}

async fn survived(fault: Fault) {
    let mut site = Site::new(fault.query_timeout()).await;
    let keys = site.keys(SEEN + UNSEEN).await;
    let (seen, unseen) = keys.split_at(SEEN);
    let service = Service::ready(&site.config).await;
    for key in seen {
        until_answered(&service, key).await;
    }

    fault.strike(&mut site).await;
    let (first, unseen) = unseen.split_first().unwrap();
    is_told_why(&site, &service, first, fault).await;
    nobody_is_denied(&site, &service, seen, unseen).await;
    is_degraded_but_ready(&service, fault).await;

    fault.mend(&mut site).await;
    let mended = Instant::now();
    until_answered(&service, first).await;
    eventually("the service says that all is well", async || {
        (service.admin.status().await["ladder"] == "normal").then_some(())
    })
    .await;
    let took = mended.elapsed();
    assert!(took < RECOVERY, "all was well only after {took:?}");
    for key in unseen {
        until_answered(&service, key).await;
    }
    // The store's own answer counts again.
    let unknown = Keys::open(&site.config).await.draw();
    let refusal = eventually("an unknown key is denied", async || {
        let status = service.check(presenting(unknown.key.expose())).await.unwrap_err();
        (status.code() != Code::Unavailable).then(|| Refusal::of(&status))
    });
    assert_eq!(refusal.await.reason, "KEY_UNKNOWN");
}

/// An unseen key alone is told the right reason in time.
async fn is_told_why(site: &Site, service: &Service, key: &Key, fault: Fault) {
    let asked = Instant::now();
    let status = service.check_key(key).await.unwrap_err();
    let took = asked.elapsed();
    let refusal = Refusal::of(&status);
    refusal.is_honest();
    let (reason, cause) = fault.row();
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, reason), "{refusal:?}");
    assert_eq!(refusal.facts["cause"], cause);
    assert!(took < site.patience(), "told only after {took:?}");
}

/// Under load, every unseen key is told UNAVAILABLE for the store's sake, and
/// every key that was seen is answered, all of them in time.
async fn nobody_is_denied(site: &Site, service: &Service, seen: &[Key], unseen: &[Key]) {
    let seen: Vec<Key> = seen.iter().cycle().take(unseen.len()).cloned().collect();
    let (refused, answered) = tokio::join!(load(service, unseen), load(service, &seen));
    for (tally, slowest) in [&refused, &answered] {
        for code in [Code::Unauthenticated, Code::PermissionDenied] {
            assert_eq!(tally.of_code(code), 0, "{tally:?}");
        }
        assert!(*slowest < site.patience(), "{slowest:?}: {tally:?}");
    }
    assert_eq!(answered.0.of_code(Code::Ok), seen.len(), "{answered:?}");
    assert_eq!(refused.0.of_code(Code::Unavailable), unseen.len(), "{refused:?}");
    let of_the_store = ["STORE_UNREACHABLE", "STORE_TIMEOUT", "STORE_SATURATED"];
    for (_, reason) in refused.0.0.keys() {
        assert!(of_the_store.contains(&reason.as_str()), "{refused:?}");
    }
}

async fn is_degraded_but_ready(service: &Service, fault: Fault) {
    let (_, expected) = fault.row();
    let status = eventually("the outage and its cause are shown", async || {
        let status = service.admin.status().await;
        let cause = status["dominant_cause"]["cause"].as_str();
        // A server that is silent is a time-out to one call, and out of reach
        // to the next, which finds no connection.
        let silent = expected == "timeout" && cause == Some("unreachable");
        (status["ladder"] == "degraded" && (cause == Some(expected) || silent)).then_some(status)
    })
    .await;
    assert_eq!(status["tiers"]["store"]["state"], "down", "{status}");
    assert_eq!(service.admin.get("/readyz").await.status, 200);
}
