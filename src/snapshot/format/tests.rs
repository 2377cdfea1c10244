use std::io::Cursor;

use proptest::{collection, prelude::*};

use super::{super::fixture::*, *};
use crate::{
    key::{records, varint},
    store::{ChangeKind, Row, fake::record},
    time::Clock,
};

fn header() -> Header {
    let created_at = Timestamp::from_microsecond(1_800_000_000_000_000).unwrap();
    Header {
        store: store(1),
        lineage: [3; 16],
        serial: 2,
        created_at,
        position: at(42),
        covered_since: Some(created_at),
        noted: 7,
    }
}

fn written(secrets: &[&str], header: &Header, memory: &crate::cache::Memory) -> Vec<u8> {
    let mut bytes = Vec::new();
    let now = Clock::System.moment();
    write(&mut bytes, &seals(secrets), header, now, memory.export(), || true).unwrap();
    bytes
}

fn small() -> Vec<u8> {
    written(&[SECRET], &header(), &memory(2))
}

fn read(bytes: &[u8], secrets: &[&str]) -> Result<(Header, Vec<Entry>), Refusal> {
    let sealed = Sealed::open(Cursor::new(bytes), &seals(secrets))?;
    let (header, entries) = (*sealed.header(), Mutex::default());
    let keep = |record| match record {
        Record::Entry(entry) => Vec::push(&mut entries.lock().unwrap(), entry),
        Record::Tombstone(..) => {}
    };
    sealed.read(Profile::clone, keep)?;
    Ok((header, entries.into_inner().unwrap()))
}

fn refused(bytes: &[u8]) -> Refusal {
    read(bytes, &[SECRET]).expect_err("it should be refused")
}

/// Builds a file from a header and any blocks, with valid seals.
fn sealed_blocks(header: &[u8], blocks: &[&[u8]], count: u64) -> Vec<u8> {
    let seals = seals(&[SECRET]);
    let start = Start { secret: seals.first().secret(), nonce: [8; Start::NONCE_LEN] };
    let head = [&start.to_bytes()[..], header].concat();
    let mut out = blocks::Writer::begin(Vec::new(), seals.first(), &head).unwrap();
    for block in blocks {
        out.put(block).unwrap();
    }
    out.finish(count).unwrap()
}

fn sealed(blocks: &[&[u8]], count: u64) -> Vec<u8> {
    sealed_blocks(&header().to_bytes(), blocks, count)
}

fn entry(bytes: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    varint::put(&mut block, bytes);
    block
}

proptest! {
    #[test]
    fn cache_contents_round_trip(
        records in collection::vec(records(), 0..20),
        ages in collection::vec(0_u64..1_000_000_000, 20),
    ) {
        let now = Clock::System.moment();
        let all: Vec<_> = records.iter().map(CompactKey::from).collect();
        let known = all.iter().zip(&ages).zip(0..).map(|((known, age), number)| {
            let validated_at = now.monotonic - std::time::Duration::from_micros(*age);
            Exported::Record(digest(number), known.clone(), validated_at)
        });
        let mut bytes = Vec::new();
        let count = write(&mut bytes, &seals(&[SECRET]), &header(), now, known, || true).unwrap();
        prop_assert_eq!(count, records.len() as u64);
        let (read_header, entries) = read(&bytes, &[SECRET]).unwrap();
        prop_assert_eq!(read_header, header());
        // A file this small has one block, which is read in order.
        for ((entry, known), (age, number)) in entries.iter().zip(&all).zip(ages.iter().zip(0..)) {
            prop_assert_eq!(&entry.known, known);
            prop_assert_eq!(entry.digest, digest(number));
            let age_read = now.wall.as_microsecond() - entry.validated_at.as_microsecond();
            prop_assert!((age_read - i64::try_from(*age).unwrap()).abs() <= 1);
        }
    }

    #[test]
    fn reading_any_sealed_contents_terminates(head: Vec<u8>, block: Vec<u8>, count: u64) {
        let _ = read(&sealed_blocks(&head, &[], count), &[SECRET]);
        let digest_and_time = [&[0][..], &[1; 32], &0_i64.to_le_bytes(), &block].concat();
        for block in [&block, &entry(&block), &entry(&digest_and_time)] {
            if !block.is_empty() {
                let _ = read(&sealed(&[block], count), &[SECRET]);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes: Vec<u8>) {
        prop_assert!(read(&bytes, &[SECRET]).is_err());
        let versioned = [&MAGIC[..], &VERSION.to_le_bytes(), &bytes].concat();
        prop_assert!(read(&versioned, &[SECRET]).is_err());
    }
}

#[test]
fn file_with_any_byte_changed_is_refused() {
    let good = small();
    assert_eq!(read(&good, &[SECRET]).unwrap().1.len(), 2);
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            let reason = refused(&bad);
            let expected = match at {
                0..8 => matches!(reason, Refusal::NotASnapshot),
                8..12 => matches!(reason, Refusal::Version(_)),
                12..20 => matches!(reason, Refusal::OtherSecret),
                _ if at >= good.len() - END.len() => matches!(reason, Refusal::CutOff),
                _ => matches!(reason, Refusal::Changed),
            };
            assert!(expected, "byte {at}: {reason}");
        }
    }
}

