//! INTERNAL: the answer to a caller who meets a bug, and the bug's lasting effects.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
};

use jiff::Timestamp;
use keystead::{
    app::{Opened, open_store},
    cache::{Cached, Coverage, Memory},
    check::Checker,
    fill::{Fill, Parts},
    guard::Guarded,
    instance::Warmth,
    key::{Action, Digest, Fingerprint, KeyId, KeyRecord, NewKey, Successor},
    snapshot::Journal,
    store::{
        AnyFollower, AnyStore, CanaryError, Changes, History, KeyAdmin, Lookup, Lookups, Page,
        Provenance, SecretUse, StoreError, StoredKey, Usage, WriteError,
    },
    suspect::Suspicion,
    tasks::Tasks,
    telemetry::{Exposition, Metrics},
    time::Clock,
    transport::{
        Admission, AuthzService, Budget, Listener, Protocol, Serves, Workers, auth_routes,
    },
    usage::use_log,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code::{Internal, Unavailable},
    transport::Channel,
};

use super::{counted_once, is_row};
use crate::harness::{
    admin::{Scrape, checks_of},
    app::{Connects, channel_to, check_over, presenting},
    backend::{Backend, Embedded},
    beside, eventually,
    http::{Connection, get},
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

impl Lookups for Buggy {
    async fn find(&self, digests: &[Digest]) -> Result<Lookup, StoreError> {
        assert!(!digests.contains(&self.panics_for), "as it was told");
        if digests.contains(&self.hangs_for) {
            std::future::pending::<()>().await;
        }
        self.store.find(digests).await
    }

    async fn history(&self) -> Result<Option<History>, StoreError> {
        self.store.history().await
    }
}

impl Changes for Buggy {
    type Follower = AnyFollower;

    async fn follow(&self) -> Result<Option<AnyFollower>, StoreError> {
        self.store.follow().await
    }

    async fn canary(&self, token: &Digest) -> Result<(), CanaryError> {
        self.store.canary(token).await
    }
}

impl KeyAdmin for Buggy {
    async fn unknown_secrets(&self, known: &[Fingerprint]) -> Result<Vec<SecretUse>, StoreError> {
        self.store.unknown_secrets(known).await
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
}

impl Usage for Buggy {
    async fn touch(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
        self.store.touch(uses).await
    }
}

/// The tiers on a store with a bug, without what runs behind requests.
struct Composed {
    channel: Channel,
    connects: Connects,
    /// Address of `/auth`.
    auth: SocketAddr,
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
            journal: Journal::default(),
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
        let admission = Admission::new(checker, uses, config.check, cut_off.clone());
        let (sources, hops) = (config.credential.sources, config.forward_auth);
        let admitted = Arc::clone(&admission);
        let auth = auth_routes(admitted, &metrics, sources, hops, clock.clone());
        let auth = serve(Protocol::http1(&config.grpc), auth, &metrics).await;
        let max_message_bytes = config.grpc.max_message_bytes.get();
        let service = AuthzService::serve(admission, &metrics, clock, max_message_bytes);
        let address = serve(Protocol::Grpc(config.grpc), service, &metrics).await;
        let (channel, connects) = channel_to(address).await;
        Self { channel, connects, auth, exposition, cut_off }
    }

    fn scrape(&self) -> Scrape {
        Scrape::read(&String::from_utf8(self.exposition.text().unwrap()).unwrap())
    }
}

async fn serve(protocol: Protocol, service: impl Serves, metrics: &Arc<Metrics>) -> SocketAddr {
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (places, budget) = (NonZeroUsize::new(10).unwrap(), Budget::new(0));
    let server = Listener::bind(nowhere, places, budget, Arc::clone(metrics)).await.unwrap();
    let address = server.local_addr().unwrap();
    let (connections, never) = (Tasks::here(), CancellationToken::new());
    let workers = Workers::start("serve", NonZeroUsize::MIN).unwrap();
    beside(server.serve(protocol, service, workers, connections, never));
    address
}

#[tokio::test]
async fn panic_in_a_lookup_fails_its_own_check_and_nothing_else() {
    let embedded = Embedded::start().await;
    let keys = Keys::open(&embedded.config()).await;
    let (good, bad) = (keys.create(of_acme()).await, keys.create(of_acme()).await);
    let composed = Composed::on(&embedded, bad.digest, Digest::sha256_of(b"")).await;
    // Repeatedly: neither a permit nor a queue slot is lost.
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
async fn panic_in_a_lookup_is_a_500_of_forward_auth_and_its_connection_goes_on() {
    let embedded = Embedded::start().await;
    let keys = Keys::open(&embedded.config()).await;
    let (good, bad) = (keys.create(of_acme()).await, keys.create(of_acme()).await);
    let composed = Composed::on(&embedded, bad.digest, Digest::sha256_of(b"")).await;
    let mut connection = Connection::open(composed.auth).await;
    for (key, status) in [(&bad, 500), (&good, 200), (&bad, 500), (&good, 200)] {
        let asked = get("/auth", &[("x-api-key", &key.text)]);
        let answer = connection.send(asked).await.unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
        if status == 500 {
            assert_eq!(answer.reason(), "INTERNAL");
            let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(message.contains("the key was not rejected"), "{answer:?}");
            assert_eq!(answer.header("retry-after"), None, "{answer:?}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        }
    }
    for (code, reason) in [("OK", ""), ("INTERNAL", "INTERNAL")] {
        let counted = composed.scrape().get(&checks_of("forward_auth", code, reason));
        assert_eq!(counted.to_bits(), 2_f64.to_bits(), "{code}");
    }
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
