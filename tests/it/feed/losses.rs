//! Connections and announcements that get lost.

use std::{num::NonZeroUsize, time::Duration};

use keystead::config::Config;

use super::{for_ever, revoke, warm};
use crate::harness::{
    app::Service,
    backend::{Backend, Server},
    beside,
    deaf::Deaf,
    eventually,
    fixture::Fixture,
    keys::Keys,
    pgbouncer::{PgBouncer, PoolMode},
};

/// How soon a change must have been noticed when something was lost: a
/// heartbeat or a reconnect takes a second, and the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn every_revocation_arrives_while_the_listening_connection_is_ended_again_and_again() {
    const ENDINGS: usize = 10;
    let fixture = Fixture::with(Server::start().await, for_ever).await;
    let client = fixture.backend.postgres.client().await;
    let (counted, mut ended) = tokio::sync::watch::channel(0);
    let ending = beside(async move {
        let listener = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
            WHERE application_name = 'keystead' AND query ~ 'key_changes|LISTEN|NOTIFY'";
        loop {
            let row = client.query_one(listener, &[]).await.unwrap();
            let now = usize::try_from(row.get::<_, i64>(0)).unwrap();
            counted.send_modify(|count| *count += now);
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    });
    let keys = warm(&fixture.keys, 40, &[&fixture.service]).await;
    for key in &keys {
        let took = revoke(&fixture.keys, key, &fixture.service).await;
        assert!(took < SOON, "{took:?}");
    }
    eventually("it was ended often enough", async || {
        (*ended.borrow_and_update() >= ENDINGS).then_some(())
    })
    .await;
    ending.abort();
    fixture.service.admin.until_metric("keystead_feed_connected", 1.0).await;
}

#[tokio::test]
async fn unannounced_revocation_takes_effect_with_the_next_heartbeat() {
    let fixture = Fixture::with(Server::start().await, |config| {
        for_ever(config);
        config.feed.poll_every = Duration::from_hours(1);
    })
    .await;
    let keys = warm(&fixture.keys, 3, &[&fixture.service]).await;
    fixture
        .backend
        .sql(
            "CREATE OR REPLACE FUNCTION keystead.announce_changes() RETURNS void \
             LANGUAGE sql AS $$ SELECT $$",
        )
        .await;
    for key in &keys {
        let took = revoke(&fixture.keys, key, &fixture.service).await;
        assert!(took < SOON, "{took:?}");
    }
}

/// The configuration of a service that reaches the server through another port.
fn through(server: &Server, port: u16) -> Config {
    let mut config = server.config();
    for_ever(&mut config);
    let [direct, other] = [server.postgres.port(), port].map(|port| format!(":{port}/"));
    let url = format!("{}?sslmode=disable", server.postgres.url().replace(&direct, &other));
    config.store.url = url.parse().unwrap();
    config
}

#[tokio::test]
async fn feed_whose_heartbeats_are_lost_polls_until_they_are_not() {
    let server = Server::start().await;
    let deaf = Deaf::before(server.postgres.port()).await;
    let mut config = through(&server, deaf.port());
    config.feed.heartbeat_every = Duration::from_secs(2);
    let service = Service::ready(&config).await;
    let keys = Keys::open(&server.config()).await;
    // By its heartbeats alone it would notice one in five so soon.
    let soon = Duration::from_millis(400);
    let mut in_a_row = 0;
    eventually("it polls", async || {
        for key in warm(&keys, 5, &[&service]).await {
            in_a_row = if revoke(&keys, &key, &service).await < soon { in_a_row + 1 } else { 0 };
        }
        (in_a_row >= 10).then_some(())
    })
    .await;
    assert!(deaf.lost() > 0);

    deaf.hear();
    let statements = async || {
        let asked = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'keystead'";
        server.postgres.value(asked).await.parse::<u64>().unwrap()
    };
    eventually("it no longer polls", async || {
        let before = statements().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        // Polling would be some eighty; probes, heartbeats and this are few.
        (statements().await - before < 40).then_some(())
    })
    .await;
}

#[tokio::test]
async fn revocations_take_effect_through_pgbouncer_in_both_modes() {
    for (mode, prepared_statements) in [(PoolMode::Session, true), (PoolMode::Transaction, false)] {
        let server = Server::start().await;
        let pgbouncer = PgBouncer::before(&server.postgres, mode).await;
        let mut config = through(&server, pgbouncer.port());
        config.store.prepared_statements = prepared_statements;
        // PgBouncer has two connections: one for lookups and one for the feed.
        config.store.guard.max_in_flight = NonZeroUsize::MIN;
        let service = Service::ready(&config).await;
        let keys = Keys::open(&server.config()).await;
        for key in warm(&keys, 10, &[&service]).await {
            let took = revoke(&keys, &key, &service).await;
            assert!(took < SOON, "{mode:?}: {took:?}");
        }
        drop(pgbouncer);
    }
}
