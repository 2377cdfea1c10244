//! Changes reach what is in memory, whoever makes them.

use std::time::{Duration, Instant};

use keystead::{
    config::Config,
    key::{Action, Revision},
    transport::pb::CheckResponse,
};

use crate::harness::{
    app::{Service, presenting},
    backend::{Backend, Embedded, on_both_stores},
    beside, eventually,
    fixture::Fixture,
    keys::{Key, of_acme},
    refusal::Refusal,
};

on_both_stores! {
    revoked_key_is_refused_soon_although_it_was_in_memory,
    disabled_key_is_refused_and_works_again_when_it_is_enabled,
    key_that_was_unknown_a_moment_ago_is_accepted_soon_after_its_creation,
    plain_sql_is_noticed_like_any_other_change,
    revoked_key_is_refused_by_an_instance_that_comes_later,
}

/// How soon a change must have been noticed: one poll of the feed takes 100 ms,
/// and the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// Nothing in memory ends by itself, so that what ends was ended by the feed.
fn for_ever(config: &mut Config) {
    config.cache.fresh_for = Duration::from_hours(1);
    config.cache.absent_for = Duration::from_hours(1);
}

/// What the service says of a key: its answer, or the reason of its denial.
async fn said(service: &Service, key: &Key) -> Result<CheckResponse, String> {
    service.check_key(key).await.map_err(|status| Refusal::of(&status).reason)
}

/// Waits until the service says something of a key, and holds that it says so
/// soon, and from then on.
async fn soon(service: &Service, key: &Key, what: &str, is_it: impl Fn(&Said) -> bool) {
    let changed = Instant::now();
    eventually(what, async || is_it(&said(service, key).await).then_some(())).await;
    assert!(changed.elapsed() < SOON, "{what} only after {:?}", changed.elapsed());
    for _ in 0..20 {
        let now = said(service, key).await;
        assert!(is_it(&now), "{what} no longer: {now:?}");
    }
}

type Said = Result<CheckResponse, String>;

fn denied(reason: &str) -> impl Fn(&Said) -> bool {
    move |said| said.as_ref().is_err_and(|theirs| theirs == reason)
}

/// A key that is in memory.
async fn seen(fixture: &Fixture<impl Backend>) -> Key {
    let key = fixture.keys.create(of_acme()).await;
    for _ in 0..2 {
        fixture.service.check_key(&key).await.unwrap();
    }
    key
}

/// Waits until the service has seen all changes so far: a key that it takes for
/// unknown is created, and only the change can tell it.
async fn caught_up(Fixture { service, keys, .. }: &Fixture<impl Backend>) {
    let last = keys.draw();
    service.check(presenting(last.key.expose())).await.unwrap_err();
    let last = keys.store(&last, of_acme()).await;
    soon(service, &last, "it is created", Result::is_ok).await;
}

async fn revoked_key_is_refused_soon_although_it_was_in_memory(backend: impl Backend) {
    let fixture = Fixture::with(backend, for_ever).await;
    let [revoked, other] = [seen(&fixture).await, seen(&fixture).await];
    caught_up(&fixture).await;
    let Fixture { service, keys, .. } = &fixture;
    service.check_key(&revoked).await.unwrap();
    service.check_key(&other).await.unwrap();

    keys.act(&revoked, Action::Revoke).await;
    soon(service, &revoked, "it is revoked", denied("KEY_REVOKED")).await;
    let before = service.admin.scrape().await;
    service.check_key(&other).await.unwrap();
    let after = service.admin.scrape().await;
    assert!(after.changes_since(&before, "keystead_store_queries_total").is_empty());
}

async fn disabled_key_is_refused_and_works_again_when_it_is_enabled(backend: impl Backend) {
    let fixture = Fixture::with(backend, for_ever).await;
    let key = seen(&fixture).await;
    for _ in 0..2 {
        fixture.keys.act(&key, Action::Disable).await;
        soon(&fixture.service, &key, "it is disabled", denied("KEY_DISABLED")).await;
        fixture.keys.act(&key, Action::Enable).await;
        soon(&fixture.service, &key, "it is enabled", Result::is_ok).await;
    }
}

