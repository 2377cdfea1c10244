//! A standby whose replay is paused, as an operator sees it.

use std::time::Instant;

use super::site::{Running, on};
use crate::harness::{
    backend::{Backend, Server},
    eventually,
    keys::{Keys, of_acme},
};

const GAUGE: &str = "keystead_store_lagging";

const WARNS: &str = "the data of the store are older than `store.max_lag`";

#[tokio::test]
async fn standby_whose_replay_is_paused_is_named_by_state_metric_and_one_line() {
    let server = Server::start().await;
    let config = server.config();
    let keys = Keys::open(&config).await;
    let key = keys.create(of_acme()).await;
    let standby = server.postgres.standby().await;
    standby.until_caught_up_with(&server.postgres).await;
    let keystead = on(&standby.url(), &config.keys.secret_file.unwrap());
    let mut running = Running::start(&keystead).await;
    running.until_says(&key.text, "OK").await;
    running.until_well(GAUGE).await;

    standby.sql("SELECT pg_wal_replay_pause()").await;
    running.since = Instant::now();
    keys.create(of_acme()).await;
    running.until_noticed("lagging", GAUGE, WARNS).await;
    assert_eq!(running.says(&key.text).await, "OK");

    standby.sql("SELECT pg_wal_replay_resume()").await;
    running.until_well(GAUGE).await;
    eventually("the log tells of its end", async || {
        (running.lines("INFO", "the data of the store are up to date again").len() == 1)
            .then_some(())
    })
    .await;
    assert_eq!(running.lines("WARN", WARNS).len(), 1, "{}", running.server.log());
}
