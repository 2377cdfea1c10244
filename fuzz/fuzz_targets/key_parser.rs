//! Whatever a client presents, reading it gives one of three answers, and only
//! a minted key is ever ours.

#![no_main]

use std::sync::LazyLock;

use keystead::key::{Credential, Digest, KeyRing, MAX_CREDENTIAL_BYTES, Prefix};
use libfuzzer_sys::fuzz_target;

const SECRETS: &str = "\
000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

/// Minted with the first secret. Fixed, so that every finding can be replayed.
const MINTED: &[u8; 48] = b"ks_live_0123456789ABCDEFGHIJKLMNOPQRSTUVDyq36RzI";

static RING: LazyLock<KeyRing> = LazyLock::new(|| ring(true));
static OURS_ALONE: LazyLock<KeyRing> = LazyLock::new(|| ring(false));

fn ring(accept_imported: bool) -> KeyRing {
    KeyRing::parse(SECRETS, Prefix::default(), accept_imported).expect("two good secrets")
}

fuzz_target!(|bytes: &[u8]| {
    reads_as_documented(bytes);
    reads_as_documented(&[b"ks_", bytes].concat());
    reads_as_documented(&[b"ks_live_", bytes].concat());

    let mutated = mutate_behind_the_prefix(bytes);
    reads_as_documented(&mutated);
    if mutated == MINTED {
        assert!(matches!(RING.read(&mutated), Ok(Credential::Ours(_))));
    } else {
        assert!(RING.read(&mutated).is_err(), "a forged key was not refused");
    }
});

/// The whole contract of `KeyRing::read`, written a second time.
fn reads_as_documented(credential: &[u8]) {
    let may_be_a_key = !credential.is_empty()
        && credential.len() <= MAX_CREDENTIAL_BYTES
        && credential.iter().all(u8::is_ascii_graphic);
    let claims_to_be_ours = credential.starts_with(b"ks_");

    let read = RING.read(credential);
    match read {
        Ok(Credential::Ours(digest)) => {
            assert!(has_our_form(credential));
            assert_ne!(digest, Digest::sha256_of(credential), "a digest without its secret");
            assert_eq!(OURS_ALONE.read(credential), read);
        }
        Ok(Credential::Foreign(digest)) => {
            assert!(may_be_a_key && !claims_to_be_ours);
            assert_eq!(digest, Digest::sha256_of(credential));
            assert!(OURS_ALONE.read(credential).is_err());
        }
        Err(_) => {
            assert!(!may_be_a_key || claims_to_be_ours);
            assert!(OURS_ALONE.read(credential).is_err());
        }
    }
}

/// `ks_(live|test)_[0-9A-Za-z]{40}`
fn has_our_form(credential: &[u8]) -> bool {
    let digits =
        credential.strip_prefix(b"ks_live_").or_else(|| credential.strip_prefix(b"ks_test_"));
    digits.is_some_and(|digits| digits.len() == 40 && digits.iter().all(u8::is_ascii_alphanumeric))
}

/// Reads the input as edits of the minted key, three bytes each: what to do,
/// where, and with which byte.
fn mutate_behind_the_prefix(edits: &[u8]) -> Vec<u8> {
    const PREFIX_LEN: usize = 3;

    let mut key = MINTED.to_vec();
    for edit in edits.chunks_exact(3).take(64) {
        let at = PREFIX_LEN + usize::from(edit[1]) % (key.len() - PREFIX_LEN + 1);
        match edit[0] % 4 {
            0 => key.insert(at, edit[2]),
            1 if at < key.len() => drop(key.remove(at)),
            2 => key.truncate(at),
            _ if at < key.len() => key[at] = edit[2],
            _ => {}
        }
    }
    key
}
