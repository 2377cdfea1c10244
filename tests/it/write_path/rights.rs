//! Who may hold up changes: nobody without rights on keys.

use keystead::key::Action;
use tokio_postgres::error::SqlState;

use crate::harness::{
    backend::{Backend, Server},
    fixture::Fixture,
    postgres::{Postgres, rows},
};

/// A session of a role that may do what a role that only serves may.
async fn serving(postgres: &Postgres) -> tokio_postgres::Client {
    postgres.add_role("serving").await;
    postgres
        .sql(
            "GRANT USAGE ON SCHEMA keystead TO serving; \
             GRANT SELECT ON keystead.api_keys, keystead.key_changes TO serving; \
             GRANT UPDATE (last_used_at) ON keystead.api_keys TO serving; \
             GRANT EXECUTE ON FUNCTION keystead.canary(bytea) TO serving",
        )
        .await;
    let client = postgres.client().await;
    rows(&client, "SET ROLE serving").await;
    client
}

#[tokio::test]
async fn role_that_may_not_change_keys_cannot_hold_up_changes() {
    let fixture = Fixture::new(Server::start().await).await;
    let keys = fixture.keys.create_many(2).await;
    let client = serving(&fixture.backend.postgres).await;
    for refused in [
        "LOCK TABLE keystead.change_order IN EXCLUSIVE MODE",
        "LOCK TABLE keystead.change_order IN ACCESS SHARE MODE",
        "LOCK TABLE keystead.api_keys IN ROW EXCLUSIVE MODE",
        "LOCK TABLE keystead.key_changes IN SHARE MODE",
        "SELECT keystead.lock_changes()",
        "SELECT keystead.next_revision()",
        "INSERT INTO keystead.change_order VALUES (true)",
    ] {
        rows(&client, "BEGIN").await;
        let error = client.simple_query(refused).await.unwrap_err();
        rows(&client, "ROLLBACK").await;
        assert_eq!(error.code().map(SqlState::code), Some("42501"), "{refused}: {error:?}");
    }
    // No lock that anybody may take is one that changes wait for.
    let locks = "BEGIN; SELECT pg_advisory_xact_lock(x'6b65797374656164'::bigint); \
        SELECT count(*) FROM keystead.api_keys, keystead.key_changes";
    rows(&client, locks).await;
    fixture.keys.act(&keys[0], Action::Revoke).await;
    rows(&client, "ROLLBACK").await;
    fixture.keys.act(&keys[1], Action::Revoke).await;
}
