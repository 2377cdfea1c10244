//! 401 and 403, each on its evidence, in a form that the client reads.

use keystead::key::{Action, Rights};
use tonic::Code::{PermissionDenied, Unauthenticated};

use super::{Ask, refused};
use crate::harness::{
    app::Service,
    backend::{Backend, Embedded},
    fixture::Fixture,
    keys::{from_now, of_acme},
};

async fn with_hops(hops: u8) -> Fixture<Embedded> {
    Fixture::with(Embedded::start().await, |config| config.ext_authz.trusted_hops = hops).await
}

async fn in_ten(fixture: &Fixture<Embedded>) -> String {
    let allowed_networks = vec!["10.0.0.0/8".parse().unwrap()];
    fixture.keys.create(Rights { allowed_networks, ..of_acme() }).await.text
}

#[tokio::test]
async fn every_reason_against_a_credential_is_a_401() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let revoked = keys.create(of_acme()).await;
    keys.act(&revoked, Action::Revoke).await;
    let disabled = keys.create(of_acme()).await;
    keys.act(&disabled, Action::Disable).await;
    let expired = keys.create(Rights { expires_at: Some(from_now(-1)), ..of_acme() }).await;
    let early = keys.create(Rights { not_before: Some(from_now(3600)), ..of_acme() }).await;
    service.check_key(&keys.create(of_acme()).await).await.unwrap();
    let unknown = keys.draw();
    for (ask, reason) in [
        (Ask::new(), "CREDENTIAL_MISSING"),
        (Ask::new().header("authorization", "Basic dXNlcjpwYXNz"), "CREDENTIAL_MISSING"),
        (Ask::bearer("ks_live_0"), "CREDENTIAL_MALFORMED"),
        (Ask::bearer(unknown.key.expose()), "KEY_UNKNOWN"),
        (Ask::bearer("sk-foreign"), "KEY_UNKNOWN"),
        (Ask::bearer(&revoked.text), "KEY_REVOKED"),
        (Ask::bearer(&disabled.text), "KEY_DISABLED"),
        (Ask::bearer(&expired.text), "KEY_EXPIRED"),
        (Ask::bearer(&early.text), "KEY_NOT_YET_VALID"),
    ] {
        for ask in [ask.clone(), ask.raw()] {
            let told = refused(service, &ask, (Unauthenticated, reason)).await;
            assert!(!told.as_error, "{told:?}");
            told.is_json();
        }
    }
}

#[tokio::test]
async fn key_that_lacks_what_its_route_needs_is_a_403() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let rights = Rights {
        scopes: vec!["read".to_owned(), "list".to_owned()],
        audiences: vec!["orders".to_owned()],
        ..of_acme()
    };
    let key = keys.create(rights).await.text;
    let needing = |scopes: &str, audience: &str| {
        let needs = [("keystead.scopes", scopes), ("keystead.audience", audience)];
        let told = needs.into_iter().filter(|(_, value)| !value.is_empty());
        told.fold(Ask::bearer(&key), |ask, (name, value)| ask.extension(name, value))
    };
    for scopes in ["", "read", "list read", "  read   list "] {
        needing(scopes, "orders").allowed(service.channel()).await;
    }
    for scopes in ["write", "read write", "Read", "read-list"] {
        let row = (PermissionDenied, "SCOPE_MISSING");
        refused(service, &needing(scopes, "orders"), row).await.is_json();
    }
    for audience in ["", "invoices", "orders "] {
        let row = (PermissionDenied, "AUDIENCE_FORBIDDEN");
        refused(service, &needing("read", audience), row).await.is_json();
    }
}

async fn forbidden(service: &Service, ask: Ask) {
    let row = (PermissionDenied, "CLIENT_NETWORK_FORBIDDEN");
    refused(service, &ask, row).await.is_json();
}

