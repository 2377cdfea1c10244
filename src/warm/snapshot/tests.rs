use std::io::Cursor;

use proptest::{collection, prelude::*};

use super::{super::fixture::*, *};
use crate::{
    store::{ChangeKind, Row, fake::record},
    time::Clock,
};

fn header() -> Header {
    let created_at = Timestamp::from_microsecond(1_800_000_000_000_000).unwrap();
    Header {
        store: store(1),
        lineage: [3; 16],
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
    sealed.read(|entry| Vec::push(&mut entries.lock().unwrap(), entry))?;
    Ok((header, entries.into_inner().unwrap()))
}

fn refused(bytes: &[u8]) -> Refusal {
    read(bytes, &[SECRET]).expect_err("it should be refused")
}

/// Anything at all, behind a right seal.
fn sealed(body: &[u8]) -> Vec<u8> {
    let seals = seals(&[SECRET]);
    let mut out = SealedWriter::new(Vec::new(), seals.first().begin());
    out.put(&MAGIC).unwrap();
    out.put(&VERSION.to_le_bytes()).unwrap();
    out.put(seals.first().secret().as_bytes()).unwrap();
    out.put(body).unwrap();
    let mut bytes = out.finish().unwrap();
    bytes.extend_from_slice(&END);
    bytes
}

fn sealed_entry(entry: &[u8]) -> Vec<u8> {
    let length = u32::try_from(entry.len()).unwrap().to_le_bytes();
    let parts = [&header().to_bytes()[..], &length, entry, &[0; 4], &1_u64.to_le_bytes()];
    sealed(&parts.concat())
}

proptest! {
    #[test]
    fn whatever_is_in_memory_reads_back(
        records in collection::vec(record::tests::records(), 0..20),
        ages in collection::vec(0_u64..1_000_000_000, 20),
    ) {
        let now = Clock::System.moment();
        let known = records.iter().zip(&ages).zip(0..).map(|((record, age), number)| {
            let validated_at = now.monotonic - std::time::Duration::from_micros(*age);
            (digest(number), Arc::new(Known::new(record.clone())), validated_at)
        });
        let mut bytes = Vec::new();
        let count = write(&mut bytes, &seals(&[SECRET]), &header(), now, known, || true).unwrap();
        prop_assert_eq!(count, records.len() as u64);
        let (read_header, entries) = read(&bytes, &[SECRET]).unwrap();
        prop_assert_eq!(read_header, header());
        // As small a file is one batch, in its order.
        for ((entry, record), (age, number)) in entries.iter().zip(&records).zip(ages.iter().zip(0..)) {
            prop_assert_eq!(&entry.record, record);
            prop_assert_eq!(entry.digest, digest(number));
            let told = now.wall.as_microsecond() - entry.validated_at.as_microsecond();
            prop_assert!((told - i64::try_from(*age).unwrap()).abs() <= 1);
        }
    }

    #[test]
    fn whatever_is_behind_a_right_seal_reading_ends(body: Vec<u8>, entry: Vec<u8>) {
        let _ = read(&sealed(&body), &[SECRET]);
        let _ = read(&sealed_entry(&entry), &[SECRET]);
        let digest_and_time = [&[1; 32][..], &0_i64.to_le_bytes(), &entry].concat();
        let _ = read(&sealed_entry(&digest_and_time), &[SECRET]);
    }

    #[test]
    fn whatever_the_bytes_are_they_are_refused(bytes: Vec<u8>) {
        prop_assert!(read(&bytes, &[SECRET]).is_err());
        prop_assert!(read(&[&MAGIC[..], &VERSION.to_le_bytes(), &bytes].concat(), &[SECRET]).is_err());
    }
}

#[test]
fn any_change_of_one_byte_is_refused() {
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
fn whatever_is_cut_off_or_added_is_refused() {
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
fn any_landmark_reads_back() {
    let kinds = [ChangeKind::Created, ChangeKind::Updated, ChangeKind::Deleted].map(Some);
    let row = |kind| Row { revision: Revision(40), digest: digest(1), kind };
    let landmarks = kinds.into_iter().chain([None]).map(|kind| Some(row(kind)));
    for landmark in landmarks.chain([None]) {
        let header = Header { position: Position { revision: Revision(42), landmark }, ..header() };
        let bytes = written(&[SECRET], &header, &memory(0));
        assert_eq!(read(&bytes, &[SECRET]).unwrap().0, header);
    }
    let mut bytes = header().to_bytes();
    bytes[Header::LEN - landmark::LEN] = 5;
    assert!(matches!(Header::read(bytes), Err(Refusal::Unreadable(_))));
}

#[test]
fn another_version_is_named() {
    let mut bytes = small();
    bytes[8] = 9;
    let reason = refused(&bytes).to_string();
    assert_eq!(reason, "it has version 9 of the format, and this is version 1");
}

#[test]
fn a_snapshot_outlives_the_rotation_of_its_secret_and_not_its_end() {
    let bytes = small();
    assert!(read(&bytes, &[OTHER_SECRET, SECRET]).is_ok());
    let reason = read(&bytes, &[OTHER_SECRET]).unwrap_err();
    assert!(matches!(reason, Refusal::OtherSecret), "{reason}");
    // The same fingerprint would not help without the secret.
    let mut forged = written(&[OTHER_SECRET], &header(), &memory(2));
    forged[12..20].copy_from_slice(&bytes[12..20]);
    assert!(matches!(refused(&forged), Refusal::Changed));
}

#[test]
fn an_absurd_length_is_refused_before_anything_is_allocated_for_it() {
    for length in [1, 39, MAX_LENGTH + 1, u32::MAX] {
        let body = [&header().to_bytes()[..], &length.to_le_bytes(), &[0; 64]].concat();
        let reason = refused(&sealed(&body)).to_string();
        assert_eq!(reason, "an entry in it has an impossible length");
    }
}

#[test]
fn a_wrong_number_of_entries_is_refused() {
    let body = [&header().to_bytes()[..], &[0; 4], &1_u64.to_le_bytes()].concat();
    let reason = refused(&sealed(&body)).to_string();
    assert_eq!(reason, "it does not hold as many entries as it says");
    assert!(matches!(refused(&sealed(b"no header")), Refusal::CutOff));
}

#[test]
fn a_file_that_is_changed_while_it_is_read_is_refused() {
    let mut bytes = small();
    let sealed = Sealed::open(Cursor::new(bytes.clone()), &seals(&[SECRET])).unwrap();
    // The last byte of the last record.
    let at = bytes.len() - END.len() - MARK_LEN - 8 - 4 - 1;
    bytes[at] ^= 1;
    let meanwhile = Sealed { source: Cursor::new(bytes), ..sealed };
    assert!(meanwhile.read(drop).is_err());
}

#[test]
fn an_entry_that_is_too_large_is_left_out() {
    let memory = memory(1);
    let mut large = record("large", 1);
    large.rights.name = "x".repeat(MAX_ENTRY_BYTES);
    memory.restore(digest(1), large, Clock::System.monotonic());
    let (_, entries) = read(&written(&[SECRET], &header(), &memory), &[SECRET]).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.digest).collect::<Vec<_>>(), [digest(0)]);
}

#[test]
fn entries_of_many_batches_are_all_read_once() {
    let all = memory(0);
    for number in 0..5_000 {
        let mut record = record("acme", 1);
        record.rights.name = "x".repeat(400);
        all.restore(digest(number), record, Clock::System.monotonic());
    }
    let bytes = written(&[SECRET], &header(), &all);
    assert!(bytes.len() > 5 * BUFFER_BYTES);
    let (_, entries) = read(&bytes, &[SECRET]).unwrap();
    let [mut read, mut kept] = [Vec::new(), Vec::new()];
    read.extend(entries.iter().map(|entry| entry.digest.to_hex()));
    kept.extend(all.digests().map(Digest::to_hex));
    read.sort();
    kept.sort();
    assert!(read == kept, "{} of {}", read.len(), kept.len());
}

#[test]
fn a_bad_entry_among_many_is_refused_and_ends_the_reading() {
    let mut body = header().to_bytes().to_vec();
    for _ in 0..5_000 {
        body.extend_from_slice(&1000_u32.to_le_bytes());
        body.extend_from_slice(&[0xff; 1000]);
    }
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&5_000_u64.to_le_bytes());
    assert!(matches!(refused(&sealed(&body)), Refusal::Unreadable(_)));
}

#[test]
fn writing_ends_when_it_is_told_to() {
    let now = Clock::System.moment();
    let all = memory(3 * LOOK_EVERY);
    let ended = write(Vec::new(), &seals(&[SECRET]), &header(), now, all.export(), || false);
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::Interrupted);
}
