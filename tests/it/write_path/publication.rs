//! Logical replication out of the database.

use std::fs;

use keystead::key::Action;

use crate::{
    feed::for_ever,
    harness::{
        backend::{Backend, Server},
        eventually,
        fixture::Fixture,
        postgres::logical::logical,
    },
};

const COUNT: &str = "keystead_revocation_latency_seconds_count";

/// The statements that the documentation tells operators to run on old rows.
fn documented_deletions() -> Vec<String> {
    let read = |name| fs::read_to_string(format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR")));
    let pages = ["postgresql.md", "operations.md"].map(|name| read(name).unwrap());
    let lines = pages.iter().flat_map(|page| page.lines());
    lines.filter(|line| line.starts_with("DELETE FROM keystead.")).map(str::to_owned).collect()
}

#[tokio::test]
async fn publication_of_all_tables_stops_neither_changes_nor_documented_commands() {
    let fixture = Fixture::with(Server::with(logical()).await, |config| {
        for_ever(config);
        config.feed.canary_every = std::time::Duration::from_millis(100);
    })
    .await;
    let keys = fixture.keys.create_many(3).await;
    fixture.keys.act(&keys[0], Action::Revoke).await;
    fixture
        .backend
        .sql(
            "CREATE PUBLICATION everything FOR ALL TABLES; \
             UPDATE keystead.key_changes SET changed_at = now() - interval '3 days' \
                 WHERE kind <> 'canary'; \
             UPDATE keystead.audit_log SET at = now() - interval '2 years'",
        )
        .await;
    let deletions = documented_deletions();
    assert!(deletions.len() >= 2, "{deletions:?}");
    for deletion in deletions {
        fixture.backend.sql(&deletion).await;
    }
    let left = "SELECT count(*) FROM keystead.audit_log";
    assert_eq!(fixture.backend.postgres.value(left).await, "0");
    fixture.keys.act(&keys[1], Action::Revoke).await;
    fixture.keys.act(&keys[2], Action::Disable).await;
    fixture.backend.sql("UPDATE keystead.api_keys SET state = 'revoked'").await;

    let count = async || {
        let scrape = fixture.service.admin.scrape().await;
        if scrape.names().any(|name| name == COUNT) { scrape.get(COUNT) } else { 0.0 }
    };
    let before = count().await;
    eventually("canaries go on", async || (count().await > before + 2.5).then_some(())).await;
    fixture.service.admin.until_metric(r#"keystead_write_path{state="ok"}"#, 1.0).await;
}