#[test]
fn truncated_or_extended_file_is_refused() {
    let good = small();
    for length in 0..good.len() {
        let reason = refused(&good[..length]);
        let expected = match length {
            0..8 => matches!(reason, Refusal::NotASnapshot),
            _ => matches!(reason, Refusal::CutOff),
        };
        assert!(expected, "{length} bytes: {reason}");
    }
    for more in [&[0; 1][..], &[0; 100], &END, &good] {
        assert!(matches!(refused(&[&good, more].concat()), Refusal::CutOff | Refusal::Changed));
    }
}

#[test]
fn every_landmark_round_trips() {
    let kinds =
        [ChangeKind::Created, ChangeKind::Updated, ChangeKind::Revoked, ChangeKind::Deleted];
    let kinds = kinds.map(Some);
    let row = |kind| Row { revision: Revision(40), digest: digest(1), kind };
    let landmarks = kinds.into_iter().chain([None]).map(|kind| Some(row(kind)));
    for landmark in landmarks.chain([None]) {
        let header = Header { position: Position { revision: Revision(42), landmark }, ..header() };
        let bytes = written(&[SECRET], &header, &memory(0));
        assert_eq!(read(&bytes, &[SECRET]).unwrap().0, header);
    }
    let mut bytes = header().to_bytes();
    bytes[Header::LEN - landmark::LEN] = 6;
    assert!(matches!(Header::read(bytes), Err(Refusal::Unreadable(_))));
}

#[test]
fn refusal_names_the_unsupported_version() {
    let mut bytes = small();
    bytes[8] = 9;
    let reason = refused(&bytes).to_string();
    assert_eq!(reason, "it has version 9 of the format, and this is version 3");
}

#[test]
fn snapshot_is_readable_after_rotation_until_its_secret_is_removed() {
    let bytes = small();
    assert!(read(&bytes, &[OTHER_SECRET, SECRET]).is_ok());
    let reason = read(&bytes, &[OTHER_SECRET]).unwrap_err();
    assert!(matches!(reason, Refusal::OtherSecret), "{reason}");
    // The fingerprint alone does not help without the secret.
    let mut forged = written(&[OTHER_SECRET], &header(), &memory(2));
    forged[12..20].copy_from_slice(&bytes[12..20]);
    assert!(matches!(refused(&forged), Refusal::Changed));
}

#[test]
fn oversized_length_is_refused_before_allocation() {
    let good = small();
    for length in [u32::MAX, 1 << 30, 3 << 20] {
        let mut bad = good.clone();
        bad[HEAD_LEN..HEAD_LEN + 4].copy_from_slice(&length.to_le_bytes());
        assert!(matches!(refused(&bad), Refusal::Changed));
    }
    for length in [&[0x7f][..], &[0xff; 9], &[0xff; 20]] {
        let reason = refused(&sealed(&[length], 1)).to_string();
        assert_eq!(reason, "an entry in it is not a key record");
    }
}

#[test]
fn wrong_entry_count_is_refused() {
    let reason = refused(&sealed(&[], 1)).to_string();
    assert_eq!(reason, "it does not hold as many records as it says");
    assert!(matches!(refused(&sealed_blocks(b"no header", &[], 0)), Refusal::CutOff));
}

