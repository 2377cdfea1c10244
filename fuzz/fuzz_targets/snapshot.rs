//! Whatever a file holds, reading it as a snapshot ends, takes no more memory than
//! the file is long, and gives only entries that were sealed.
//!
//! The input is read three times: as a file, as what is behind a right seal, and as
//! the entries of a snapshot that is otherwise right.

#![no_main]

use std::{
    io::Cursor,
    sync::{LazyLock, Mutex},
};

use hmac::{Hmac, KeyInit, Mac};
use keystead::{
    key::{KeyRing, Prefix},
    warm::{
        PURPOSE, Refusal, Seals,
        snapshot::{Entry, Sealed},
    },
};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;

const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const MAGIC: &[u8; 8] = b"ks-snap\n";
const END: &[u8; 8] = b"ks-end.\n";
const VERSION: [u8; 4] = 1_u32.to_le_bytes();
const HEADER_LEN: usize = 80;

static RING: LazyLock<KeyRing> =
    LazyLock::new(|| KeyRing::parse(SECRET, Prefix::default(), true).expect("a good secret"));
static SEALS: LazyLock<Seals> = LazyLock::new(|| Seals::of(&RING));

fuzz_target!(|input: &[u8]| {
    assert!(read(input).is_err(), "a forged snapshot was not refused");
    let _ = read(&sealed(input));

    let header = [0; HEADER_LEN];
    let _ = read(&sealed(&[&header, input].concat()));
    // Cut into entries at zero bytes, each with its length before it.
    let entries: Vec<&[u8]> = input.split(|byte| *byte == 0).collect();
    let mut body = header.to_vec();
    for entry in &entries {
        // Room for a digest and a time.
        let length = u32::try_from(40 + entry.len()).expect("inputs are short");
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(&[7; 32]);
        body.extend_from_slice(&1_800_000_000_000_000_i64.to_le_bytes());
        body.extend_from_slice(entry);
    }
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    let bytes = sealed(&body);
    if let Ok(read) = read(&bytes) {
        assert_eq!(read.len(), entries.len());
    }
});

fn read(bytes: &[u8]) -> Result<Vec<Entry>, Refusal> {
    let entries = Mutex::new(Vec::new());
    let keep = |entry| entries.lock().expect("nobody panics").push(entry);
    Sealed::open(Cursor::new(bytes), &SEALS)?.read(keep)?;
    Ok(entries.into_inner().expect("nobody panics"))
}

/// A file with a right seal, whatever is in it.
fn sealed(body: &[u8]) -> Vec<u8> {
    let (secret, key) = RING.seal_keys(PURPOSE).next().expect("there is one secret");
    let mut bytes = [MAGIC, &VERSION[..], secret.as_bytes(), body].concat();
    let mut hmac = Hmac::<Sha256>::new_from_slice(&*key).expect("any length will do");
    hmac.update(&bytes);
    bytes.extend_from_slice(&hmac.finalize().into_bytes());
    bytes.extend_from_slice(END);
    bytes
}