async fn key_that_was_unknown_a_moment_ago_is_accepted_soon_after_its_creation(
    backend: impl Backend,
) {
    let fixture = Fixture::with(backend, for_ever).await;
    // An empty store says nothing of a key that was minted.
    seen(&fixture).await;
    let minted = fixture.keys.draw();
    for text in [minted.key.expose(), "sk-legacy"] {
        for _ in 0..2 {
            let status = fixture.service.check(presenting(text)).await.unwrap_err();
            assert_eq!(Refusal::of(&status).reason, "KEY_UNKNOWN");
        }
    }
    let created = fixture.keys.store(&minted, of_acme()).await;
    soon(&fixture.service, &created, "it is created", Result::is_ok).await;
    let imported = fixture.keys.import("sk-legacy", of_acme()).await;
    soon(&fixture.service, &imported, "it is imported", Result::is_ok).await;
}

async fn plain_sql_is_noticed_like_any_other_change<B: Backend>(backend: B) {
    let fixture = Fixture::with(backend, for_ever).await;
    let Fixture { service, backend, .. } = &fixture;
    let key = seen(&fixture).await;
    let (table, digest) = (B::API_KEYS, B::digest(&key.digest));
    let revision = |said: &Said| {
        said.as_ref().map_or(Revision(0), |answer| {
            Revision(answer.evidence.as_ref().map_or(0, |evidence| evidence.revision))
        })
    };
    let at_first = revision(&said(service, &key).await);

    backend.sql(&format!("UPDATE {table} SET principal = 'globex' WHERE digest = {digest}")).await;
    let is_of_globex = |said: &Said| said.as_ref().is_ok_and(|key| key.principal == "globex");
    soon(service, &key, "it is of another principal", is_of_globex).await;
    assert!(revision(&said(service, &key).await) > at_first, "revisions only grow");

    let set = async |state| {
        let set = format!("UPDATE {table} SET state = '{state}' WHERE digest = {digest}");
        backend.sql(&set).await;
    };
    set("disabled").await;
    soon(service, &key, "it is disabled", denied("KEY_DISABLED")).await;
    set("active").await;
    soon(service, &key, "it is active", Result::is_ok).await;
    set("revoked").await;
    soon(service, &key, "it is revoked", denied("KEY_REVOKED")).await;
    set("active").await;
    caught_up(&fixture).await;
    soon(service, &key, "it stays revoked", denied("KEY_REVOKED")).await;
    backend.sql(&format!("DELETE FROM {table} WHERE digest = {digest}")).await;
    soon(service, &key, "it is deleted", denied("KEY_UNKNOWN")).await;
}

async fn revoked_key_is_refused_by_an_instance_that_comes_later(backend: impl Backend) {
    let fixture = Fixture::with(backend, for_ever).await;
    let key = seen(&fixture).await;
    fixture.keys.act(&key, Action::Revoke).await;
    let later = Service::ready(&fixture.config).await;
    assert_eq!(said(&later, &key).await, Err("KEY_REVOKED".to_owned()));
}

#[tokio::test]
async fn lookup_that_was_under_way_when_its_key_was_revoked_cannot_bring_it_back() {
    let mut fixture = Fixture::with(Embedded::start().await, for_ever).await;
    let key = fixture.keys.create(of_acme()).await;
    fixture.backend.slow_down().await;
    let reading = {
        let (channel, text) = (fixture.service.channel(), key.text.clone());
        beside(crate::harness::app::check_over(channel, presenting(&text)))
    };
    fixture.service.admin.until_metric("keystead_store_in_flight", 1.0).await;
    // It reads the store as it was when it began.
    let digest = Embedded::digest(&key.digest);
    let revoke = format!("UPDATE hidden_keys SET state = 'revoked' WHERE digest = {digest}");
    fixture.backend.sql(&revoke).await;
    let status = reading.await.unwrap().expect_err("its revocation is known by now");
    assert_eq!(Refusal::of(&status).reason, "KEY_REVOKED");
    fixture.backend.go_on().await;
    soon(&fixture.service, &key, "it is revoked", denied("KEY_REVOKED")).await;
}
