//! A store that fails under load opens the breaker, which closes again without help.

use std::{num::NonZeroUsize, time::Instant};

use tonic::Code;

use super::{
    RECOVERY,
    fault::Fault,
    site::{Site, load, until_answered},
};
use crate::harness::{app::Service, eventually, proxy::Conduct};

const UNSEEN: usize = 300;

/// How many calls try the store each time.
const PROBES: f64 = 3.0;

#[tokio::test]
async fn store_that_fails_under_load_opens_the_breaker_which_closes_without_any_check() {
    for fault in [Fault::Killed, Fault::Network(Conduct::Swallow), Fault::TableRenamed] {
        let mut site = Site::new(fault.query_timeout()).await;
        // So that a few callers make many calls.
        site.config.fill.batch_max = NonZeroUsize::MIN;
        let keys = site.keys(UNSEEN).await;
        let service = Service::ready(&site.config).await;
        let queries = async || service.admin.metric("keystead_store_queries_total").await;
        assert_eq!(breaker(&service).await, "closed");

        fault.strike(&mut site).await;
        eventually("the breaker opens", async || {
            let (tally, _) = load(&service, &keys).await;
            assert_eq!(tally.of_code(Code::Unavailable), UNSEEN, "{fault:?}: {tally:?}");
            (changes(&service, "open").await > 0.5).then_some(())
        })
        .await;

        // From now on only those are not refused at once who try the store.
        let before = (queries().await, changes(&service, "half_open").await);
        let (tally, _) = load(&service, &keys).await;
        let tried = changes(&service, "half_open").await - before.1;
        let may_ask = PROBES * (tried + 1.0);
        let asked = queries().await - before.0;
        assert!(asked <= may_ask, "{fault:?}: {asked} lookups, tried {tried} times");
        let refused = tally.0.get(&(Code::Unavailable as i32, "BREAKER_OPEN".to_owned()));
        let others = UNSEEN - refused.copied().unwrap_or_default();
        assert!(
            u32::try_from(others).is_ok_and(|n| f64::from(n) <= may_ask),
            "{fault:?}: {tally:?}"
        );
        eventually("the outage is shown", async || {
            (service.admin.status().await["state"] == "degraded").then_some(())
        })
        .await;

        fault.mend(&mut site).await;
        let mended = Instant::now();
        eventually("all is well again", async || {
            let well = service.admin.status().await["state"] == "normal";
            (well && breaker(&service).await == "closed").then_some(())
        })
        .await;
        assert!(mended.elapsed() < RECOVERY, "{fault:?}: {:?}", mended.elapsed());
        until_answered(&service, &keys[0]).await;
    }
}

async fn breaker(service: &Service) -> String {
    service.admin.status().await["tiers"]["store"]["breaker"].as_str().unwrap().to_owned()
}

/// How often the breaker came into a state.
async fn changes(service: &Service, to: &str) -> f64 {
    let series = format!(r#"keystead_breaker_transitions_total{{tier="store",to="{to}"}}"#);
    service.admin.metric(&series).await
}
