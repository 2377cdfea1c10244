//! `Explain` agrees with `Check` on keys in every state.

use std::time::Duration;

use keystead::{
    config::Config,
    key::Action,
    transport::pb::{
        Agreement, Basis, CheckRequest, CredentialKind, Freshness, MemoryState, StoreAnswer,
    },
};

use super::{Control, decision, memory, store};
use crate::harness::{
    app::presenting,
    backend::{Backend, Embedded, Server, on_both_stores},
    eventually,
    fixture::without_background,
    keys::{from_now, of_acme},
};

on_both_stores! {
    credential_is_explained_by_how_it_was_read,
    key_is_explained_by_the_rule_that_decided,
    record_that_outlives_an_outage_is_explained,
}

async fn credential_is_explained_by_how_it_was_read(backend: impl Backend) {
    let control = &Control::new(backend).await;
    let keys = &control.fixture.keys;
    let key = keys.create(of_acme()).await;
    control.fixture.service.check_key(&key).await.unwrap();
    let unknown = keys.draw();
    let imported = keys.import("legacy-0123456789abcdef", of_acme()).await;
    for (text, kind, code) in [
        ("", CredentialKind::Missing, "CREDENTIAL_MISSING"),
        (&key.text[..40], CredentialKind::Malformed, "CREDENTIAL_MALFORMED"),
        (&key.text.replacen("live", "test", 1), CredentialKind::Malformed, "CREDENTIAL_MALFORMED"),
        (unknown.key.expose(), CredentialKind::Ours, "KEY_UNKNOWN"),
        ("legacy-of-nobody-at-all", CredentialKind::Foreign, "KEY_UNKNOWN"),
        (&imported.text, CredentialKind::Foreign, ""),
    ] {
        let explained = control.agrees(presenting(text)).await;
        let credential = explained.credential.clone().unwrap();
        assert_eq!((credential.kind(), decision(&explained).reason.as_str()), (kind, code));
        let looked_up = matches!(kind, CredentialKind::Ours | CredentialKind::Foreign);
        assert_eq!((explained.memory.is_some(), explained.store.is_some()), (looked_up, looked_up));
        assert_eq!(decision(&explained).basis() == Basis::Credential, !looked_up);
        assert!(!credential.reading.is_empty() && !decision(&explained).rule.is_empty());
    }
    let explained = control.explain_key(&key).await;
    let fingerprint = keys.record(&key).await.secret.unwrap().to_string();
    assert_eq!(explained.credential.unwrap().secret_fingerprint, fingerprint);
}

async fn key_is_explained_by_the_rule_that_decided(backend: impl Backend) {
    let control = &Control::new(backend).await;
    let keys = &control.fixture.keys;
    let revoked = keys.create(of_acme()).await;
    keys.act(&revoked, Action::Revoke).await;
    let mut rights = of_acme();
    rights.expires_at = Some(from_now(-60));
    let expired = keys.create(rights.clone()).await;
    let mut limited = of_acme();
    limited.scopes = vec!["read".to_owned()];
    limited.allowed_networks = vec!["10.0.0.0/8".parse().unwrap()];
    let limited = keys.create(limited).await;
    let reading = CheckRequest {
        required_scopes: vec!["read".to_owned()],
        client_ip: "10.1.2.3".to_owned(),
        ..presenting(&limited.text)
    };
    let writing = CheckRequest { required_scopes: vec!["write".to_owned()], ..reading.clone() };
    let elsewhere = CheckRequest { client_ip: "192.0.2.1".to_owned(), ..reading.clone() };
    let end = rights.expires_at.unwrap().to_string();
    for (request, reason, word) in [
        (presenting(&revoked.text), "KEY_REVOKED", "state=revoked"),
        (presenting(&expired.text), "KEY_EXPIRED", end.as_str()),
        (writing, "SCOPE_MISSING", "not granted is `write`; granted is `read`"),
        (elsewhere, "CLIENT_NETWORK_FORBIDDEN", "`192.0.2.1`; allowed is `10.0.0.0/8`"),
        (reading, "", "active"),
    ] {
        // With nothing in memory or with what another request has left there, and
        // then certainly with it.
        for _ in 0..2 {
            let explained = control.agrees(request.clone()).await;
            let told = decision(&explained);
            assert_eq!(told.reason, reason);
            assert!(told.rule.contains(word), "{}", told.rule);
        }
        let explained = control.explain(request).await;
        assert_eq!(decision(&explained).basis(), Basis::Memory);
        assert_eq!(memory(&explained).state(), MemoryState::Fresh);
        assert_eq!(store(&explained).answer(), StoreAnswer::Found);
        assert_eq!(store(&explained).agreement(), Agreement::Same, "{explained:?}");
        assert_eq!(memory(&explained).record, store(&explained).record);
        assert!(memory(&explained).served_until.unwrap().seconds > from_now(60).as_second());
    }
}

