//! What PostgreSQL does that no other engine does; what all engines do is in the
//! conformance suite.

mod commands;
mod fixture;
mod following;
mod grants;
mod outage;
mod pgbouncer;
mod relation;
mod schema;
mod session;
mod tls;
mod writes;

use std::{num::NonZeroUsize, time::Duration};

use jiff::Timestamp;
use keystead::{
    key::{Digest, KeyId, NewKey, Rights, State},
    store::{
        Answer, KeyAdmin, Provenance, Store, StoreError,
        postgres::{PostgresConfig, PostgresStore},
    },
    tasks::Tasks,
};

pub(crate) use fixture::Server;

use crate::harness::postgres::Postgres;

/// The patience of a lookup in these tests: generous, as the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(5);

fn config(url: &str) -> PostgresConfig {
    PostgresConfig {
        url: url.into(),
        relation: None,
        prepared_statements: true,
        max_connections: NonZeroUsize::new(4).unwrap(),
        connect_timeout: Duration::from_secs(10),
        query_timeout: PATIENCE,
        tcp_user_timeout: PATIENCE,
        max_connection_age: Duration::from_mins(5),
        max_lag: Duration::from_secs(5),
    }
}

fn store_with(config: &PostgresConfig) -> PostgresStore {
    PostgresStore::new(config, Tasks::here()).unwrap()
}

fn store(url: &str) -> PostgresStore {
    store_with(&config(url))
}

/// A server with the schema in it and one key, and a store on it.
async fn with_a_key() -> (Postgres, PostgresStore) {
    let postgres = Postgres::start_new().await;
    let store = store(&postgres.url());
    store.migrate().await.unwrap();
    store.insert(&[key(1)], &by()).await.unwrap();
    (postgres, store)
}

fn digest(number: u32) -> Digest {
    Digest::sha256_of(&number.to_be_bytes())
}

fn id(number: u32) -> KeyId {
    format!("key_{number:06}").parse().unwrap()
}

fn key(number: u32) -> NewKey {
    NewKey {
        id: id(number),
        digest: digest(number),
        secret: None,
        hint: String::new(),
        rights: Rights { principal: "acme".to_owned(), ..Rights::default() },
        state: State::Active,
    }
}

fn by() -> Provenance {
    Provenance {
        actor: "cli:alice".to_owned(),
        origin: "laptop".to_owned(),
        at: Timestamp::constant(1_800_000_000, 0),
    }
}

/// Whether the store knows a key.
async fn knows(store: &impl Store, number: u32) -> Result<bool, StoreError> {
    let lookup = store.find(&[digest(number)]).await?;
    Ok(matches!(lookup.get(&digest(number)), Some(Answer::Found(_))))
}
