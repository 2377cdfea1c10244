//! What the server sees of a herd.

use std::{num::NonZeroUsize, time::Duration};

use tonic::Code;

use super::site::{Site, load};
use crate::harness::{app::Service, backend::Backend, beside};

#[tokio::test]
async fn server_never_sees_more_lookups_than_may_be_in_flight_and_one_connection_for_the_feed() {
    const PLACES: usize = 3;
    // None of them gives up, so that all of the herd waits at the same time.
    let mut site = Site::new(Duration::from_secs(20)).await;
    site.config.store.guard.max_in_flight = NonZeroUsize::new(PLACES).unwrap();
    // So that all of them are needed.
    site.config.fill.batch_max = NonZeroUsize::MIN;
    let keys = site.keys(600).await;
    let service = Service::ready(&site.config).await;

    let client = site.postgres().client().await;
    let (counted, most) = tokio::sync::watch::channel(0);
    let counting = beside(async move {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'keystead'";
        loop {
            let row = client.query_one(count, &[]).await.unwrap();
            let now = usize::try_from(row.get::<_, i64>(0)).unwrap();
            counted.send_modify(|most| *most = now.max(*most));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    // First they pile up behind a lock, then all go on.
    site.server.hang().await;
    let herd = load(&service, &keys);
    let unlocking = async {
        service.admin.until_metric("keystead_store_in_flight", 3.0).await;
        site.server.go_on().await;
    };
    let ((tally, _), ()) = tokio::join!(herd, unlocking);
    counting.abort();

    assert_eq!(tally.of_code(Code::Ok), keys.len(), "{tally:?}");
    let most = *most.borrow();
    assert!((1..=PLACES + 1).contains(&most), "the server saw {most} connections");
}
