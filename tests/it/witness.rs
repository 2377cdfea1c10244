//! The right witness: a standby that lags, and a name that leads to another server,
//! while callers check continuously. A revocation ends a key that is called fresh within
//! `store.max_lag` and a second, and no key that exists is ever unknown.

mod age;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use keystead::{config::Config, key::Action, transport::pb::Freshness};
use tokio::{task::JoinHandle, time::sleep};
use tonic::Code;

use crate::harness::{
    app::{Service, check_over, presenting},
    backend::{Backend, Server},
    beside, eventually,
    keys::{Key, Keys, of_acme},
    postgres::{PASSWORD, Postgres},
    proxy::{Conduct, Proxy},
    refusal::Refusal,
};

/// How soon a fault must be named, and how soon all is well when it is over.
const SOON: Duration = Duration::from_secs(10);

/// `store.max_lag` and a second.
const FRESH_NO_LONGER: Duration = Duration::from_secs(6);

/// Interval between the checks of each caller.
const REST: Duration = Duration::from_millis(5);

/// A primary, its standby, and what writes to the primary.
struct Site {
    server: Server,
    standby: Postgres,
    keys: Keys,
    warm: Vec<Key>,
}

/// Callers that check the same keys repeatedly, and the answers they got.
struct Callers {
    told: Arc<Mutex<Vec<Told>>>,
    callers: Vec<JoinHandle<()>>,
}

struct Told {
    at: Instant,
    digest: keystead::key::Digest,
    outcome: Result<Freshness, (Code, String)>,
}

impl Site {
    async fn new() -> Self {
        let server = Server::start().await;
        let keys = Keys::open(&server.config()).await;
        let warm = keys.create_many(20).await;
        let standby = server.postgres.standby().await;
        standby.until_caught_up_with(&server.postgres).await;
        Self { server, standby, keys, warm }
    }

    fn config(&self, url: &str) -> Config {
        let mut config = self.server.config();
        config.store.url = url.parse().unwrap();
        config.store.connect_timeout = Duration::from_secs(2);
        config.store.guard.query_timeout = Duration::from_secs(2);
        config.feed.canary_every = Duration::from_secs(1);
        config
    }

    /// A service whose callers have seen all keys.
    async fn service(&self, config: &Config) -> (Service, Callers) {
        let service = Service::ready(config).await;
        for key in &self.warm {
            eventually("it is answered", async || service.check_key(key).await.ok()).await;
        }
        service.admin.until_metric("keystead_store_lagging", 0.0).await;
        let callers = Callers::start(&service, &self.warm);
        (service, callers)
    }
}

impl Callers {
    fn start(service: &Service, keys: &[Key]) -> Self {
        let mut this = Self { told: Arc::default(), callers: Vec::new() };
        this.ask(service, keys);
        this.ask(service, keys);
        this
    }

    /// More keys are checked from now on.
    fn ask(&mut self, service: &Service, keys: &[Key]) {
        let (channel, keys, told) = (service.channel(), keys.to_vec(), Arc::clone(&self.told));
        self.callers.push(beside(async move {
            for key in keys.iter().cycle() {
                let at = Instant::now();
                let outcome = check_over(channel.clone(), presenting(&key.text)).await;
                let outcome = outcome
                    .map(|answer| answer.evidence.unwrap().freshness())
                    .map_err(|status| (status.code(), Refusal::of(&status).reason));
                told.lock().unwrap().push(Told { at, digest: key.digest, outcome });
                sleep(REST).await;
            }
        }));
    }

    /// Counts the answers that an existing key is unknown, and those that a key is
    /// fresh too long after its revocation.
    fn wrongs(&self, revoked: &Key, at: Instant) -> (usize, usize) {
        let told = self.told.lock().unwrap();
        let is_denial = |told: &&Told| matches!(&told.outcome, Err((Code::Unauthenticated, _)));
        let denied = told
            .iter()
            .filter(is_denial)
            .filter(|told| told.digest != revoked.digest || told.at < at || is_unknown(told));
        let fresh = told.iter().filter(|told| {
            told.digest == revoked.digest
                && told.at > at + FRESH_NO_LONGER
                && told.outcome == Ok(Freshness::Fresh)
        });
        (denied.count(), fresh.count())
    }

    fn count(&self) -> usize {
        self.told.lock().unwrap().len()
    }
}

fn is_unknown(told: &Told) -> bool {
    matches!(&told.outcome, Err((_, reason)) if reason == "KEY_UNKNOWN")
}

impl Drop for Callers {
    fn drop(&mut self) {
        for caller in &self.callers {
            caller.abort();
        }
    }
}

async fn is_lagging(service: &Service) -> bool {
    let status = service.admin.status().await;
    let is_named = status["dominant_cause"]["cause"] == "lagging";
    let is_degraded = status["state"] == "degraded";
    is_degraded && is_named && service.admin.metric("keystead_store_lagging").await > 0.5
}

