//! What an instance knows of keys that have ended outranks what the store says of
//! them later: a backup that is loaded under it revives none.

use std::time::{Duration, Instant};

use crate::harness::{
    app::Service,
    backend::{Backend, Embedded, Server, on_both_stores},
    eventually,
    fixture::Fixture,
    keys::{Key, of_acme},
    refusal::Refusal,
};
use keystead::{config::Config, key::Action};

on_both_stores! {
    older_dump_under_a_running_service_revives_no_key_that_it_knew_to_have_ended,
    row_that_says_revoked_or_disabled_is_believed_though_its_number_is_lower,
}

/// Observation time of an older dump.
const HOLDS: Duration = Duration::from_secs(3);

/// Plain SQL that goes past the triggers.
pub(crate) trait Restored: Backend {
    /// Keeps rows, changes and the sequence as they are.
    const SAVE: &str;
    /// Puts them back, as loading a dump does.
    const LOAD: &str;
    /// Ends the triggers, so that nothing is numbered.
    const UNNUMBERED: &str;
}

impl Restored for Server {
    const SAVE: &str = "
        CREATE TABLE public.saved_keys AS SELECT * FROM keystead.api_keys;
        CREATE TABLE public.saved_changes AS SELECT * FROM keystead.key_changes;
        CREATE TABLE public.saved_number AS SELECT last_value FROM keystead.revision_seq";
    const LOAD: &str = "
        BEGIN;
        SET LOCAL session_replication_role = replica;
        DELETE FROM keystead.api_keys;
        INSERT INTO keystead.api_keys SELECT * FROM public.saved_keys;
        DELETE FROM keystead.key_changes;
        INSERT INTO keystead.key_changes SELECT * FROM public.saved_changes;
        SELECT setval('keystead.revision_seq', last_value) FROM public.saved_number;
        COMMIT";
    const UNNUMBERED: &str = "ALTER TABLE keystead.api_keys DISABLE TRIGGER ALL";
}

impl Restored for Embedded {
    const SAVE: &str = "
        CREATE TABLE saved_keys AS SELECT * FROM api_keys;
        CREATE TABLE saved_changes AS SELECT * FROM key_changes;
        CREATE TABLE saved_number AS SELECT seq FROM sqlite_sequence WHERE name = 'key_changes'";
    const LOAD: &str = "
        BEGIN IMMEDIATE;
        DROP TRIGGER api_keys_created; DROP TRIGGER api_keys_replacing;
        DROP TRIGGER api_keys_updated; DROP TRIGGER api_keys_moved;
        DROP TRIGGER api_keys_deleted; DROP TRIGGER key_changes_pruned;
        DELETE FROM api_keys;
        INSERT INTO api_keys SELECT * FROM saved_keys;
        DELETE FROM key_changes;
        INSERT INTO key_changes SELECT * FROM saved_changes;
        UPDATE sqlite_sequence SET seq = (SELECT seq FROM saved_number)
            WHERE name = 'key_changes';
        COMMIT";
    const UNNUMBERED: &str = "
        DROP TRIGGER api_keys_created; DROP TRIGGER api_keys_replacing;
        DROP TRIGGER api_keys_updated; DROP TRIGGER api_keys_moved;
        DROP TRIGGER api_keys_deleted";
}

/// Records are checked again all the time.
fn short_lived(config: &mut Config) {
    config.cache.fresh_for = Duration::from_millis(100);
    config.cache.feed_fresh_for = Duration::from_millis(100);
    config.cache.absent_for = Duration::from_millis(100);
}

async fn refusal(service: &Service, key: &Key) -> Option<Refusal> {
    let refusal = service.check_key(key).await.err().map(|status| Refusal::of(&status));
    refusal.inspect(Refusal::is_honest)
}

async fn until_refused_as(service: &Service, key: &Key, reason: &str) {
    eventually(&format!("the key gets {reason}"), async || {
        refusal(service, key).await.filter(|it| it.reason == reason)
    })
    .await;
}

async fn older_dump_under_a_running_service_revives_no_key_that_it_knew_to_have_ended<
    B: Restored,
>(
    backend: B,
) {
    let fixture = Fixture::with(backend, short_lived).await;
    let Fixture { backend, keys, service, .. } = &fixture;
    let [revoked, deleted] = [keys.create(of_acme()).await, keys.create(of_acme()).await];
    let others = keys.create_many(10).await;
    for key in others.iter().chain([&revoked, &deleted]) {
        assert!(refusal(service, key).await.is_none());
    }
    backend.sql(B::SAVE).await;
    keys.act(&revoked, Action::Revoke).await;
    backend.sql(&format!("DELETE FROM {} WHERE id = '{}'", B::API_KEYS, deleted.id)).await;
    until_refused_as(service, &revoked, "KEY_REVOKED").await;
    until_refused_as(service, &deleted, "KEY_UNKNOWN").await;

    backend.sql(B::LOAD).await;
    eventually("rows are outranked", async || {
        let _ = refusal(service, &revoked).await;
        let outranked = service.admin.metric("keystead_rows_outranked_total").await;
        (outranked > 0.5).then_some(())
    })
    .await;
    let (began, mut rounds) = (Instant::now(), 0);
    while began.elapsed() < HOLDS {
        let ended = refusal(service, &revoked).await.expect("it is known to be revoked");
        assert_eq!(ended.reason, "KEY_REVOKED");
        let ended = refusal(service, &deleted).await.expect("it is known to be deleted");
        assert!(["KEY_UNKNOWN", "STORE_SUSPECT"].contains(&ended.reason.as_str()), "{ended:?}");
        let other = refusal(service, &others[rounds % others.len()]).await;
        assert!(other.is_none(), "{other:?}");
        rounds += 1;
    }
    assert!(rounds > 50, "{rounds}");
}

async fn row_that_says_revoked_or_disabled_is_believed_though_its_number_is_lower<B: Restored>(
    backend: B,
) {
    let fixture = Fixture::with(backend, short_lived).await;
    let Fixture { backend, keys, service, .. } = &fixture;
    let ended = [keys.create(of_acme()).await, keys.create(of_acme()).await];
    for key in &ended {
        // The feed tells of numbers that the row will not have.
        for action in [Action::Disable, Action::Enable] {
            keys.act(key, action).await;
        }
        eventually("it is in memory", async || refusal(service, key).await.is_none().then_some(()))
            .await;
    }
    backend.sql(B::UNNUMBERED).await;
    for (key, state) in ended.iter().zip(["revoked", "disabled"]) {
        let (table, id) = (B::API_KEYS, &key.id);
        let lower = format!("UPDATE {table} SET state = '{state}', revision = 1 WHERE id = '{id}'");
        backend.sql(&lower).await;
        let (began, reason) = (Instant::now(), format!("KEY_{}", state.to_uppercase()));
        until_refused_as(service, key, &reason).await;
        assert!(began.elapsed() < HOLDS, "{:?}", began.elapsed());
    }
}
