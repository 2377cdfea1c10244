//! Whatever a file holds, reading it as a snapshot ends, takes no more memory than
//! the file is long, and gives only entries that were sealed.
//!
//! The input is read four times: as a file, as what is behind a right seal of the
//! head, as a block of a snapshot that is otherwise right, and as its entries.

#![no_main]

use std::{
    io::Cursor,
    sync::{LazyLock, Mutex},
};

use hmac::{Hmac, KeyInit, Mac};
use keystead::{
    key::{KeyRing, Prefix, Profile},
    snapshot::{
        PURPOSE, Refusal, Seals,
        format::{Record, Sealed},
    },
};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;

const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const MAGIC: &[u8; 8] = b"ks-snap\n";
const END: &[u8; 8] = b"ks-end.\n";
const VERSION: [u8; 4] = 3_u32.to_le_bytes();
const MARK: [u8; 16] = [8; 16];
const HEADER_LEN: usize = 88 + 41;

static RING: LazyLock<KeyRing> =
    LazyLock::new(|| KeyRing::parse(SECRET, Prefix::default(), true).expect("a good secret"));
static SEALS: LazyLock<Seals> = LazyLock::new(|| Seals::of(&RING));

fuzz_target!(|input: &[u8]| {
    assert!(read(input).is_err(), "a forged snapshot was not refused");
    let _ = read(&sealed(input, &[], 0));

    let header = [0; HEADER_LEN];
    if !input.is_empty() {
        let _ = read(&sealed(&header, input, 1));
    }
    // Cut into entries at zero bytes, each with its length before it.
    let entries: Vec<&[u8]> = input.split(|byte| *byte == 0).collect();
    let mut block = Vec::new();
    for entry in &entries {
        // A digest, a time, and a profile of its own in which nothing is.
        let time = 1_800_000_000_000_000_i64.to_le_bytes();
        let entry = [&[0][..], &[7; 32], &time, &[0, 3, 0, 0, 0], entry].concat();
        // LEB128 in four bytes, of which the last one says that it is.
        let seven = |at: usize| u8::try_from(entry.len() >> (7 * at) & 0x7f).expect("seven bits");
        block.extend([seven(0) | 0x80, seven(1) | 0x80, seven(2) | 0x80, seven(3)]);
        block.extend_from_slice(&entry);
    }
    if let Ok(read) = read(&sealed(&header, &block, entries.len() as u64)) {
        assert_eq!(read.len(), entries.len());
    }
});

fn read(bytes: &[u8]) -> Result<Vec<Record>, Refusal> {
    let records = Mutex::new(Vec::new());
    let keep = |record| records.lock().expect("nobody panics").push(record);
    Sealed::open(Cursor::new(bytes), &SEALS)?.read(Profile::clone, keep)?;
    Ok(records.into_inner().expect("nobody panics"))
}

/// A file with right seals, whatever is in it: a header and, unless it is empty, one
/// block.
fn sealed(header: &[u8], block: &[u8], count: u64) -> Vec<u8> {
    let (secret, key) = RING.seal_keys(PURPOSE).next().expect("there is one secret");
    let seal = |parts: &[&[u8]]| -> [u8; 32] {
        let mut hmac = Hmac::<Sha256>::new_from_slice(&*key).expect("any length will do");
        parts.iter().for_each(|part| hmac.update(part));
        hmac.finalize().into_bytes().into()
    };
    let mut bytes = [MAGIC, &VERSION[..], secret.as_bytes(), &MARK, header].concat();
    let head = seal(&[&bytes]);
    bytes.extend_from_slice(&head);
    let mut number: u64 = 0;
    let mut put = |length: u32, part: &[u8]| {
        let length = length.to_le_bytes();
        let under = seal(&[&head, &number.to_le_bytes(), &length, part]);
        bytes.extend([&length[..], part, &under].concat());
        number += 1;
    };
    if !block.is_empty() {
        put(u32::try_from(block.len()).expect("inputs are short"), block);
    }
    put(0, &count.to_le_bytes());
    bytes.extend_from_slice(END);
    bytes
}
