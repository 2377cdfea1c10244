use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use tonic_types::StatusExt;

use super::*;
use crate::{
    check::{Denial, MissingCredential, PresentedTwice, Reason},
    outage::Unavailable,
    store::StoreErrorKind,
    transport::proxied::fixture::Request,
};

fn form(headers: &[(&str, &str)]) -> Form {
    let with = |request: Request, (name, value): &(&str, &str)| request.with(name, value);
    Form::for_request(&headers.iter().fold(Request::default(), with))
}

#[test]
fn form_follows_what_the_client_accepts() {
    for accept in ["*/*", "application/json", "text/plain, */*;q=0.1", "text/html", "image/*", ""] {
        assert_eq!(form(&[("accept", accept)]), Form::Json, "{accept}");
    }
    for accept in [
        "text/plain",
        "TEXT/PLAIN;q=0.5",
        "text/*",
        "text/html, text/plain;charset=utf-8",
        "text/plain, application/json;q=0",
        "text/plain, */* ; q = 0.0",
    ] {
        assert_eq!(form(&[("accept", accept)]), Form::Text, "{accept}");
    }
    assert_eq!(form(&[("accept", "text/html"), ("accept", "text/plain")]), Form::Text);
    assert_eq!(form(&[("accept", "text/plain"), ("accept", "application/*")]), Form::Json);
    assert_eq!(form(&[("accept", "text/plain;q=0, image/png")]), Form::Json);
    assert_eq!(form(&[]), Form::Json);
    assert_eq!(form(&[("content-type", "text/csv; charset=x")]), Form::Text);
    assert_eq!(form(&[("content-type", "text/csv"), ("accept", "*/*")]), Form::Json);
}

#[test]
fn grpc_clients_get_the_grpc_form_and_browsers_do_not() {
    for grpc in ["application/grpc", "application/grpc+proto", "Application/GRPC; x=y"] {
        assert_eq!(form(&[("content-type", grpc), ("accept", "text/plain")]), Form::Grpc, "{grpc}");
    }
    for other in ["application/grpc-web", "application/grpc-web+proto", "application/grp", ""] {
        assert_eq!(form(&[("content-type", other)]), Form::Json, "{other}");
    }
}

fn header(refusal: &HttpRefusal, name: &str) -> Option<String> {
    refusal.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

fn outage() -> Refusal {
    Unavailable::Store(StoreErrorKind::Timeout).into()
}

#[test]
fn json_has_code_reason_and_message() {
    let refusal = HttpRefusal::new(&Refusal::invalid("say \"what\""), Form::Json);
    assert_eq!(refusal.status, 400);
    assert_eq!(header(&refusal, "content-type").unwrap(), "application/json");
    let expected = r#"{"error":{"code":"INVALID_ARGUMENT","reason":"REQUEST_INVALID","message":"say \"what\""}}"#;
    let [body, expected]: [Value; 2] =
        [refusal.body.as_str(), expected].map(|text| serde_json::from_str(text).unwrap());
    assert_eq!(body, expected);
}

#[test]
fn text_has_reason_and_message_in_one_line() {
    let refusal = HttpRefusal::new(&Refusal::invalid("no"), Form::Text);
    assert_eq!(header(&refusal, "content-type").unwrap(), "text/plain; charset=utf-8");
    assert_eq!(refusal.body, "REQUEST_INVALID: no\n");
}

#[test]
fn grpc_has_code_and_details_besides_the_message() {
    let refusal = HttpRefusal::new(&outage(), Form::Grpc);
    assert_eq!(refusal.status, 503);
    assert!(refusal.body.contains("the key was not rejected"), "{}", refusal.body);
    assert_eq!(header(&refusal, "content-type"), None);
    assert_eq!(header(&refusal, "grpc-message"), None);
    let status = Status::from_header_map(&refusal.headers).unwrap();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.get_details_error_info().unwrap().reason, "STORE_TIMEOUT");
    let delay = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    let pushback = header(&refusal, "grpc-retry-pushback-ms").unwrap();
    assert_eq!(pushback, delay.as_millis().to_string());
}

#[test]
fn outage_has_retry_after_in_whole_seconds() {
    for _ in 0..50 {
        for form in [Form::Json, Form::Text, Form::Grpc] {
            let refusal = outage();
            let rendered = HttpRefusal::new(&refusal, form);
            assert_eq!(rendered.status, 503);
            assert!(rendered.body.contains("the key was not rejected"), "{rendered:?}");
            let seconds: u64 = header(&rendered, "retry-after").unwrap().parse().unwrap();
            let delay = refusal.retry_after().unwrap();
            let rounded = Duration::from_secs(seconds);
            assert!(delay <= rounded && rounded < delay + Duration::from_secs(1), "{rendered:?}");
            assert_eq!(header(&rendered, "www-authenticate"), None);
        }
    }
    let bug = HttpRefusal::new(&Unavailable::Internal.into(), Form::Json);
    assert_eq!((bug.status.as_u16(), header(&bug, "retry-after")), (500, None));
}

#[test]
fn refusals_are_never_cacheable() {
    for form in [Form::Json, Form::Text, Form::Grpc] {
        for refusal in [outage(), Refusal::invalid("no"), (&Denial::from(MissingCredential)).into()]
        {
            let rendered = HttpRefusal::new(&refusal, form);
            assert_eq!(
                header(&rendered, "cache-control").as_deref(),
                Some("no-store"),
                "{rendered:?}"
            );
        }
    }
}

#[test]
fn denial_has_a_challenge() {
    let missing = HttpRefusal::new(&(&Denial::from(MissingCredential)).into(), Form::Json);
    assert_eq!(missing.status, 401);
    assert_eq!(header(&missing, "www-authenticate").unwrap(), r#"Bearer realm="keystead""#);
    assert_eq!(header(&missing, "retry-after"), None);
    let twice = HttpRefusal::new(&(&Denial::from(PresentedTwice)).into(), Form::Json);
    assert_eq!(twice.status, 401);
    let challenge = header(&twice, "www-authenticate").unwrap();
    assert_eq!(challenge, r#"Bearer realm="keystead", error="invalid_token""#);
}

#[test]
fn every_401_has_a_challenge_and_of_the_403_only_the_missing_scope() {
    for reason in Reason::ALL {
        let refusal = Refusal::for_reason(reason);
        let status = status::http_status(refusal.code);
        let expected = status == 401 || reason == Reason::ScopeMissing;
        assert_eq!(challenge(&refusal).is_some(), expected, "{reason:?}");
        assert!(status == 401 || status == 403, "{reason:?}");
    }
}

proptest! {
    #[test]
    fn choosing_a_form_never_panics(
        accept in prop::collection::vec(any::<u8>(), 0..40),
        content_type in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let request = Request::default().with("accept", accept).with("content-type", content_type);
        Form::for_request(&request);
    }

    #[test]
    fn every_message_has_a_body_in_every_form(message in any::<String>()) {
        let refusal = Refusal::invalid(message.clone());
        let json: Value = serde_json::from_str(&HttpRefusal::new(&refusal, Form::Json).body).unwrap();
        prop_assert_eq!(json["error"]["message"].as_str(), Some(message.as_str()));
        prop_assert_eq!(HttpRefusal::new(&refusal, Form::Grpc).body, message);
    }
}
