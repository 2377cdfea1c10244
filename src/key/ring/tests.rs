use proptest::prelude::*;

use super::*;

const SECRET_A: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const SECRET_B: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

fn ring(secrets: &[&str]) -> KeyRing {
    KeyRing::parse(&secrets.join("\n"), Prefix::default(), true).unwrap()
}

fn environment() -> impl Strategy<Value = Environment> {
    prop_oneof![Just(Environment::Live), Just(Environment::Test)]
}

proptest! {
    #[test]
    fn every_minted_key_is_read_as_ours(environment in environment()) {
        let ring = ring(&[SECRET_A]);
        let minted = ring.mint(environment).unwrap();
        prop_assert_eq!(
            ring.read(minted.key.expose().as_bytes()),
            Ok(Credential::Ours(minted.digest))
        );
    }

    /// The prefix and its underscore decide whether a credential claims to be ours; the
    /// tag covers every byte after them.
    #[test]
    fn changing_one_character_after_the_prefix_is_malformed(
        environment in environment(),
        at in 3_usize..48,
        to in 0x21_u8..0x7f,
    ) {
        let ring = ring(&[SECRET_A, SECRET_B]);
        let mut key = ring.mint(environment).unwrap().key.expose().as_bytes().to_vec();
        prop_assume!(key[at] != to);
        key[at] = to;
        prop_assert!(matches!(ring.read(&key), Err(Unread::Malformed(_))));
    }

    #[test]
    fn changing_any_character_is_malformed_without_imported_keys(
        at in 0_usize..48,
        to: u8,
    ) {
        let ring = KeyRing::parse(SECRET_A, Prefix::default(), false).unwrap();
        let mut key = ring.mint(Environment::Live).unwrap().key.expose().as_bytes().to_vec();
        prop_assume!(key[at] != to);
        key[at] = to;
        prop_assert!(matches!(ring.read(&key), Err(Unread::Malformed(_))));
    }

    #[test]
    fn changing_the_prefix_makes_a_key_foreign(at in 0_usize..3, to in 0x21_u8..0x7f) {
        let ring = ring(&[SECRET_A]);
        let minted = ring.mint(Environment::Live).unwrap();
        let mut key = minted.key.expose().as_bytes().to_vec();
        prop_assume!(key[at] != to);
        key[at] = to;
        prop_assert_eq!(ring.read(&key), Ok(Credential::Foreign(Digest::sha256_of(&key))));
    }

    #[test]
    fn truncated_or_extended_key_is_malformed(cut in 3_usize..48, more in "[0-9A-Za-z]{1,40}") {
        let ring = ring(&[SECRET_A]);
        let minted = ring.mint(Environment::Live).unwrap();
        let key = minted.key.expose();
        prop_assert!(matches!(ring.read(&key.as_bytes()[..cut]), Err(Unread::Malformed(_))));
        let longer = format!("{key}{more}");
        prop_assert!(matches!(ring.read(longer.as_bytes()), Err(Unread::Malformed(_))));
    }

    #[test]
    fn reading_any_bytes_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = ring(&[SECRET_A]).read(&bytes);
    }

    #[test]
    fn reading_any_bytes_with_our_prefix_is_malformed(
        env in "(live|test|)_?",
        rest in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let bytes = [b"ks_", env.as_bytes(), &rest].concat();
        prop_assert!(matches!(ring(&[SECRET_A]).read(&bytes), Err(Unread::Malformed(_))));
    }
}

#[test]
fn minted_key_matches_the_documented_pattern() {
    let key = ring(&[SECRET_A]).mint(Environment::Test).unwrap().key;
    let digits = key.expose().strip_prefix("ks_test_").unwrap();
    assert_eq!(digits.len(), 40);
    assert!(digits.bytes().all(|b| b.is_ascii_alphanumeric()));
}

/// Computed with Python's `hmac` and `hashlib`, so that another implementation
/// can be written from the documentation alone.
#[test]
fn tag_and_digest_match_the_documented_formula() {
    let body = b"ks_live_0123456789ABCDEFGHIJKLMNOPQRSTUV";
    let secret = Secret::from_hex(SECRET_A).unwrap();
    assert_eq!(std::str::from_utf8(&secret.tag(body)), Ok("Dyq36RzI"));
    let whole = [&body[..], b"Dyq36RzI"].concat();
    let Ok(Credential::Ours(digest)) = ring(&[SECRET_A]).read(&whole) else {
        panic!("the tag is valid");
    };
    assert_eq!(digest.to_hex(), "e8a9a7d12e6cc348654b9aec2fbcb7c73679b7fdac70989a5cc51e13bb623b44");
}

