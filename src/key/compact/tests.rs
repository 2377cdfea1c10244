use proptest::{collection, option, prelude::*};

use super::*;
use crate::{
    key::{Fingerprint, Rights},
    store::fake::record,
};

const MINUTE: Duration = Duration::from_mins(1);
const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn instants() -> impl Strategy<Value = Timestamp> {
    let within = (Timestamp::MIN.as_microsecond()..Timestamp::MAX.as_microsecond())
        .prop_map(|micros| Timestamp::from_microsecond(micros).unwrap());
    prop_oneof![20 => within, 1 => Just(Timestamp::MIN), 1 => Just(Timestamp::MAX)]
}

fn networks() -> impl Strategy<Value = ipnet::IpNet> {
    use ipnet::IpNet;
    prop_oneof![
        (any::<[u8; 4]>(), 0_u8..=32).prop_map(|(a, n)| IpNet::new(a.into(), n).unwrap()),
        (any::<[u8; 16]>(), 0_u8..=128).prop_map(|(a, n)| IpNet::new(a.into(), n).unwrap()),
    ]
}

fn rights() -> impl Strategy<Value = Rights> {
    let texts = || collection::vec(prop_oneof![20 => ".{0,20}", 1 => ".{200,300}"], 0..4);
    let pairs = collection::btree_map(".{0,9}", ".{0,20}", 0..4);
    let lists = (texts(), collection::vec(networks(), 0..4), texts(), pairs);
    (".{1,20}", ".{0,20}", lists, option::of(instants()), option::of(instants())).prop_map(
        |(principal, name, (scopes, allowed_networks, audiences, metadata), from, to)| Rights {
            principal,
            name,
            scopes,
            allowed_networks,
            audiences,
            metadata,
            not_before: from,
            expires_at: to,
        },
    )
}

/// Any record that a store may hold.
pub(crate) fn records() -> impl Strategy<Value = KeyRecord> {
    let states = prop_oneof![Just(State::Active), Just(State::Disabled), Just(State::Revoked)];
    let secrets = option::of(any::<[u8; 8]>().prop_map(Fingerprint::from_bytes));
    let times = (instants(), option::of(instants()));
    ("[!-~]{1,128}", ".{0,20}", secrets, rights(), states, times, any::<i64>()).prop_map(
        |(id, hint, secret, rights, state, (created_at, last_used_at), revision)| KeyRecord {
            id: id.parse().unwrap(),
            hint,
            secret,
            rights,
            state,
            created_at,
            last_used_at,
            predecessor: None,
            successor: None,
            revision: Revision(revision),
        },
    )
}

proptest! {
    #[test]
    fn compact_key_keeps_every_field_of_decisions_and_responses(record in records()) {
        let known = CompactKey::from(&record);
        let KeyRecord { id, rights, state, revision, .. } = record;
        prop_assert_eq!(known.id(), id.as_str());
        prop_assert_eq!(known.key_id(), id);
        prop_assert_eq!(known.principal(), rights.principal);
        prop_assert_eq!((known.state(), known.revision()), (state, revision));
        prop_assert_eq!(known.not_before(), rights.not_before);
        prop_assert_eq!(known.expires_at(), rights.expires_at);
        prop_assert_eq!(known.scopes().collect::<Vec<_>>(), rights.scopes.clone());
        prop_assert_eq!(known.audiences().collect::<Vec<_>>(), rights.audiences);
        prop_assert_eq!(known.networks().collect::<Vec<_>>(), rights.allowed_networks.clone());
        prop_assert_eq!(known.networks().is_empty(), rights.allowed_networks.is_empty());
        let metadata = rights.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        prop_assert_eq!(known.metadata().collect::<Vec<_>>(), metadata.collect::<Vec<_>>());
        for scope in &rights.scopes {
            prop_assert!(known.has_scope(scope));
            let longer = format!("{scope}x");
            prop_assert_eq!(known.has_scope(&longer), rights.scopes.contains(&longer));
        }
    }

    #[test]
    fn profile_round_trips_and_equals_its_copy(record in records()) {
        let profile = Profile::from(&record.rights);
        let read = Profile::read(profile.packed()).unwrap();
        prop_assert_eq!(&read, &profile);
        prop_assert!(!read.is(&profile));
        let again = CompactKey::from(&record).with_profile(read.clone());
        prop_assert!(again.profile().is(&read));
        prop_assert_eq!(again, CompactKey::from(&record));
    }

    #[test]
    fn reading_a_profile_from_any_bytes_terminates(bytes: Vec<u8>) {
        if let Ok(profile) = Profile::read(&bytes) {
            prop_assert_eq!(profile.packed(), bytes);
        }
    }

    #[test]
    fn keys_are_equal_when_their_stored_fields_are(one in records(), other in records()) {
        let used = KeyRecord { last_used_at: other.last_used_at, ..one.clone() };
        prop_assert_eq!(CompactKey::from(&one), CompactKey::from(&used));
        for differing in [
            KeyRecord { rights: other.rights.clone(), ..one.clone() },
            KeyRecord { id: other.id, ..one.clone() },
            KeyRecord { revision: other.revision, ..one.clone() },
            KeyRecord { state: other.state, ..one.clone() },
        ] {
            let mut seen = [one.clone(), differing];
            // The name is not held in memory.
            for record in &mut seen {
                record.rights.name.clear();
            }
            let [one, differing] = seen;
            prop_assert_eq!(CompactKey::from(&one) == CompactKey::from(&differing), one == differing);
        }
    }
}

