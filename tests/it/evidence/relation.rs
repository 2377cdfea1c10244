//! A relation that was brought along records no change: a deletion is known by the
//! absence of the row alone.

use std::time::{Duration, Instant};

use keystead::config::Config;

use crate::harness::{
    app::{Service, presenting},
    backend::{Backend, Server},
    eventually,
    keys::{Key, Keys, of_acme},
    refusal::Refusal,
};

const FRESH_FOR: Duration = Duration::from_millis(200);

const CONFIRM_FOR: Duration = Duration::from_secs(1);

/// What a busy machine and the probes may take on top.
const ALLOWANCE: Duration = Duration::from_secs(8);

fn config(server: &Server) -> Config {
    let mut config = server.config();
    config.store.relation = Some("keystead.api_keys".to_owned());
    config.cache.fresh_for = FRESH_FOR;
    config.cache.feed_fresh_for = FRESH_FOR;
    config.suspect.confirm_for = CONFIRM_FOR;
    config
}

/// Keys, all of which a service knows.
async fn used(server: &Server, count: usize) -> (Service, Keys, Vec<Key>) {
    let keeper = Keys::open(&server.config()).await;
    let keys = keeper.create_many(count).await;
    let service = Service::ready(&config(server)).await;
    for key in &keys {
        eventually("it is answered", async || service.check_key(key).await.ok()).await;
    }
    (service, keeper, keys)
}

async fn says(service: &Service, key: &str) -> String {
    match service.check(presenting(key)).await {
        Ok(_) => "OK".to_owned(),
        Err(status) => Refusal::of(&status).reason,
    }
}

/// Deletes keys one by one within a second, while all are in use, and waits until each
/// is unknown.
async fn end(server: &Server, service: &Service, keys: &[Key], ended: std::ops::Range<usize>) {
    for key in &keys[ended.clone()] {
        let sql = format!("DELETE FROM keystead.api_keys WHERE id = '{}'", key.id.as_str());
        server.sql(&sql).await;
    }
    let deleted = Instant::now();
    eventually("each is unknown", async || {
        let mut unknown = 0;
        for (number, key) in keys.iter().enumerate().skip(ended.start) {
            let said = says(service, &key.text).await;
            if ended.contains(&number) {
                assert!(["OK", "KEY_UNKNOWN"].contains(&said.as_str()), "{said}");
                unknown += usize::from(said == "KEY_UNKNOWN");
            } else {
                assert_eq!(said, "OK", "it was not deleted");
            }
        }
        (unknown == ended.len()).then_some(())
    })
    .await;
    let took = deleted.elapsed();
    assert!(took < FRESH_FOR + CONFIRM_FOR + ALLOWANCE, "{took:?}");
}

#[tokio::test]
async fn each_of_several_deleted_keys_is_unknown_soon_and_strangers_are_not_doubted_for_it() {
    let server = Server::start().await;
    let (service, keeper, keys) = used(&server, 20).await;
    for ended in [0..5, 5..9] {
        end(&server, &service, &keys, ended).await;
        for _ in 0..20 {
            let stranger = keeper.draw().key.expose().to_owned();
            assert_eq!(says(&service, &stranger).await, "KEY_UNKNOWN");
        }
        service.admin.until_metric("keystead_store_suspect", 0.0).await;
    }
}

#[tokio::test]
async fn emptied_relation_denies_nobody() {
    let server = Server::start().await;
    let (service, keeper, keys) = used(&server, 20).await;
    server.sql("TRUNCATE keystead.api_keys").await;
    let emptied = Instant::now();
    while emptied.elapsed() < 3 * CONFIRM_FOR {
        for key in &keys {
            assert_eq!(says(&service, &key.text).await, "OK");
        }
        let stranger = keeper.draw().key.expose().to_owned();
        assert_eq!(says(&service, &stranger).await, "STORE_SUSPECT");
    }
    service.admin.until_metric("keystead_store_suspect", 1.0).await;
    let key = keeper.create(of_acme()).await;
    assert_eq!(says(&service, &key.text).await, "OK", "what is there is there");
}

#[tokio::test]
async fn emptied_relation_denies_nobody_where_too_few_keys_are_known_for_a_suspicion() {
    for count in [1, 4] {
        let server = Server::start().await;
        let (service, _, keys) = used(&server, count).await;
        server.sql("TRUNCATE keystead.api_keys").await;
        let emptied = Instant::now();
        while emptied.elapsed() < 4 * CONFIRM_FOR {
            for key in &keys {
                assert_eq!(says(&service, &key.text).await, "OK");
            }
        }
    }
}