#[test]
fn empty_oversized_or_invisible_credential_is_malformed() {
    let ring = ring(&[SECRET_A]);
    let longest = [b'x'; MAX_CREDENTIAL_BYTES];
    assert!(matches!(ring.read(&longest), Ok(Credential::Foreign(_))));
    let too_long = [b'x'; MAX_CREDENTIAL_BYTES + 1];
    for bad in [&b""[..], &too_long, b"a b", b"a\tb", b"a\x7f", b"a\x00", "é".as_bytes()] {
        assert!(matches!(ring.read(bad), Err(Unread::Malformed(_))), "{bad:?}");
    }
}

#[test]
fn every_secret_of_the_ring_verifies_and_the_first_mints() {
    let old = ring(&[SECRET_A]);
    let rotated = ring(&[SECRET_B, SECRET_A]);
    let done = ring(&[SECRET_B]);

    let before = old.mint(Environment::Live).unwrap();
    let after = rotated.mint(Environment::Live).unwrap();
    assert_eq!(rotated.fingerprints().next(), Some(after.secret));
    assert_eq!(old.fingerprints().next(), Some(before.secret));

    let before = before.key.expose().as_bytes();
    let after = after.key.expose().as_bytes();
    assert!(rotated.read(before).is_ok() && rotated.read(after).is_ok());
    assert!(matches!(done.read(before), Err(Unread::Malformed(_))));
    assert!(done.read(after).is_ok());
}

#[test]
fn invalid_secret_file_names_the_line_without_repeating_it() {
    let parse = |text: &str| KeyRing::parse(text, Prefix::default(), true).map(|_| ());
    assert_eq!(parse(""), Err(RingError::Empty));
    assert_eq!(parse(&format!("{SECRET_A}\nhunter2")), Err(RingError::NotASecret(2)));
    assert_eq!(parse(&format!("\n{SECRET_A}")), Err(RingError::NotASecret(1)));
    assert_eq!(parse(&format!("{SECRET_A}\r\n{SECRET_A}\r\n")), Err(RingError::Repeated(2)));
    let many: Vec<String> = (0..9).map(|i| format!("{i:064x}")).collect();
    assert_eq!(parse(&many.join("\n")), Err(RingError::TooMany));
    assert_eq!(parse(&many[..8].join("\n")), Ok(()));
    assert!(!RingError::NotASecret(2).to_string().contains("hunter2"));
}

#[test]
fn debug_redacts_keys_and_secrets() {
    let ring = ring(&[SECRET_A]);
    let minted = ring.mint(Environment::Live).unwrap();
    let shown = format!("{ring:?} {minted:?}");
    assert!(!shown.contains(minted.key.expose()));
    assert!(!shown.contains(&SECRET_A[..16]));
}

#[test]
fn hint_shows_only_digits_of_the_tag() {
    let minted = ring(&[SECRET_A]).mint(Environment::Live).unwrap();
    let key = minted.key.expose();
    assert_eq!(minted.key.hint(), format!("ks_live_…{}", &key[44..]));
}

#[test]
fn minting_does_not_reallocate_the_key() {
    let random = "r".repeat(form::RANDOM_LEN);
    let address = std::cell::Cell::new(std::ptr::null());
    let key = tagged(&["ks", "_", "live", "_", &random], |body| {
        address.set(body.as_ptr());
        [b't'; form::TAG_LEN]
    });
    assert_eq!(key, format!("ks_live_{random}tttttttt"));
    // The conversion into a secret shrinks a larger string, which copies it.
    assert_eq!((key.as_ptr(), key.capacity()), (address.get(), key.len()));
}

#[test]
fn sealing_keys_depend_on_secret_and_purpose_only() {
    let keys = |ring: &KeyRing, purpose| -> Vec<_> {
        ring.seal_keys(purpose).map(|(of, key)| (of, *key)).collect()
    };
    let both = ring(&[SECRET_A, SECRET_B]);
    let snapshot = keys(&both, "snapshot");
    let other = keys(&both, "other");
    assert!(snapshot.iter().map(|(of, _)| *of).eq(both.fingerprints()));
    assert_ne!(snapshot[0].1, snapshot[1].1);
    assert!(snapshot.iter().all(|(_, key)| other.iter().all(|(_, other)| key != other)));
    assert_eq!(keys(&ring(&[SECRET_B]), "snapshot")[0], snapshot[1]);
}