#[test]
fn invalid_profile_bytes_are_refused() {
    let rights = Rights { scopes: vec!["read".to_owned()], ..record("acme", 1).rights };
    let good = Profile::from(&rights).packed().to_vec();
    assert_eq!(good, b"\x05\x04read\0\0");
    let bad: [&[u8]; 7] = [
        b"",
        b"\x05\x04read\0",
        b"\x06\x04read\0\0",
        b"\x05\x05read\0\0",
        b"\x05\x04rea\xff\0\0",
        b"\0\0\x04\x03\x08\x0a\0",
        b"\0\0\0\x01a",
    ];
    for bytes in bad {
        assert_eq!(Profile::read(bytes).unwrap_err(), NotAProfile, "{bytes:?}");
    }
}

#[test]
fn prepared_response_is_shared_by_keys_with_one_profile() {
    let known = CompactKey::from(&record("acme", 1));
    let sharing = known.clone();
    let first = known.profile().prepared(PreparedFor::Authz, |_| Box::from(*b"first"));
    assert_eq!(first, b"first");
    let never = |_: &Profile| -> Box<[u8]> { panic!("already prepared") };
    assert_eq!(sharing.profile().prepared(PreparedFor::Authz, never), b"first");
    let other = sharing
        .profile()
        .prepared(PreparedFor::ExtAuthz, |profile| Box::from(profile.packed().len().to_le_bytes()));
    assert_eq!(other.len(), 8, "each surface has its own slot");
}

#[test]
fn typical_key_needs_105_bytes_beside_its_profile() {
    // A reference count, the length of the trailing bytes, and `Fields`: an allocator
    // gives a typical key with an expiry 112 bytes.
    assert_eq!(size_of::<CompactKey>(), 8);
    assert_eq!(size_of::<Fields>(), 40);
    let mut typical = record("customer-123456", 1);
    typical.id = KeyId::generate().unwrap();
    typical.rights.expires_at = Some(START);
    let known = CompactKey::from(&typical);
    assert_eq!(16 + size_of::<Fields>() + known.0.slice.len(), 16 + 40 + 8 + 26 + 15);
}

#[test]
fn one_use_a_minute_is_worth_storing() {
    let known = CompactKey::from(&record("acme", 1));
    assert!(known.note_use(START, MINUTE));
    assert!(!known.note_use(START, MINUTE));
    assert!(!known.note_use(START + Duration::from_secs(59), MINUTE));
    assert!(!known.note_use(START - MINUTE, MINUTE), "a clock that goes back records nothing");
    assert!(known.note_use(START + MINUTE, MINUTE));
}

#[test]
fn stored_use_is_not_stored_again() {
    let used = KeyRecord { last_used_at: Some(START), ..record("acme", 1) };
    let known = CompactKey::from(&used);
    assert!(!known.note_use(START + Duration::from_secs(59), MINUTE));
}

#[test]
fn uses_are_noted_when_the_seconds_wrap() {
    // 2106-02-07, where 32 bits wrap.
    let last = Timestamp::constant((1 << 32) - 30, 0);
    let used = KeyRecord { last_used_at: Some(last), ..record("acme", 1) };
    let known = CompactKey::from(&used);
    assert!(!known.note_use(last + Duration::from_secs(59), MINUTE));
    assert!(known.note_use(last + MINUTE, MINUTE));
}