#[test]
fn swapped_repeated_removed_or_foreign_blocks_are_refused() {
    let blocks = |number: u64| {
        let memory = memory(0);
        put(&memory, number, &record("acme", 1), Clock::System.monotonic());
        let whole = written(&[SECRET], &header(), &memory);
        whole[HEAD_LEN..whole.len() - END_LEN].to_vec()
    };
    let part = blocks(1)[4..].to_vec();
    let body = &part[..part.len() - MARK_LEN];
    let good = sealed(&[body, body], 2);
    assert_eq!(read(&good, &[SECRET]).unwrap().1.len(), 2);
    let each = (good.len() - HEAD_LEN - END_LEN) / 2;
    let (head, first, second, end) = (
        &good[..HEAD_LEN],
        &good[HEAD_LEN..HEAD_LEN + each],
        &good[HEAD_LEN + each..HEAD_LEN + 2 * each],
        &good[HEAD_LEN + 2 * each..],
    );
    assert_eq!([head, first, second, end].concat(), good);
    let other = blocks(2);
    for order in [
        &[second, first][..],
        &[first, first],
        &[first],
        &[second],
        &[],
        &[first, second, second],
        &[&other, second],
    ] {
        let bad = [head, &order.concat(), end].concat();
        assert!(matches!(refused(&bad), Refusal::Changed), "{}", order.len());
    }
}

#[test]
fn file_changed_during_the_read_is_refused() {
    let mut bytes = small();
    let sealed = Sealed::open(Cursor::new(bytes.clone()), &seals(&[SECRET])).unwrap();
    // Last byte of the last entry.
    let at = bytes.len() - END_LEN - MARK_LEN - 1;
    bytes[at] ^= 1;
    let source = Cursor::new(bytes[HEAD_LEN..].to_vec());
    let meanwhile = Sealed { blocks: sealed.blocks.over(source), ..sealed };
    let refused = meanwhile.read(Profile::clone, |_| panic!("no record must be read"));
    assert!(matches!(refused, Err(Refusal::Changed)));
}

#[test]
fn oversized_entry_is_left_out() {
    for (principal, scope) in [(1 << 20, 1), (1, 1 << 20)] {
        let memory = memory(1);
        let mut large = record("large", 1);
        large.rights.principal = "x".repeat(principal);
        large.rights.scopes = vec!["x".repeat(scope)];
        put(&memory, 1, &large, Clock::System.monotonic());
        let (_, entries) = read(&written(&[SECRET], &header(), &memory), &[SECRET]).unwrap();
        assert_eq!(entries.iter().map(|entry| entry.digest).collect::<Vec<_>>(), [digest(0)]);
    }
}

#[test]
fn shared_profiles_are_shared_after_a_restore() {
    let bytes = written(&[SECRET], &header(), &memory(3));
    let (_, entries) = read(&bytes, &[SECRET]).unwrap();
    let [first, others @ ..] = entries.as_slice() else { panic!("there are three") };
    assert!(others.iter().all(|entry| entry.known.profile().is(first.known.profile())));
}

#[test]
fn entries_of_many_blocks_are_each_read_once() {
    let all = memory(0);
    for number in 0..5_000 {
        let mut record = record("acme", 1);
        record.rights.principal = "x".repeat(400);
        put(&all, number, &record, Clock::System.monotonic());
    }
    let bytes = written(&[SECRET], &header(), &all);
    assert!(bytes.len() > 5 * BLOCK_BYTES);
    let (_, entries) = read(&bytes, &[SECRET]).unwrap();
    let [mut read, mut kept] = [Vec::new(), Vec::new()];
    read.extend(entries.iter().map(|entry| entry.digest.to_hex()));
    kept.extend(all.digests().map(Digest::to_hex));
    read.sort();
    kept.sort();
    assert!(read == kept, "{} of {}", read.len(), kept.len());
}

#[test]
fn malformed_entry_is_refused_and_stops_all_readers() {
    let bad = entry(&[0xff; 1000]).repeat(200);
    let blocks = vec![bad.as_slice(); 20];
    assert!(matches!(refused(&sealed(&blocks, 4_000)), Refusal::Unreadable(_)));
}

#[test]
fn writing_stops_when_go_on_returns_false() {
    let now = Clock::System.moment();
    let all = memory(3 * CHECK_EVERY);
    let ended = write(Vec::new(), &seals(&[SECRET]), &header(), now, all.export(), || false);
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::Interrupted);
}
