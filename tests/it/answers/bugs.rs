//! INTERNAL: what a caller is told about a bug, and what a bug leaves behind.

use std::sync::Arc;

use jiff::Timestamp;
use keystead::{
    app::{Opened, open_store},
    cache::{Cached, Coverage, Memory},
    check::Checker,
    fill::{Fill, Parts},
    guard::Guarded,
    key::{Action, Digest, KeyId, KeyRecord, NewKey, Successor},
    ladder::Warmth,
    store::{
        AnyFollower, AnyStore, Lookup, Page, Provenance, Store, StoreError, StoredKey, WriteError,
    },
    suspect::Suspicion,
    tasks::Tasks,
    telemetry::{Exposition, Metrics},
    time::Clock,
    transport::{Admission, AuthzService, Listener, Protocol},
    usage::use_log,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code::{Internal, Unavailable},
    transport::Channel,
};

use super::{counted_once, is_row};
use crate::harness::{
    admin::Scrape,
    app::{Connects, channel_to, check_over, presenting},
    backend::{Backend, Embedded},
    beside, eventually,
    keys::{Keys, of_acme},
    refusal::Refusal,
};

/// A store with a bug in its lookups: they panic for one digest and never end
/// for another.
#[derive(Debug)]
struct Buggy {
    store: AnyStore,
    panics_for: Digest,
    hangs_for: Digest,
}

impl Store for Buggy {
    type Follower = AnyFollower;

    async fn find(&self, digests: &[Digest]) -> Result<Lookup, StoreError> {
        assert!(!digests.contains(&self.panics_for), "as it was told");
        if digests.contains(&self.hangs_for) {
            std::future::pending::<()>().await;
        }
        self.store.find(digests).await
    }

    async fn follow(&self) -> Result<Option<AnyFollower>, StoreError> {
        self.store.follow().await
    }

    async fn canary(&self, token: &Digest) -> Result<(), StoreError> {
        self.store.canary(token).await
    }

    async fn get(&self, id: &KeyId) -> Result<Option<KeyRecord>, StoreError> {
        self.store.get(id).await
    }

    async fn list(&self, page: &Page) -> Result<Vec<StoredKey>, StoreError> {
        self.store.list(page).await
    }

    async fn insert(&self, keys: &[NewKey], by: &Provenance) -> Result<(), WriteError> {
        self.store.insert(keys, by).await
    }

    async fn act(
        &self,
        id: &KeyId,
        action: Action,
        successor: Option<&Successor>,
        by: &Provenance,
    ) -> Result<KeyRecord, WriteError> {
        self.store.act(id, action, successor, by).await
    }

    async fn touch(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
        self.store.touch(uses).await
    }
}

/// The tiers on a store with a bug, without what runs behind requests.
struct Composed {
    channel: Channel,
    connects: Connects,
    exposition: Exposition,
    cut_off: CancellationToken,
}

impl Composed {
    async fn on(embedded: &Embedded, panics_for: Digest, hangs_for: Digest) -> Self {
        let config = embedded.config();
        let clock = Clock::System;
        let (metrics, exposition) = Metrics::new().unwrap();
        let Opened { store, ring, tasks } = open_store(&config).await.unwrap();
        let store = Buggy { store, panics_for, hangs_for };
        let store =
            Arc::new(Guarded::new(store, config.store.guard, Arc::clone(&metrics), clock.clone()));
        let suspicion = Arc::new(Suspicion::new(config.suspect));
        let coverage = Arc::new(Coverage::new(config.feed.grace()));
        let memory = Memory::new(config.cache, coverage, Arc::clone(&suspicion), clock.clone());
        let memory = Arc::new(memory);
        let parts = Parts {
            memory: Arc::clone(&memory),
            suspicion,
            store: Arc::clone(&store),
            tasks,
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
        };
        let fill = Fill::new(config.fill, config.check.timeout, parts);
        let warmth = Arc::new(Warmth::new(clock.monotonic()));
        let metrics_of_cache = Arc::clone(&metrics);
        let cached =
            Cached::new(memory, config.cache, metrics_of_cache, warmth, clock.clone(), fill);
        let (uses, writer) = use_log(store, clock.clone());
        beside(writer.run(CancellationToken::new()));
        let checker = Checker::new(ring, cached, clock.clone());
        let cut_off = CancellationToken::new();
        let admission = Admission::new(checker, uses, config.check, cut_off.clone(), clock.clone());
        let max_message_bytes = config.grpc.max_message_bytes.get();
        let routes = AuthzService::routes(admission, metrics, clock, max_message_bytes);
        let routes = routes.prepare().into_axum_router();
        let places = config.grpc.max_connections;
        let server = Listener::bind(config.listen.grpc, places).await.unwrap();
        let address = server.local_addr().unwrap();
        let protocol = Protocol::Grpc(config.grpc);
        beside(server.serve(protocol, routes, Tasks::default(), CancellationToken::new()));
        let (channel, connects) = channel_to(address).await;
        Self { channel, connects, exposition, cut_off }
    }

    fn scrape(&self) -> Scrape {
        Scrape::read(&String::from_utf8(self.exposition.text().unwrap()).unwrap())
    }
}

#[tokio::test]
async fn panic_in_a_lookup_fails_its_own_check_and_nothing_else() {
    let embedded = Embedded::start().await;
    let keys = Keys::open(&embedded.config()).await;
    let (good, bad) = (keys.create(of_acme()).await, keys.create(of_acme()).await);
    let composed = Composed::on(&embedded, bad.digest, Digest::sha256_of(b"")).await;
    // Again and again: neither a place at the store nor one in the queue is lost.
    for _ in 0..100 {
        let before = composed.scrape();
        let asked = check_over(composed.channel.clone(), presenting(&bad.text)).await;
        is_row(&Refusal::of(&asked.unwrap_err()), (Internal, "INTERNAL"), &[]);
        counted_once(&before, &composed.scrape(), (Internal, "INTERNAL"));
    }
    let answer = check_over(composed.channel.clone(), presenting(&good.text)).await.unwrap();
    assert_eq!(answer.key_id, good.id.as_str());
    assert_eq!(composed.connects.count(), 1, "the connection was lost");
}

#[tokio::test]
async fn check_that_is_cut_off_is_counted_as_draining() {
    let embedded = Embedded::start().await;
    let key = Keys::open(&embedded.config()).await.create(of_acme()).await;
    let composed = Composed::on(&embedded, Digest::sha256_of(b""), key.digest).await;
    let before = composed.scrape();
    let waiting = beside(check_over(composed.channel.clone(), presenting(&key.text)));
    eventually("the lookup is at the store", async || {
        (composed.scrape().get("keystead_store_in_flight") > 0.5).then_some(())
    })
    .await;
    composed.cut_off.cancel();
    is_row(&Refusal::of(&waiting.await.unwrap().unwrap_err()), (Unavailable, "DRAINING"), &[]);
    counted_once(&before, &composed.scrape(), (Unavailable, "DRAINING"));
}