async fn until_lagging(service: &Service) {
    let began = Instant::now();
    eventually("it says that the data are old", async || is_lagging(service).await.then_some(()))
        .await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// Waits until a key that was revoked is refused, the others are fresh, and the
/// instance says so.
async fn until_well(service: &Service, site: &Site, revoked: Option<&Key>, new: Option<&Key>) {
    let began = Instant::now();
    eventually("all is well again", async || {
        let status = service.admin.status().await;
        if status["state"] != "normal" {
            return None;
        }
        let last = service.check_key(site.warm.last().unwrap()).await.ok()?;
        if last.evidence?.freshness() != Freshness::Fresh {
            return None;
        }
        if let Some(new) = new {
            service.check_key(new).await.ok()?;
        }
        match revoked {
            None => Some(()),
            Some(key) => service.check_key(key).await.is_err().then_some(()),
        }
    })
    .await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// A standby that falls behind while a key is revoked and another one made.
async fn standby_lags(
    strike: impl AsyncFnOnce(&mut Site),
    mend: impl AsyncFnOnce(&mut Site),
    prepare: impl AsyncFnOnce(&Site),
) {
    let mut site = Site::new().await;
    prepare(&site).await;
    let config = site.config(&site.standby.url());
    let (service, mut callers) = site.service(&config).await;
    strike(&mut site).await;
    let revoked = site.warm[0].clone();
    site.keys.act(&revoked, Action::Revoke).await;
    let at = Instant::now();
    let new = site.keys.create(of_acme()).await;
    callers.ask(&service, std::slice::from_ref(&new));
    until_lagging(&service).await;
    sleep(
        (at + FRESH_NO_LONGER + Duration::from_secs(3)).saturating_duration_since(Instant::now()),
    )
    .await;
    let refused = Refusal::of(&service.check_key(&new).await.unwrap_err());
    assert_eq!(refused.reason, "STORE_LAGGING");
    mend(&mut site).await;
    until_well(&service, &site, Some(&revoked), Some(&new)).await;
    assert_eq!(callers.wrongs(&revoked, at), (0, 0), "of {}", callers.count());
    assert!(callers.count() > 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_whose_replay_is_paused_proves_no_absence() {
    standby_lags(
        async |site| drop(site.standby.sql("SELECT pg_wal_replay_pause()").await),
        async |site| drop(site.standby.sql("SELECT pg_wal_replay_resume()").await),
        async |_| (),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_whose_replay_is_delayed_proves_no_absence() {
    let delay = async |standby: &Postgres, delay: &str| {
        standby.sql(&format!("ALTER SYSTEM SET recovery_min_apply_delay = '{delay}'")).await;
        standby.sql("SELECT pg_reload_conf()").await;
        eventually("it is delayed so", async || {
            let now = standby.value("SHOW recovery_min_apply_delay").await;
            (now == delay).then_some(())
        })
        .await;
    };
    standby_lags(
        async |site| delay(&site.standby, "1h").await,
        async |site| delay(&site.standby, "0").await,
        async |_| (),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_whose_link_is_a_black_hole_proves_no_absence_once_it_has_noticed() {
    let site = Site::new().await;
    let proxy = Proxy::before(([127, 0, 0, 1], site.server.postgres.port()).into()).await;
    site.server.postgres.sql("ALTER ROLE keystead REPLICATION").await;
    let port = proxy.address().port();
    site.standby
        .sql(&format!(
            "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port={port} user=keystead password={PASSWORD}'"
        ))
        .await;
    site.standby.sql("ALTER SYSTEM SET wal_receiver_timeout = '2s'").await;
    site.standby.sql("SELECT pg_reload_conf()").await;
    eventually("it streams through the network", async || {
        let through = "SELECT count(*) FROM pg_stat_wal_receiver WHERE sender_port = ";
        let count = site.standby.value(&format!("{through}{port}")).await;
        (count == "1").then_some(())
    })
    .await;
    let config = site.config(&site.standby.url());
    let (service, mut callers) = site.service(&config).await;
    proxy.set(Conduct::Swallow);
    let at = Instant::now();
    let new = site.keys.create(of_acme()).await;
    until_lagging(&service).await;
    callers.ask(&service, std::slice::from_ref(&new));
    let refused = Refusal::of(&service.check_key(&new).await.unwrap_err());
    assert_eq!(refused.reason, "STORE_LAGGING");
    proxy.set(Conduct::Reset);
    eventually("nothing hangs in the black hole any more", async || {
        (site.standby.value("SELECT count(*) FROM pg_stat_wal_receiver").await == "0").then_some(())
    })
    .await;
    proxy.set(Conduct::Forward);
    // The standby tries its primary again every five seconds.
    eventually("it streams again", async || {
        (site.standby.value("SELECT count(*) FROM pg_stat_wal_receiver").await == "1").then_some(())
    })
    .await;
    until_well(&service, &site, None, Some(&new)).await;
    assert_eq!(callers.wrongs(&site.warm[0], at).0, 0, "of {}", callers.count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_whose_primary_is_dead_proves_no_absence() {
    let mut site = Site::new().await;
    let config = site.config(&site.standby.url());
    let (service, callers) = site.service(&config).await;
    site.server.postgres.kill();
    let at = Instant::now();
    until_lagging(&service).await;
    let answer = service.check_key(&site.warm[0]).await.unwrap();
    assert_eq!(answer.evidence.unwrap().freshness(), Freshness::StaleIfError);
    site.server.postgres.start().await;
    eventually("it streams again", async || {
        (site.standby.value("SELECT count(*) FROM pg_stat_wal_receiver").await == "1").then_some(())
    })
    .await;
    until_well(&service, &site, None, None).await;
    assert_eq!(callers.wrongs(&site.warm[0], at).0, 0, "of {}", callers.count());
}

/// Makes the standby the primary. The old one keeps running.
async fn take_over(site: &mut Site, fenced: bool) {
    let old = &site.server.postgres;
    if fenced {
        old.sql("ALTER SYSTEM SET default_transaction_read_only = on").await;
        old.sql("SELECT pg_reload_conf()").await;
    }
    site.standby.until_caught_up_with(old).await;
    site.standby.promote().await;
    site.keys = Keys::open(&site.config(&site.standby.url())).await;
}

/// A key is revoked, and another made, on the server that has taken over.
async fn revocation_takes_effect(site: &Site, service: &Service, mut callers: Callers) {
    let revoked = site.warm[0].clone();
    site.keys.act(&revoked, Action::Revoke).await;
    let at = Instant::now();
    let new = site.keys.create(of_acme()).await;
    until_well(service, site, Some(&revoked), Some(&new)).await;
    callers.ask(service, std::slice::from_ref(&new));
    sleep(
        (at + FRESH_NO_LONGER + Duration::from_secs(2)).saturating_duration_since(Instant::now()),
    )
    .await;
    assert_eq!(callers.wrongs(&revoked, at), (0, 0), "of {}", callers.count());
    assert!(callers.count() > 1000);
    eventually("no connection to the old server is left", async || {
        site.server.postgres.backends().await.is_empty().then_some(())
    })
    .await;
}

async fn name_is_switched(fenced: bool) {
    let mut site = Site::new().await;
    let [old, new] = [&site.server.postgres, &site.standby].map(Postgres::port);
    let name = Proxy::before(([127, 0, 0, 1], old).into()).await;
    let url = site.server.postgres.url();
    let [from, to] = [old, name.address().port()].map(|port| format!(":{port}/"));
    let config = site.config(&url.replace(&from, &to));
    let (service, callers) = site.service(&config).await;
    take_over(&mut site, fenced).await;
    name.switch_to(([127, 0, 0, 1], new).into());
    revocation_takes_effect(&site, &service, callers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_takes_over_behind_the_same_name_is_found_while_the_old_one_goes_on() {
    name_is_switched(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_takes_over_behind_the_same_name_is_found_while_the_old_one_is_fenced() {
    name_is_switched(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_became_read_only_is_left_for_the_one_that_took_over() {
    let mut site = Site::new().await;
    let config = site.config(&site.server.postgres.url_with(&site.standby));
    let (service, callers) = site.service(&config).await;
    take_over(&mut site, true).await;
    revocation_takes_effect(&site, &service, callers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_that_one_of_two_standbys_lacks_is_never_unknown() {
    let site = Site::new().await;
    let other = site.server.postgres.standby().await;
    let [one, two] = [&site.standby, &other].map(Postgres::port);
    let config = site.config(&format!(
        "postgres://keystead:{PASSWORD}@127.0.0.1:{one},127.0.0.1:{two}/keystead\
         ?load_balance_hosts=random"
    ));
    let (service, mut callers) = site.service(&config).await;
    other.sql("SELECT pg_wal_replay_pause()").await;
    let at = Instant::now();
    let new = site.keys.create_many(200).await;
    site.standby.until_caught_up_with(&site.server.postgres).await;
    callers.ask(&service, &new);
    callers.ask(&service, &new);
    sleep(Duration::from_secs(8)).await;
    other.sql("SELECT pg_wal_replay_resume()").await;
    until_well(&service, &site, None, new.first()).await;
    let nobody = site.draw_nobody();
    assert_eq!(callers.wrongs(&nobody, at).0, 0, "of {}", callers.count());
    assert!(callers.count() > 1000);
}

impl Site {
    /// A key that nobody checks.
    fn draw_nobody(&self) -> Key {
        let minted = self.keys.draw();
        Key { id: minted.id, text: String::new(), digest: minted.digest }
    }
}
