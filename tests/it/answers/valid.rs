//! OK, and all that comes with it.

use std::time::Duration;

use keystead::{
    key::Rights,
    transport::pb::{CheckRequest, CheckResponse, Freshness},
};
use tonic::Code;

use super::counted_once;
use crate::harness::{
    backend::{Backend, on_both_stores},
    fixture::Fixture,
    keys::{Key, from_now, of_acme},
};

on_both_stores! {
    valid_key_is_answered_with_all_that_is_stored_of_it,
    key_without_rights_or_expiry_is_answered_without_them,
    imported_key_is_accepted,
}

fn age(answer: &CheckResponse) -> Duration {
    let age = answer.evidence.as_ref().unwrap().age;
    age.expect("evidence has an age").try_into().unwrap()
}

async fn valid_key_is_answered_with_all_that_is_stored_of_it(backend: impl Backend) {
    let Fixture { service, keys, .. } = &Fixture::new(backend).await;
    let expires_at = from_now(3600);
    let rights = Rights {
        principal: "acme".to_owned(),
        name: "billing".to_owned(),
        scopes: vec!["read".to_owned(), "write".to_owned()],
        allowed_networks: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        audiences: vec!["orders".to_owned(), "invoices".to_owned()],
        metadata: [("plan", "gold"), ("größe", "✓ \"x\"\n"), ("empty", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        not_before: Some(from_now(-3600)),
        expires_at: Some(expires_at),
    };
    let key = keys.create(rights.clone()).await;
    let request = CheckRequest {
        api_key: key.text.clone(),
        required_scopes: vec!["write".to_owned()],
        client_ip: "::ffff:10.1.2.3".to_owned(),
        audience: "invoices".to_owned(),
    };

    let before = service.admin.scrape().await;
    let first = service.check(request.clone()).await.unwrap();
    counted_once(&before, &service.admin.scrape().await, (Code::Ok, ""));

    assert_eq!(first.key_id, key.id.as_str());
    assert_eq!(first.principal, "acme");
    assert_eq!(first.scopes, rights.scopes);
    assert_eq!(first.metadata, rights.metadata.into_iter().collect());
    let expiry = first.expires_at.unwrap();
    assert_eq!(expiry.seconds, expires_at.as_second());
    assert_eq!(expiry.nanos, expires_at.subsec_nanosecond());
    let evidence = first.evidence.as_ref().unwrap();
    assert_eq!(evidence.freshness(), Freshness::Fresh);
    assert_eq!(evidence.revision, keys.record(&key).await.revision.0);

    // From memory the same is said, of something that is older now.
    let second = service.check(request).await.unwrap();
    assert!(age(&second) > age(&first), "{second:?}");
    let mut as_first = second;
    as_first.evidence = first.evidence;
    assert_eq!(as_first, first);
}

async fn key_without_rights_or_expiry_is_answered_without_them(backend: impl Backend) {
    let Fixture { service, keys, .. } = &Fixture::new(backend).await;
    let key = keys.create(of_acme()).await;
    let answer = service.check_key(&key).await.unwrap();
    let evidence = answer.evidence;
    let expected = CheckResponse {
        key_id: key.id.to_string(),
        principal: "acme".to_owned(),
        evidence,
        ..CheckResponse::default()
    };
    assert_eq!(answer, expected);
}

async fn imported_key_is_accepted(backend: impl Backend) {
    let Fixture { service, keys, .. } = &Fixture::new(backend).await;
    for text in ["sk-legacy-0123456789", "a", &"x".repeat(512)] {
        let key: Key = keys.import(text, of_acme()).await;
        let answer = service.check_key(&key).await.unwrap();
        assert_eq!(answer.key_id, key.id.as_str());
    }
}