#[tokio::test]
async fn without_trusted_hops_the_client_is_the_other_end_of_the_connection() {
    let fixture = with_hops(0).await;
    let key = in_ten(&fixture).await;
    for source in ["10.1.2.3", "::ffff:10.1.2.3"] {
        Ask::bearer(&key).from(source).allowed(fixture.service.channel()).await;
    }
    for source in ["11.0.0.1", "::1", "", "10.1.2.3:80", "/tmp/socket"] {
        forbidden(&fixture.service, Ask::bearer(&key).from(source)).await;
    }
    let made_up = Ask::bearer(&key).from("11.0.0.1").header("x-forwarded-for", "10.1.2.3");
    forbidden(&fixture.service, made_up).await;
}

#[tokio::test]
async fn key_for_the_network_of_the_proxy_is_refused_where_fewer_addresses_came_than_are_trusted() {
    let fixture = with_hops(2).await;
    let key = in_ten(&fixture).await;
    let from_the_proxy = || Ask::bearer(&key).from("10.1.2.3");
    forbidden(&fixture.service, from_the_proxy()).await;
    for forwarded_for in ["", "10.1.2.3"] {
        let ask = from_the_proxy().header("x-forwarded-for", forwarded_for);
        forbidden(&fixture.service, ask.clone()).await;
        forbidden(&fixture.service, ask.raw()).await;
    }
}

#[tokio::test]
async fn with_trusted_hops_the_client_is_counted_from_the_right() {
    let fixture = with_hops(2).await;
    let key = in_ten(&fixture).await;
    let forwarded = |values: &[&str]| {
        let ask = Ask::bearer(&key).from("11.0.0.1");
        values.iter().fold(ask, |ask, value| ask.header("x-forwarded-for", value))
    };
    for values in [
        &["10.1.2.3, 192.0.2.1"][..],
        &["192.0.2.9, 10.1.2.3", "192.0.2.1"],
        &["192.0.2.9", "[::ffff:10.1.2.3]:443 , 192.0.2.1:80"],
        &["unknown, 10.1.2.3:80, unknown"],
    ] {
        for ask in [forwarded(values), forwarded(values).raw()] {
            ask.allowed(fixture.service.channel()).await;
        }
    }
    for values in [
        &["10.1.2.3, 192.0.2.9, 192.0.2.1"][..],
        &["10.1.2.3, unknown, 192.0.2.1"],
        &["192.0.2.9, 10.1.2.3"],
        // Too few: where the client is is not known.
        &["10.1.2.3"],
        &[],
    ] {
        for ask in [forwarded(values), forwarded(values).raw()] {
            forbidden(&fixture.service, ask).await;
        }
    }
}

#[tokio::test]
async fn client_that_reads_no_json_gets_plain_text() {
    let Fixture { service, .. } = &Fixture::new(Embedded::start().await).await;
    let row = (Unauthenticated, "CREDENTIAL_MISSING");
    for ask in [
        Ask::new().header("accept", "text/plain"),
        Ask::new().header("accept", "text/html").header("accept", "text/*;q=0.5"),
        Ask::new().header("content-type", "text/csv"),
    ] {
        let told = refused(service, &ask, row).await;
        assert_eq!(told.headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(told.body, "CREDENTIAL_MISSING: no API key was presented\n");
    }
    refused(service, &Ask::new().header("accept", "text/plain, */*"), row).await.is_json();
}

#[tokio::test]
async fn grpc_client_gets_the_status_that_keystead_itself_sends() {
    let Fixture { service, keys, .. } = &Fixture::new(Embedded::start().await).await;
    let key = keys.create(of_acme()).await;
    keys.act(&key, Action::Revoke).await;
    let direct = service.check_key(&key).await.unwrap_err();
    for content_type in ["application/grpc", "application/grpc+proto"] {
        let ask = Ask::bearer(&key.text).header("content-type", content_type);
        let told = refused(service, &ask, (Unauthenticated, "KEY_REVOKED")).await;
        assert_eq!(told.headers.get("content-type"), None, "Envoy's own stands");
        let behind_envoy = told.as_grpc();
        behind_envoy.is_honest();
        assert_eq!(behind_envoy, crate::harness::refusal::Refusal::of(&direct));
    }
}
