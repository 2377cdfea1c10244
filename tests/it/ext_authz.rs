//! Answers to Envoy, requested with Envoy's own messages as others define them.

mod bugs;
mod credentials;
mod denied;
mod granted;
mod outages;
mod requests;

use std::collections::BTreeMap;

use tonic::Code;

use crate::harness::{
    admin::{Scrape, checks_of},
    app::Service,
    ext_authz::{Ask, Refused, Verdict},
    refusal::code_name,
};

/// Sends a check and asserts that it is refused for that reason, both to the HTTP
/// client and to Envoy, and that one check and nothing else was counted.
async fn refused(service: &Service, ask: &Ask, (code, reason): (Code, &str)) -> Refused {
    let before = service.admin.scrape().await;
    let verdict = ask.send(service.channel()).await.unwrap();
    let after = service.admin.scrape().await;
    let Verdict::Refused(refused) = verdict else { panic!("{reason}: {verdict:?}") };
    refused.is_row((code, reason));
    counted_once(&before, &after, (code, reason));
    refused
}

/// Asserts that of all checks this one alone was counted.
fn counted_once(before: &Scrape, after: &Scrape, (code, reason): (Code, &str)) {
    let counted = after.changes_since(before, "keystead_checks_total");
    let once = BTreeMap::from([(checks_of("ext_authz", code_name(code), reason), 1.0)]);
    assert_eq!(counted, once);
}