#[tokio::test]
async fn change_that_has_not_arrived_is_reported() {
    // Changes of the embedded store are polled, and here they are not.
    let control = &Control::with(Embedded::start().await, without_background).await;
    let key = control.fixture.keys.create(of_acme()).await;
    control.fixture.service.check_key(&key).await.unwrap();
    control.fixture.keys.act(&key, Action::Disable).await;
    let explained = control.agrees(presenting(&key.text)).await;
    assert_eq!(decision(&explained).code, "OK");
    assert_eq!(store(&explained).agreement(), Agreement::StoreIsNewer);
    assert_eq!(store(&explained).alone, "KEY_DISABLED");
    assert_eq!(memory(&explained).record.as_ref().unwrap().state, "active");
    assert_eq!(store(&explained).record.as_ref().unwrap().state, "disabled");
    assert!(explained.notes.iter().any(|note| note.contains("has not been applied here yet")));
}

/// A record is stale at once.
fn stale_at_once(config: &mut Config) {
    let moment = Duration::from_millis(1);
    config.cache.fresh_for = moment;
    config.cache.feed_fresh_for = moment;
    config.cache.revalidate_for = Duration::ZERO;
}

async fn record_that_outlives_an_outage_is_explained(backend: impl Backend) {
    let mut control = Control::with(backend, stale_at_once).await;
    let key = control.fixture.keys.create(of_acme()).await;
    let never_seen = control.fixture.keys.create(of_acme()).await;
    control.fixture.service.check_key(&key).await.unwrap();
    let explained = control.explain_key(&key).await;
    assert_eq!(memory(&explained).state(), MemoryState::StaleIfError);
    assert_eq!(decision(&explained).basis(), Basis::Store, "{explained:?}");

    control.fixture.backend.vanish().await;
    let explained = control.agrees(presenting(&key.text)).await;
    let (held, asked) = (memory(&explained), store(&explained));
    assert_eq!(decision(&explained).basis(), Basis::Memory);
    let evidence = decision(&explained).answer.as_ref().unwrap().evidence.unwrap();
    assert_eq!(evidence.freshness(), Freshness::StaleIfError);
    assert_eq!(held.state(), MemoryState::StaleIfError);
    assert!(held.age.is_some() && held.served_until.is_some());
    assert_eq!((asked.answer(), asked.cause.as_str()), (StoreAnswer::Error, "unreachable"));
    assert!(!asked.detail.is_empty());
    assert!(explained.notes.iter().any(|note| note.contains("until 2")), "{explained:?}");
    let explained = control.agrees(presenting(&never_seen.text)).await;
    assert_eq!(decision(&explained).basis(), Basis::Nothing);
    assert_eq!(memory(&explained).state(), MemoryState::Nothing);
    assert!(explained.doubts.unwrap().in_doubt);

    control.fixture.backend.come_back().await;
    let explained = eventually("the store answers again", async || {
        let explained = control.explain_key(&never_seen).await;
        (decision(&explained).code == "OK").then_some(explained)
    })
    .await;
    assert_eq!(store(&explained).answer(), StoreAnswer::Found);
}

#[tokio::test]
async fn emptied_store_is_explained_as_suspect_and_not_as_unknown_keys() {
    let control = Control::with(Server::start().await, |config| {
        config.cache.fresh_for = Duration::from_millis(100);
        config.cache.feed_fresh_for = Duration::from_millis(100);
    })
    .await;
    let keys = control.fixture.keys.create_many(10).await;
    let (seen, unseen) = keys.split_at(8);
    for key in seen {
        control.fixture.service.check_key(key).await.unwrap();
    }
    control.explain_key(&seen[0]).await;
    control.fixture.backend.sql("TRUNCATE keystead.api_keys").await;
    let explained = control.explain_key(&unseen[0]).await;
    assert_eq!(decision(&explained).reason, "STORE_SUSPECT", "{explained:?}");
    let explained = eventually("the probe finds it", async || {
        let explained = control.explain_key(&unseen[0]).await;
        explained.doubts.as_ref().unwrap().suspect.then_some(explained)
    })
    .await;
    assert_eq!(decision(&explained).reason, "STORE_SUSPECT");
    assert_eq!(decision(&explained).basis(), Basis::Nothing);
    assert_eq!(
        (store(&explained).answer(), store(&explained).alone.as_str()),
        (StoreAnswer::Absent, "KEY_UNKNOWN")
    );
    assert!(explained.notes.iter().any(|note| note.contains("the store is suspect")));
    control.agrees(presenting(&unseen[1].text)).await;
    let explained = eventually("a check has missed the row", async || {
        control.fixture.service.check_key(&seen[0]).await.expect("known keys go on");
        let explained = control.explain_key(&seen[0]).await;
        memory(&explained).missing_for.is_some().then_some(explained)
    })
    .await;
    assert_eq!(decision(&explained).code, "OK");
    assert_eq!(memory(&explained).state(), MemoryState::StaleIfError);
    assert_eq!(store(&explained).agreement(), Agreement::StoreLacksIt);
}
