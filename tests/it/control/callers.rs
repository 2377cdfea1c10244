//! Which callers are authorized.

use keystead::key::Action;
use tonic::Code::{self, PermissionDenied, Unauthenticated, Unavailable};

use super::{Control, administrator};
use crate::harness::{
    app::presenting,
    backend::{Backend, on_both_stores},
    eventually,
    keys::{from_now, of_acme},
    refusal::Refusal,
};

on_both_stores! {
    caller_without_a_valid_key_and_its_scope_is_refused_with_the_reason,
    revoked_administrator_is_refused,
    cached_administrator_is_admitted_during_an_outage_and_an_uncached_one_gets_unavailable,
}

/// Asserts that a caller is refused, and that it was counted as one who explains.
async fn is_refused<B: Backend>(
    control: &Control<B>,
    caller: Option<&str>,
    (code, reason): (Code, &str),
) -> Refusal {
    let admin = control.fixture.service.admin;
    let before = admin.scrape().await;
    let asked = control.explain_as(caller, presenting(&control.admin.text)).await;
    let refusal = Refusal::of(&asked.unwrap_err());
    refusal.is_honest();
    assert_eq!((refusal.code, refusal.reason.as_str()), (code, reason), "{refusal:?}");
    let counted = admin.scrape().await.changes_since(&before, "keystead_checks_total");
    let [(series, count)] = &counted.into_iter().collect::<Vec<_>>()[..] else {
        panic!("one series is counted");
    };
    assert!(series.contains(reason) && series.contains(r#"surface="explain""#), "{series}");
    assert!((count - 1.0).abs() < 0.5, "{count}");
    refusal
}

async fn caller_without_a_valid_key_and_its_scope_is_refused_with_the_reason(
    backend: impl Backend,
) {
    let control = &Control::new(backend).await;
    let keys = &control.fixture.keys;
    is_refused(control, None, (Unauthenticated, "CREDENTIAL_MISSING")).await;
    is_refused(control, Some(""), (Unauthenticated, "CREDENTIAL_MISSING")).await;
    let forged = control.admin.text.replacen("live", "test", 1);
    is_refused(control, Some(&forged), (Unauthenticated, "CREDENTIAL_MALFORMED")).await;
    control.fixture.service.check_key(&keys.create(of_acme()).await).await.unwrap();
    let unknown = keys.draw().key.expose().to_owned();
    is_refused(control, Some(&unknown), (Unauthenticated, "KEY_UNKNOWN")).await;
    let mut rights = of_acme();
    rights.scopes = vec!["keystead".to_owned(), "keystead.admin.not".to_owned()];
    let other = keys.create(rights).await;
    let refusal = is_refused(control, Some(&other.text), (PermissionDenied, "SCOPE_MISSING")).await;
    assert_eq!(refusal.facts["key_id"], other.id.as_str());
    let mut rights = administrator();
    rights.expires_at = Some(from_now(-1));
    let expired = keys.create(rights).await;
    is_refused(control, Some(&expired.text), (Unauthenticated, "KEY_EXPIRED")).await;
    control.explain_as(Some(&control.admin.text), presenting("")).await.unwrap();
}

async fn revoked_administrator_is_refused(backend: impl Backend) {
    let control = &Control::new(backend).await;
    control.explain_as(Some(&control.admin.text), presenting("")).await.unwrap();
    control.fixture.keys.act(&control.admin, Action::Revoke).await;
    eventually("the revocation is noticed", async || {
        control.explain_as(Some(&control.admin.text), presenting("")).await.err()
    })
    .await;
    is_refused(control, Some(&control.admin.text), (Unauthenticated, "KEY_REVOKED")).await;
}

async fn cached_administrator_is_admitted_during_an_outage_and_an_uncached_one_gets_unavailable(
    backend: impl Backend,
) {
    let mut control = Control::new(backend).await;
    let cold = control.fixture.keys.create(administrator()).await;
    control.explain(presenting("")).await;
    control.fixture.backend.vanish().await;
    control.explain(presenting("")).await;
    let asked = control.explain_as(Some(&cold.text), presenting("")).await;
    let refusal = Refusal::of(&asked.unwrap_err());
    refusal.is_honest();
    assert_eq!((refusal.code, refusal.reason.as_str()), (Unavailable, "STORE_UNREACHABLE"));
}
