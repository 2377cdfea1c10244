//! `UNAUTHENTICATED` and `PERMISSION_DENIED`, each on its evidence.

use keystead::{
    key::{Action, Oddity, Rights},
    transport::pb::CheckRequest,
};
use tonic::Code::{PermissionDenied, Unauthenticated};

use super::refused;
use crate::harness::{
    app::presenting,
    backend::{Backend, Embedded, on_both_stores},
    fixture::Fixture,
    keys::{from_now, of_acme},
};

on_both_stores! {
    key_that_the_store_does_not_know_is_unknown,
    revoked_key_is_denied_as_revoked,
    disabled_key_is_denied_as_disabled,
    key_is_refused_outside_of_its_time,
    key_is_refused_without_each_scope_that_is_needed,
    key_is_refused_from_outside_of_its_networks,
    key_is_refused_for_other_audiences,
}

#[tokio::test]
async fn missing_credential_is_denied_as_missing() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    let row = (Unauthenticated, "CREDENTIAL_MISSING");
    refused(service, CheckRequest::default(), row, &[]).await;
}

#[tokio::test]
async fn credential_not_in_key_form_is_malformed_and_costs_no_query() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await.text;
    let (body, tag) = key.split_at(key.len() - 8);
    let (head, _) = key.split_at("ks_live_".len());
    let other_tag: String = tag.chars().rev().collect();
    assert_ne!(other_tag, tag);
    let malformed = [
        // Of our prefix, but not of our form, or with a tag that is not its own.
        format!("{body}{other_tag}"),
        format!("{head}{}", "0".repeat(40)),
        key.replacen("live", "test", 1),
        key.replacen("live", "prod", 1),
        key[..key.len() - 1].to_owned(),
        format!("{key}0"),
        format!("{key} "),
        format!("{key}\n"),
        "ks_".to_owned(),
        "ks_live_".to_owned(),
        format!("{head}{}", "-".repeat(40)),
        // What no key can be.
        " ".to_owned(),
        format!(" {key}"),
        format!("Bearer {key}"),
        "sk-with-a-\0-in-it".to_owned(),
        "schlüssel".to_owned(),
        "x".repeat(513),
        "x".repeat(60_000),
    ];
    for text in malformed {
        let row = (Unauthenticated, "CREDENTIAL_MALFORMED");
        let refusal = refused(service, presenting(&text), row, &[]).await;
        // The reported defect comes from a list, so no part of the credential leaks.
        let told = refusal.message.strip_prefix("what was presented is not an API key");
        let odd = told.and_then(|told| told.strip_prefix(": "));
        let listed = |odd| Oddity::ALL.iter().any(|oddity| oddity.as_str() == odd);
        assert!(told == Some("") || odd.is_some_and(listed), "{}", refusal.message);
    }
    assert_eq!(service.admin.scrape().await.get("keystead_store_queries_total").to_bits(), 0);
}

#[tokio::test]
async fn foreign_key_is_malformed_where_no_imported_keys_are_accepted() {
    let fixture =
        Fixture::with(Embedded::start().await, |config| config.keys.accept_imported = false);
    let Fixture { service, keys, .. } = &fixture.await;
    keys.import("sk-legacy", of_acme()).await;
    for text in ["sk-legacy", "sk-other", "KS_live_0"] {
        refused(service, presenting(text), (Unauthenticated, "CREDENTIAL_MALFORMED"), &[]).await;
    }
}

async fn key_that_the_store_does_not_know_is_unknown(backend: impl Backend) {
    let Fixture { service, keys, .. } = &Fixture::new(backend).await;
    service.check_key(&keys.create(of_acme()).await).await.unwrap();
    let minted = keys.draw();
    for text in ["sk-nobody-has-this", "KS_live_0", minted.key.expose()] {
        // From the store, then from memory.
        for _ in 0..2 {
            refused(service, presenting(text), (Unauthenticated, "KEY_UNKNOWN"), &[]).await;
        }
    }
}

