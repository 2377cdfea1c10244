//! Answers to callers: every row of the table that one instance can produce.

mod bugs;
mod denials;
mod outages;
mod requests;
mod valid;

use std::collections::BTreeMap;

use keystead::transport::pb::CheckRequest;
use tonic::Code;

use crate::harness::{
    admin::{Scrape, checks_total},
    app::Service,
    refusal::{Refusal, code_name},
};

/// Sends a check and asserts that the refusal is the expected one, carries what
/// all of its kind carry, and that it was counted once and nothing else was.
async fn refused(
    service: &Service,
    request: CheckRequest,
    (code, reason): (Code, &str),
    facts: &[(&str, &str)],
) -> Refusal {
    let before = service.admin.scrape().await;
    let status = service.check(request).await.expect_err(reason);
    let after = service.admin.scrape().await;
    let refusal = Refusal::of(&status);
    is_row(&refusal, (code, reason), facts);
    counted_once(&before, &after, (code, reason));
    refusal
}

fn is_row(refusal: &Refusal, (code, reason): (Code, &str), facts: &[(&str, &str)]) {
    refusal.is_honest();
    assert_eq!((refusal.code, refusal.reason.as_str()), (code, reason), "{refusal:?}");
    let facts = facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    assert_eq!(refusal.facts, facts.collect::<BTreeMap<_, _>>(), "{refusal:?}");
}

/// Asserts that of all checks this one alone was counted.
fn counted_once(before: &Scrape, after: &Scrape, (code, reason): (Code, &str)) {
    let counted = after.changes_since(before, "keystead_checks_total");
    let once = BTreeMap::from([(checks_total(code_name(code), reason), 1.0)]);
    assert_eq!(counted, once);
}
