//! What a service does at a miss that has a pool of connections and nothing more.

use std::{cell::Cell, net::SocketAddr};

use futures::future::try_join_all;
use tokio_postgres::{Client, Statement};

use crate::environment::Key;
use crate::{Result, postgres};

/// The columns that Keystead reads.
const LOOKUP: &str = "\
    SELECT id, digest, secret, hint, principal, name, scopes, allowed_networks::text[], audiences, metadata::text, state, \
    not_before, expires_at, created_at, last_used_at, revision FROM keystead.api_keys WHERE digest = $1";

/// So many connections over an address, each with its statement.
pub(super) async fn connect(address: SocketAddr, count: usize) -> Result<Vec<(Client, Statement)>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let client = postgres::connect(address).await?;
        let statement = client.prepare(LOOKUP).await?;
        clients.push((client, statement));
    }
    Ok(clients)
}

/// Asks for each key by itself; every connection for the next when it has an answer.
pub(super) async fn ask_all(clients: &[(Client, Statement)], keys: &[Key]) -> Result<()> {
    let next = Cell::new(0);
    let next = &next;
    let work = clients.iter().map(async |(client, statement)| {
        while let Some(key) = keys.get(next.replace(next.get() + 1)) {
            let digest = key.digest.as_bytes().as_slice();
            let row = client.query_one(statement, &[&digest]).await?;
            assert_eq!(row.try_get::<_, &str>(0)?, key.id.as_str(), "another key");
        }
        Ok(())
    });
    try_join_all(work).await.map(drop)
}
