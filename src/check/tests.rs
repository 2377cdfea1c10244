use std::{sync::Mutex, time::Duration};

use jiff::Timestamp;
use proptest::prelude::*;
use static_assertions::assert_not_impl_any;

use super::*;
use crate::{
    key::{CompactKey, Credential, Digest, Environment, KeyRecord, Prefix, State},
    store::{
        Lookup, Lookups, StoreError, StoreErrorKind,
        fake::{FakeStore, Mood, record},
    },
    tier::Freshness,
    time::ManualClock,
};

assert_not_impl_any!(Denial: From<StoreError>, From<StoreErrorKind>, From<Unavailable>, Default);
assert_not_impl_any!(Decision: From<StoreError>, From<StoreErrorKind>, From<Unavailable>, Default);

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Asks the store each time, and counts.
struct Direct {
    store: FakeStore,
    asked: Mutex<Vec<Digest>>,
}

impl Tier for Direct {
    async fn find(&self, credential: Credential, _: Instant) -> Result<Observation, Unavailable> {
        let digest = credential.digest();
        self.asked.lock().unwrap().push(digest);
        let lookup = self.store.find(&[digest]).await;
        let lookup: Lookup = lookup.map_err(|error| Unavailable::from(&error))?;
        Ok(Observation {
            answer: lookup.get(&digest).unwrap().clone(),
            validated_at: Instant::now(),
            freshness: Freshness::Fresh,
        })
    }
}

struct Fixture {
    store: FakeStore,
    clock: ManualClock,
    checker: Checker<Direct>,
    key: String,
    digest: Digest,
}

fn fixture(change: impl FnOnce(&mut KeyRecord)) -> Fixture {
    let ring = KeyRing::parse(SECRET, Prefix::default(), true).unwrap();
    let minted = ring.mint(Environment::Live).unwrap();
    let store = FakeStore::new(Mood::Answers);
    let mut record = record("acme", 1);
    change(&mut record);
    store.put(minted.digest, record);

    let clock = ManualClock::at(NOW);
    let keys = Direct { store: store.clone(), asked: Mutex::default() };
    let checker = Checker::new(ring, keys, Clock::Manual(clock.clone()));
    let key = minted.key.expose().to_owned();
    Fixture { store, clock, checker, key, digest: minted.digest }
}

impl Fixture {
    async fn check(&self, needs: Needs<'_>) -> Result<Decision, Unavailable> {
        self.checker
            .check(self.key.as_bytes(), needs, Instant::now() + Duration::from_secs(1))
            .await
    }

    async fn reason(&self, needs: Needs<'_>) -> Option<Reason> {
        match self.check(needs).await.unwrap() {
            Decision::Allow(_) => None,
            Decision::Deny(denial) => Some(denial.reason()),
        }
    }
}

#[tokio::test]
async fn a_valid_key_is_allowed_with_its_record() {
    let fixture = fixture(|_| {});
    let Ok(Decision::Allow(grant)) = fixture.check(Needs::default()).await else {
        panic!("it is valid");
    };
    assert_eq!(grant.record.principal(), "acme");
    assert_eq!(*fixture.checker.keys.asked.lock().unwrap(), [fixture.digest]);
}

#[tokio::test]
async fn a_forged_key_is_refused_without_asking_anyone() {
    let mut fixture = fixture(|_| {});
    fixture.key.replace_range(20..21, if &fixture.key[20..21] == "a" { "b" } else { "a" });
    assert_eq!(fixture.reason(Needs::default()).await, Some(Reason::CredentialMalformed));
    assert!(fixture.checker.keys.asked.lock().unwrap().is_empty());
    assert_eq!(fixture.store.queries(), 0);
}

#[tokio::test]
async fn a_foreign_key_is_asked_for_by_its_sha_256() {
    let mut fixture = fixture(|_| {});
    fixture.key = "sk_legacy_1234".to_owned();
    assert_eq!(fixture.reason(Needs::default()).await, Some(Reason::KeyUnknown));
    fixture.store.put(Digest::sha256_of(b"sk_legacy_1234"), record("legacy", 1));
    assert_eq!(fixture.reason(Needs::default()).await, None);
}

#[tokio::test]
async fn no_failure_of_the_store_is_a_denial() {
    for kind in StoreErrorKind::ALL {
        let fixture = fixture(|_| {});
        fixture.store.set(Mood::Fails(kind));
        assert_eq!(fixture.check(Needs::default()).await, Err(Unavailable::Store(kind)));
    }
}

#[tokio::test]
async fn the_state_of_a_record_is_told() {
    let revoked = fixture(|record| record.state = State::Revoked);
    assert_eq!(revoked.reason(Needs::default()).await, Some(Reason::KeyRevoked));
    let disabled = fixture(|record| record.state = State::Disabled);
    assert_eq!(disabled.reason(Needs::default()).await, Some(Reason::KeyDisabled));
}

#[tokio::test]
async fn a_denial_names_the_key_if_there_is_a_record_of_it() {
    let revoked = fixture(|record| record.state = State::Revoked);
    let Ok(Decision::Deny(denial)) = revoked.check(Needs::default()).await else {
        panic!("it is revoked");
    };
    assert_eq!(denial.key(), Some(&record("acme", 1).id));
    assert_eq!(Denial::from(MissingCredential).key(), None);
}

