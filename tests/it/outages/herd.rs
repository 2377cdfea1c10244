//! An empty cache and everybody at once.

use std::{num::NonZeroUsize, time::Duration};

use futures::future::join_all;
use tonic::{Code, transport::Channel};

use super::site::Site;
use crate::harness::{
    app::{Service, channel_to, check_over, presenting},
    keys::Key,
    load::Tally,
    observer::{Observer, counting, lookups_carried_out},
    refusal::Refusal,
};

/// Distinct keys, all checked at once.
const HERD: usize = 10_000;

/// Connections that they come over.
const CONNECTIONS: usize = 20;

/// Places at the store.
const PLACES: usize = 4;

/// How long a query takes at least.
const NAP: Duration = Duration::from_millis(50);

/// Queue length: callers beyond it must get a retry delay.
const QUEUE: usize = HERD * 3 / 4;

/// How many keys a query must be about at least, on average.
const KEYS_A_QUERY: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_herd_is_answered_or_gets_a_retry_delay_with_few_queries() {
    // Long enough that a busy machine refuses nobody in the store's stead.
    let mut site = Site::with(Duration::from_secs(20), counting()).await;
    site.config.fill.max_queued = NonZeroUsize::new(QUEUE).unwrap();
    site.config.store.guard.max_in_flight = NonZeroUsize::new(PLACES).unwrap();
    let keys = site.keys(HERD).await;
    let service = Service::ready(&site.config).await;
    let channels = join_all((0..CONNECTIONS).map(|_| channel_to(service.grpc))).await;
    let channels: Vec<Channel> = channels.into_iter().map(|(channel, _)| channel).collect();
    // So that the server is seen at work.
    site.server.slow_by(NAP).await;
    let observer = Observer::of(site.postgres());
    let queries = async || service.admin.metric("keystead_store_queries_total").await;
    let (before, carried_out_before) =
        (queries().await, lookups_carried_out(site.postgres()).await);

    let (first, refused, hint) = at_once(&channels, &keys).await;
    let answered = first.of_code(Code::Ok);
    assert_eq!(answered + first.of_code(Code::Unavailable), HERD, "{first:?}");
    tokio::time::sleep(hint).await;
    let (second, refused, _) = at_once(&channels, &refused).await;
    assert_eq!(refused.len(), 0, "{second:?}");

    let asked = queries().await - before;
    let carried_out = lookups_carried_out(site.postgres()).await - carried_out_before;
    let most = observer.most();
    println!("{answered} of {HERD} answered at once, with {asked} queries; {most:?}");
    let bound = u32::try_from(HERD / KEYS_A_QUERY).unwrap();
    assert!(asked < f64::from(bound), "{asked} queries");
    assert!(carried_out < u64::from(bound), "{carried_out} lookups at the server");
    // What is seen of it are samples, between which a busy machine may miss the most.
    assert!((2..=PLACES).contains(&most.lookups), "{most:?}");
}

/// Asks about all keys at the same time. Returns how that ended, who was refused,
/// and the longest time that somebody was asked to stay away.
async fn at_once(channels: &[Channel], keys: &[Key]) -> (Tally, Vec<Key>, Duration) {
    let channels = channels.iter().cycle();
    let asking = keys.iter().zip(channels).map(|(key, channel)| async move {
        let outcome = check_over(channel.clone(), presenting(&key.text)).await;
        outcome.map_err(|status| (status, key))
    });
    let (mut tally, mut refused, mut longest) = (Tally::default(), Vec::new(), Duration::ZERO);
    for outcome in join_all(asking).await {
        tally.add(&outcome.as_ref().map_err(|(status, _)| status.clone()).cloned());
        if let Err((status, key)) = outcome {
            longest = longest.max(Refusal::of(&status).retry_after.unwrap_or_default());
            refused.push(key.clone());
        }
    }
    (tally, refused, longest)
}