async fn revoked_key_is_denied_as_revoked(backend: impl Backend) {
    let Fixture { service, keys, .. } = &Fixture::new(backend).await;
    let key = keys.create(of_acme()).await;
    keys.act(&key, Action::Revoke).await;
    for _ in 0..2 {
        let facts = [("key_id", key.id.as_str())];
        refused(service, presenting(&key.text), (Unauthenticated, "KEY_REVOKED"), &facts).await;
    }
}

async fn disabled_key_is_denied_as_disabled(backend: impl Backend) {
    let Fixture { service, keys, .. } = &Fixture::new(backend).await;
    let key = keys.create(of_acme()).await;
    keys.act(&key, Action::Disable).await;
    let facts = [("key_id", key.id.as_str())];
    refused(service, presenting(&key.text), (Unauthenticated, "KEY_DISABLED"), &facts).await;
}

async fn key_is_refused_outside_of_its_time(backend: impl Backend) {
    let Fixture { service, keys, .. } = &Fixture::new(backend).await;
    let expired = Rights { expires_at: Some(from_now(-1)), ..of_acme() };
    let early = Rights { not_before: Some(from_now(3600)), ..of_acme() };
    for (rights, reason) in [(expired, "KEY_EXPIRED"), (early, "KEY_NOT_YET_VALID")] {
        let key = keys.create(rights).await;
        let facts = [("key_id", key.id.as_str())];
        refused(service, presenting(&key.text), (Unauthenticated, reason), &facts).await;
    }
}

async fn key_is_refused_without_each_scope_that_is_needed(backend: impl Backend) {
    let Fixture { service, keys, .. } = &Fixture::new(backend).await;
    let key = keys.create(Rights { scopes: vec!["read".to_owned()], ..of_acme() }).await;
    let needing = |scopes: &[&str]| CheckRequest {
        required_scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        ..presenting(&key.text)
    };
    service.check(needing(&["read"])).await.unwrap();
    for (scopes, missing) in [
        (&["write"][..], "write"),
        (&["read", "write"], "write"),
        (&["Read"], "Read"),
        (&["rea", "read", "write"], "rea write"),
    ] {
        let row = (PermissionDenied, "SCOPE_MISSING");
        let facts = [("key_id", key.id.as_str()), ("missing_scopes", missing)];
        let refusal = refused(service, needing(scopes), row, &facts).await;
        let named = format!(": `{}`", missing.replace(' ', "`, `"));
        assert!(refusal.message.ends_with(&named), "{refusal:?}");
    }
}

async fn key_is_refused_from_outside_of_its_networks(backend: impl Backend) {
    let Fixture { service, keys, .. } = &Fixture::new(backend).await;
    let allowed_networks = vec!["10.0.0.0/8".parse().unwrap()];
    let key = keys.create(Rights { allowed_networks, ..of_acme() }).await;
    let from = |ip: &str| CheckRequest { client_ip: ip.to_owned(), ..presenting(&key.text) };
    for inside in ["10.1.2.3", "::ffff:10.1.2.3"] {
        service.check(from(inside)).await.unwrap();
    }
    let facts = [("key_id", key.id.as_str())];
    // An address that is not known is refused too.
    for outside in ["11.0.0.1", "::ffff:11.0.0.1", "::1", ""] {
        let row = (PermissionDenied, "CLIENT_NETWORK_FORBIDDEN");
        refused(service, from(outside), row, &facts).await;
    }
}

async fn key_is_refused_for_other_audiences(backend: impl Backend) {
    let Fixture { service, keys, .. } = &Fixture::new(backend).await;
    let key = keys.create(Rights { audiences: vec!["orders".to_owned()], ..of_acme() }).await;
    let asking = |who: &str| CheckRequest { audience: who.to_owned(), ..presenting(&key.text) };
    service.check(asking("orders")).await.unwrap();
    let facts = [("key_id", key.id.as_str())];
    // Who does not tell is refused too.
    for other in ["invoices", "Orders", ""] {
        let row = (PermissionDenied, "AUDIENCE_FORBIDDEN");
        refused(service, asking(other), row, &facts).await;
    }
}