#[tokio::test]
async fn a_key_is_valid_from_its_start_until_just_before_its_end() {
    let second = Duration::from_secs(1);
    let fixture = fixture(|record| {
        record.rights.not_before = Some(NOW + second);
        record.rights.expires_at = Some(NOW + 3 * second);
    });
    assert_eq!(fixture.reason(Needs::default()).await, Some(Reason::KeyNotYetValid));
    fixture.clock.advance(second);
    assert_eq!(fixture.reason(Needs::default()).await, None);
    fixture.clock.advance(second);
    assert_eq!(fixture.reason(Needs::default()).await, None);
    fixture.clock.advance(second);
    assert_eq!(fixture.reason(Needs::default()).await, Some(Reason::KeyExpired));
}

#[tokio::test]
async fn all_scopes_must_have_been_granted() {
    let fixture = fixture(|record| record.rights.scopes = vec!["read".into(), "write".into()]);
    for (scopes, expected) in [
        (&[][..], None),
        (&["read"], None),
        (&["write", "read"], None),
        (&["read", "admin"], Some(Reason::ScopeMissing)),
        (&["Read"], Some(Reason::ScopeMissing)),
        (&["rea"], Some(Reason::ScopeMissing)),
    ] {
        let needs = Needs { scopes, ..Needs::default() };
        assert_eq!(fixture.reason(needs).await, expected, "{scopes:?}");
    }
}

#[test]
fn denial_names_the_first_missing_scopes_and_counts_the_others() {
    let mut record = record("acme", 1);
    record.rights.scopes = vec!["read".to_owned()];
    let missing = |scopes: &[&str]| {
        let needs = Needs { scopes, ..Needs::default() };
        let denial = evidence::against(&CompactKey::from(&record), needs, NOW).unwrap();
        denial.missing_scopes().cloned().unwrap()
    };
    let named = |scopes: &[&str]| scopes.iter().map(|&scope| scope.to_owned()).collect::<Vec<_>>();
    let one = MissingScopes { named: named(&["write"]), others: 0 };
    assert_eq!(missing(&["read", "write"]), one);
    let many = MissingScopes { named: named(&["a", "b", "c", "d"]), others: 2 };
    assert_eq!(missing(&["a", "b", "read", "c", "d", "e", "f"]), many);
}

#[tokio::test]
async fn networks_fail_closed_and_take_mapped_addresses_as_ipv4() {
    let fixture = fixture(|record| {
        record.rights.allowed_networks =
            vec!["10.1.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    });
    for (ip, allowed) in [
        (None, false),
        (Some("10.1.2.3"), true),
        (Some("10.2.0.1"), false),
        (Some("::ffff:10.1.2.3"), true),
        (Some("::ffff:10.2.2.3"), false),
        (Some("2001:db8::1"), true),
        (Some("2001:db9::1"), false),
    ] {
        let client_ip = ip.map(|ip| ip.parse().unwrap());
        let expected = (!allowed).then_some(Reason::ClientNetworkForbidden);
        assert_eq!(
            fixture.reason(Needs { client_ip, ..Needs::default() }).await,
            expected,
            "{ip:?}"
        );
    }
}

#[tokio::test]
async fn audiences_fail_closed() {
    let fixture = fixture(|record| record.rights.audiences = vec!["billing".into()]);
    for (audience, allowed) in [(None, false), (Some("billing"), true), (Some("mail"), false)] {
        let expected = (!allowed).then_some(Reason::AudienceForbidden);
        assert_eq!(fixture.reason(Needs { audience, ..Needs::default() }).await, expected);
    }
}

#[tokio::test]
async fn a_key_that_is_not_valid_is_told_so_before_what_it_lacks() {
    let fixture = fixture(|record| record.state = State::Revoked);
    let needs = Needs { scopes: &["admin"], ..Needs::default() };
    assert_eq!(fixture.reason(needs).await, Some(Reason::KeyRevoked));
}

proptest! {
    /// Whatever a record holds: revoked is refused, and so is what has ended.
    #[test]
    fn neither_a_revoked_nor_an_expired_key_is_ever_allowed(
        state in prop_oneof![Just(State::Active), Just(State::Disabled), Just(State::Revoked)],
        starts_in in -5_i64..5,
        ends_in in -5_i64..5,
        scopes in prop::collection::vec("[a-c]", 0..3),
        needed in prop::collection::vec("[a-c]", 0..3),
    ) {
        let at = |seconds: i64| NOW + jiff::SignedDuration::from_secs(seconds);
        let mut record = record("acme", 1);
        record.state = state;
        record.rights.not_before = Some(at(starts_in));
        record.rights.expires_at = Some(at(ends_in));
        record.rights.scopes = scopes.clone();
        let needs: Vec<_> = needed.iter().map(String::as_str).collect();
        let needs = Needs { scopes: &needs, ..Needs::default() };
        let allowed = evidence::against(&CompactKey::from(&record), needs, NOW).is_none();
        let expected = state == State::Active
            && starts_in <= 0
            && ends_in > 0
            && needed.iter().all(|scope| scopes.contains(scope));
        prop_assert_eq!(allowed, expected);
    }
}
