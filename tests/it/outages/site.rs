//! A server that can be broken, a service on it, and keys.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use keystead::{config::Config, transport::pb::CheckResponse};
use tonic::Code;

use super::{ALLOWANCE, fault::Broken};
use crate::harness::{
    app::{Service, presenting},
    backend::{Backend, Server},
    eventually,
    keys::{Key, Keys},
    load::Tally,
    postgres::{Postgres, Setup},
    proxy::Proxy,
};

/// How many checks are under way at once under load.
const AT_ONCE: usize = 40;

/// A server behind a network that can be broken too.
pub(super) struct Site {
    pub(super) server: Server,
    pub(super) proxy: Proxy,
    pub(super) config: Config,
    /// What follows the server, if it has a standby.
    standby: Option<Postgres>,
    /// What a fault holds on to.
    pub(super) broken: Option<Broken>,
}

impl Site {
    pub(super) async fn new(query_timeout: Duration) -> Self {
        Self::with(query_timeout, Setup::default()).await
    }

    /// With settings of the server's own.
    pub(super) async fn with(query_timeout: Duration, setup: Setup) -> Self {
        let server = Server::with(setup).await;
        let port = server.postgres.port();
        let proxy = Proxy::before(([127, 0, 0, 1], port).into()).await;
        let mut config = server.config();
        let url = server.postgres.url();
        let [direct, through_proxy] =
            [port, proxy.address().port()].map(|port| format!(":{port}/"));
        config.store.url = url.replace(&direct, &through_proxy).parse().unwrap();
        config.store.guard.query_timeout = query_timeout;
        // As much longer as it is by default.
        config.check.timeout = query_timeout * 3 / 2;
        config.store.connect_timeout = Config::default().store.connect_timeout;
        config.store.guard.max_in_flight = NonZeroUsize::new(4).unwrap();
        // A key that was seen stays in memory for the whole of a test.
        config.cache.fresh_for = Duration::from_mins(10);
        Self { server, proxy, config, standby: None, broken: None }
    }

    /// With a standby of the server; the service knows both, and no network is
    /// in between.
    pub(super) async fn with_standby(query_timeout: Duration, setup: Setup) -> Self {
        let mut site = Self::with(query_timeout, setup).await;
        let standby = site.postgres().standby().await;
        site.config.store.url = site.postgres().url_with(&standby).parse().unwrap();
        site.standby = Some(standby);
        site
    }

    pub(super) fn standby(&self) -> &Postgres {
        self.standby.as_ref().expect("the site was made with a standby")
    }

    /// All servers, the one that is used at the end last.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Postgres> {
        [&self.server.postgres].into_iter().chain(&self.standby)
    }

    pub(super) fn postgres(&self) -> &Postgres {
        &self.server.postgres
    }

    /// New keys, made through connections that are gone afterwards.
    pub(super) async fn keys(&self, count: usize) -> Vec<Key> {
        let keys = Keys::open(&self.server.config()).await.create_many(count).await;
        eventually("the connections that made the keys are closed", async || {
            self.postgres().backends().await.is_empty().then_some(())
        })
        .await;
        if let Some(standby) = &self.standby {
            standby.until_caught_up_with(self.postgres()).await;
        }
        keys
    }

    /// Until when an answer is not late.
    pub(super) fn patience(&self) -> Duration {
        self.config.check.timeout + ALLOWANCE
    }
}

/// Asks until there is an answer; what comes before it may be an outage, but
/// never a denial.
pub(super) async fn until_answered(service: &Service, key: &Key) -> CheckResponse {
    let answered = eventually("the key is answered", async || match service.check_key(key).await {
        Ok(answer) => Some(answer),
        Err(status) => {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            None
        }
    });
    let answer = answered.await;
    assert_eq!(answer.key_id, key.id.as_str());
    answer
}

/// Asks about all keys once, many at the same time. Returns how they ended, and
/// how long the slowest took.
pub(super) async fn load(service: &Service, keys: &[Key]) -> (Tally, Duration) {
    let asking = stream::iter(keys).map(|key| async {
        let began = Instant::now();
        let outcome = service.check(presenting(&key.text)).await;
        if let Ok(answer) = &outcome {
            assert_eq!(answer.key_id, key.id.as_str());
        }
        (outcome, began.elapsed())
    });
    let mut tally = Tally::default();
    let mut slowest = Duration::ZERO;
    let mut answers = asking.buffer_unordered(AT_ONCE);
    while let Some((outcome, took)) = answers.next().await {
        tally.add(&outcome);
        slowest = slowest.max(took);
    }
    (tally, slowest)
}
