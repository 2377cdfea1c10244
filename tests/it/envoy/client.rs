//! Whose address counts for keys that are restricted to networks.

use keystead::key::Rights;

use super::site::{Site, bearer, refuses};
use crate::harness::{
    envoy::{Version, on_both_envoys},
    keys::of_acme,
};

on_both_envoys! {
    address_is_that_of_the_connection_whatever_a_client_claims,
    client_address_is_found_through_balancers_that_are_configured,
    address_that_envoy_finds_is_not_sent_to_keystead,
}

const OUTSIDE: (u16, &str, &str) = (403, "PERMISSION_DENIED", "CLIENT_NETWORK_FORBIDDEN");

fn only_from(network: &str) -> Rights {
    Rights { allowed_networks: vec![network.parse().unwrap()], ..of_acme() }
}

async fn address_is_that_of_the_connection_whatever_a_client_claims(version: Version) {
    let site = Site::new(version).await;
    let here = site.fixture.keys.create(only_from("127.0.0.0/8")).await;
    let there = site.fixture.keys.create(only_from("10.0.0.0/8")).await;
    for claim in ["10.1.2.3", "10.1.2.3, 10.1.2.3", "127.0.0.1, 10.1.2.3"] {
        let [here, there] = [&here, &there].map(|key| bearer(&key.text));
        let claiming =
            |key: &str| [("authorization", key.to_owned()), ("x-forwarded-for", claim.to_owned())];
        let [allowed, refused] = [claiming(&here), claiming(&there)];
        let get = async |headers: &[(&'static str, String)]| {
            let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            site.get("/", &headers).await
        };
        assert_eq!(get(&allowed).await.status, 200, "{claim}");
        refuses(&get(&refused).await, OUTSIDE);
    }
}

/// Each balancer appends the address that it sees, and Envoy that of the last of
/// them; what is further left may be made up.
async fn client_address_is_found_through_balancers_that_are_configured(version: Version) {
    let site = Site::with(
        version,
        |config| config.ext_authz.trusted_hops = 2,
        |shown| shown.with("xff_num_trusted_hops: 0", "xff_num_trusted_hops: 1"),
    )
    .await;
    let key = site.fixture.keys.create(only_from("10.0.0.0/8")).await;
    let presented = bearer(&key.text);
    for (forwarded, allowed) in
        [("10.1.2.3", true), ("11.1.1.1, 10.1.2.3", true), ("10.1.2.3, 11.1.1.1", false)]
    {
        let headers = [("authorization", presented.as_str()), ("x-forwarded-for", forwarded)];
        let answer = site.get("/", &headers).await;
        if allowed {
            assert_eq!(answer.status, 200, "{forwarded}: {answer:?}");
        } else {
            refuses(&answer, OUTSIDE);
        }
    }
}

/// Envoy tells the address of the connection, whatever it has found itself.
async fn address_that_envoy_finds_is_not_sent_to_keystead(version: Version) {
    let site = Site::with(
        version,
        |_| (),
        |shown| shown.with("xff_num_trusted_hops: 0", "xff_num_trusted_hops: 1"),
    )
    .await;
    let key = site.fixture.keys.create(only_from("10.0.0.0/8")).await;
    let presented = bearer(&key.text);
    let headers = [("authorization", presented.as_str()), ("x-forwarded-for", "10.1.2.3")];
    refuses(&site.get("/", &headers).await, OUTSIDE);
    let log = site.envoy.access_log(1).await;
    assert_eq!(log[0]["client"], "10.1.2.3", "it knows better");
}
