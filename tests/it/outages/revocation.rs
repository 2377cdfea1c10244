//! Changes that are made while the service cannot see them.

use std::time::Instant;

use keystead::key::Action;
use tonic::Code;

use super::{
    RECOVERY,
    fault::Fault,
    site::{Site, until_answered},
};
use crate::harness::{
    app::Service, backend::Backend, eventually, keys::Keys, proxy::Conduct, refusal::Refusal,
};

#[tokio::test]
async fn key_that_was_revoked_during_an_outage_is_refused_soon_after_it() {
    for fault in [Fault::Network(Conduct::Refuse), Fault::Network(Conduct::Swallow)] {
        let mut site = Site::new(fault.query_timeout()).await;
        let keys = site.keys(2).await;
        let service = Service::ready(&site.config).await;
        for key in &keys {
            until_answered(&service, key).await;
        }
        fault.strike(&mut site).await;
        // Somebody else still reaches the store.
        let elsewhere = Keys::open(&site.server.config()).await;
        elsewhere.act(&keys[0], Action::Revoke).await;
        for key in &keys {
            service.check_key(key).await.expect("the service cannot know of the revocation yet");
        }
        fault.mend(&mut site).await;
        let mended = Instant::now();
        let refusal = eventually("it is refused", async || {
            let outcome = service.check_key(&keys[0]).await;
            outcome.err().filter(|status| status.code() != Code::Unavailable)
        })
        .await;
        assert_eq!(Refusal::of(&refusal).reason, "KEY_REVOKED");
        assert!(mended.elapsed() < RECOVERY, "{:?}", mended.elapsed());
        until_answered(&service, &keys[1]).await;
    }
}
