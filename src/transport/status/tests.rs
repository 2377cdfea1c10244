//! Tests of the table, row by row.

use tonic_types::StatusExt;

use super::*;
use crate::{
    check::{MissingCredential, PresentedTwice},
    key::Prefix,
};

fn status(outage: Unavailable) -> Status {
    Refusal::from(outage).into_status()
}

#[test]
fn no_outage_is_answered_with_a_denial() {
    let kinds = StoreErrorKind::ALL.map(Unavailable::Store);
    let others = [
        Unavailable::BreakerOpen,
        Unavailable::Suspect,
        Unavailable::Overloaded,
        Unavailable::Draining,
    ];
    for outage in kinds.into_iter().chain(others) {
        let status = status(outage);
        assert_eq!(status.code(), Code::Unavailable, "{outage:?}");
        assert!(status.message().contains("the key was not rejected"), "{outage:?}");
    }
    assert_eq!(status(Unavailable::Internal).code(), Code::Internal);
}

#[test]
fn every_outage_has_a_retry_delay_in_details_and_trailer() {
    for _ in 0..100 {
        let status = status(Unavailable::Store(StoreErrorKind::Timeout));
        let delay = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap();
        assert!((500..=1500).contains(&delay.as_millis()), "{delay:?}");
        let pushback = status.metadata().get(RETRY_PUSHBACK).unwrap().to_str().unwrap();
        assert_eq!(pushback.parse(), Ok(delay.as_millis()));
    }
}

#[test]
fn denials_have_no_retry_delay() {
    let status = Refusal::from(&Denial::from(MissingCredential)).into_status();
    assert!(status.get_details_retry_info().is_none());
    assert!(status.metadata().get(RETRY_PUSHBACK).is_none());
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("CREDENTIAL_MISSING", DOMAIN));
}

#[test]
fn denial_without_evidence_is_counted_and_answered_as_internal() {
    let (metrics, exposition) = Metrics::new().unwrap();
    let counted = |times: u8| {
        let text = String::from_utf8(exposition.text().unwrap()).unwrap();
        let line = format!("keystead_denials_without_evidence_total {times}");
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    };
    let valid = Refusal::from(&Denial::from(MissingCredential));
    assert_eq!(valid.clone().audited(&metrics), valid);
    assert_eq!(Refusal::from(Unavailable::Suspect).audited(&metrics).code, Code::Unavailable);
    counted(0);
    let made_up = Refusal::new(Code::PermissionDenied, "KEY_UNKNOWN", "".into());
    assert_eq!(made_up.audited(&metrics).code, Code::Internal);
    counted(1);
}

#[test]
fn no_refusal_has_the_code_ok() {
    let made_up = Refusal::new(Code::Ok, "", "".into());
    assert_eq!(made_up.as_rpc().code, Code::Internal as i32);
    assert_eq!(made_up.into_status().code(), Code::Internal);
    for reason in Reason::ALL {
        let refusal = Refusal::for_reason(reason);
        let rpc = refusal.as_rpc();
        assert!(rpc.code != 0 && rpc.code == refusal.code as i32, "{rpc:?}");
        assert_eq!((rpc.message.as_str(), rpc.details.len()), (refusal.message(), 1));
        let of_a_key = Refusal { facts: vec![("key_id", "key_1".to_owned())], ..refusal };
        assert_eq!(of_a_key.details(), of_a_key.as_rpc().encode_to_vec());
    }
}

#[test]
fn denial_without_facts_is_pre_encoded_with_the_oddity_of_the_credential() {
    let mut twice = Denial::from(PresentedTwice);
    let mut missing = Denial::from(MissingCredential);
    assert!(Refusal::from(&missing).message().ends_with("no API key was presented"));
    missing.without_scheme();
    twice.look_at(b"\"x\"", &Prefix::default());
    for (denial, oddity) in [(twice, Oddity::Several), (missing, Oddity::NoScheme)] {
        let refusal = Refusal::from(&denial);
        assert!(refusal.message().ends_with(oddity.as_str()), "{refusal:?}");
        assert_eq!(refusal.details(), refusal.as_rpc().encode_to_vec());
        assert_eq!(refusal.details(), BareDenial::of(&denial).details);
    }
    for (reason, row) in Reason::ALL.into_iter().zip(BARE_DENIALS.iter()) {
        assert_eq!(Reason::ALL[reason as usize], reason);
        assert!(row[0].message == Refusal::for_reason(reason).message());
        for oddity in Oddity::ALL {
            let message = &row[oddity as usize + 1].message;
            assert!(message.ends_with(oddity.as_str()), "{message}");
        }
    }
}

#[test]
fn each_outcome_has_distinct_labels() {
    let mut outcomes: Vec<_> = all_outcomes().collect();
    let count = outcomes.len();
    outcomes.sort_unstable();
    outcomes.dedup();
    assert_eq!(outcomes.len(), count);
}

#[test]
fn missing_scopes_are_in_the_message_and_in_a_fact() {
    let missing = |named: &[&str], others| {
        let named = named.iter().map(|&scope| scope.to_owned()).collect();
        Refusal::for_reason(Reason::ScopeMissing)
            .with_missing_scopes(&MissingScopes { named, others })
    };
    let two = missing(&["write", "admin"], 0);
    assert_eq!(two.message(), "the API key lacks a scope that is required: `write`, `admin`");
    assert_eq!(two.facts, [("missing_scopes", "write admin".to_owned())]);
    let hostile = missing(&["a\r\nb\u{e9}"], 3);
    assert!(hostile.message().ends_with(r": `a\r\nb\u{e9}`, 3 more"), "{}", hostile.message());
}
