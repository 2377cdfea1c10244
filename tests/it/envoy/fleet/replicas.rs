//! Two replicas, their store, and Envoy before them.

use crate::envoy::site::bearer;
use crate::harness::{
    admin::Admin,
    backend::{Backend, Server as Database},
    envoy::{Envoy, EnvoyConfig, Version},
    eventually,
    http::{get, send},
    keys::{Key, Keys},
    keystead::{Keystead, Server},
    upstream::Upstream,
};

/// Keys that are checked in turn.
const KEYS: u8 = 20;

/// The counter that tells that a replica has answered Envoy.
const ANSWERED: &str = r#"keystead_checks_total{code="OK",reason="",surface="ext_authz"}"#;

pub(super) struct Fleet {
    pub(super) database: Database,
    replicas: [Replica; 2],
    pub(super) keys: Vec<Key>,
    _upstream: Upstream,
    pub(super) envoy: Envoy,
}

struct Replica {
    keystead: Keystead,
    server: Server,
}

impl Fleet {
    /// Both replicas are healthy and have every key in memory.
    pub(super) async fn start(
        version: Version,
        change: impl FnOnce(EnvoyConfig) -> EnvoyConfig,
    ) -> Self {
        let database = Database::start().await;
        let keys = Keys::open(&database.config()).await.create_many(KEYS.into()).await;
        let replicas = [Replica::start(&database).await, Replica::start(&database).await];
        let upstream = Upstream::start().await;
        let addresses = replicas.each_ref().map(|replica| replica.server.grpc);
        let config = change(EnvoyConfig::new(&addresses, upstream.address));
        let envoy = Envoy::start(version, &config).await;
        let fleet = Self { database, replicas, keys, _upstream: upstream, envoy };
        fleet.envoy.until_healthy(2).await;
        fleet.until_warm().await;
        fleet
    }

    /// Ends one in order, and starts it again at the same address.
    pub(super) async fn restart(&mut self, replica: usize) {
        self.signal(replica, "TERM").await;
        self.start_again(replica).await;
    }

    /// Ends one at once, as a lost machine would.
    pub(super) async fn kill(&mut self, replica: usize) {
        self.signal(replica, "KILL").await;
        self.replicas[replica].server.ended().await;
    }

    pub(super) async fn signal(&self, replica: usize, name: &str) {
        self.replicas[replica].server.signal(name).await;
    }

    /// Waits until one has ended, and starts it at the same address.
    pub(super) async fn start_again(&mut self, replica: usize) {
        let replica = &mut self.replicas[replica];
        replica.server.ended().await;
        let address = replica.server.grpc;
        replica.server = replica.keystead.serve_at(address).await;
    }

    pub(super) async fn until_ready(&self, replica: usize) {
        self.admin(replica).until_ready().await;
    }

    pub(super) async fn instance(&self, replica: usize) -> String {
        self.admin(replica).status().await["state"].as_str().unwrap().to_owned()
    }

    /// Waits until each has answered Envoy from now on.
    pub(super) async fn until_both_answer(&self) {
        for replica in 0..2 {
            let admin = self.admin(replica);
            let before = admin.metric(ANSWERED).await;
            eventually("a replica answers", async || {
                (admin.metric(ANSWERED).await > before + 0.5).then_some(())
            })
            .await;
        }
    }

    /// Asks about each key until both hold it in memory.
    async fn until_warm(&self) {
        eventually("both replicas hold every key", async || {
            for key in &self.keys {
                let presented = bearer(&key.text);
                let request = get("/", &[("authorization", &presented)]);
                send(self.envoy.address, request).await;
            }
            for replica in 0..2 {
                let held = self.admin(replica).metric("keystead_cache_entries").await;
                if held + 0.5 < f64::from(KEYS) {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    fn admin(&self, replica: usize) -> Admin {
        Admin(self.replicas[replica].server.admin)
    }
}

impl Replica {
    async fn start(database: &Database) -> Self {
        let secret = database.config().keys.secret_file.unwrap();
        let (secret, url) = (secret.to_str().unwrap(), database.postgres.url());
        let text = format!(
            "store.url = {url:?}\nkeys.secret_file = {secret:?}\n\
             # Records outlive this while the store is down.\n\
             cache.fresh_for = \"300ms\"\ncache.feed_fresh_for = \"300ms\"\n\
             # A busy machine is slower than that.\n\
             check.timeout = \"10s\"\nstore.guard.query_timeout = \"5s\"\n\
             # Longer than the second after which Envoy asks for the health again.\n\
             drain.delay = \"3s\"\n"
        );
        let keystead = Keystead::new().configured_by("keystead.toml", text);
        let server = keystead.serve(&[]).await;
        Self { keystead, server }
    }
}
