use std::fs;

use super::{super::fixture::*, *};

const LINEAGE: Lineage = [5; 16];

struct Fixture {
    folder: Folder,
    files: Files,
}

fn fixture() -> Fixture {
    let folder = Folder::new();
    let files = Files::claim(&folder.path).unwrap();
    Fixture { folder, files }
}

impl Fixture {
    /// Creates the journal of the first snapshot.
    fn begin(&self) -> Journal {
        let mut journal = Journal::begin(&self.files, &seals(&[SECRET]), LINEAGE).unwrap();
        journal.announce(1).unwrap();
        journal
    }

    /// Returns the bytes of a journal with `count` changes.
    fn written(&self, count: u64) -> Vec<u8> {
        self.begin().append(&changes(0..count)).unwrap();
        fs::read(&self.files.changes).unwrap()
    }

    fn open(&self) -> Result<(Journal, Vec<Noted>), Refusal> {
        Journal::open(&self.files, &seals(&[SECRET]), &header(1))
    }

    fn open_with(&self, bytes: &[u8]) -> Result<(Journal, Vec<Noted>), Refusal> {
        fs::write(&self.files.changes, bytes).unwrap();
        self.open()
    }

    fn refused(&self, bytes: &[u8]) -> bool {
        matches!(self.open_with(bytes), Err(Refusal::ChangesDamaged))
    }
}

/// Header of a snapshot that contains no change.
fn header(serial: u64) -> Header {
    let created_at = jiff::Timestamp::UNIX_EPOCH;
    let position = at(100);
    let store = store(1);
    Header { store, lineage: LINEAGE, serial, created_at, position, covered_since: None, noted: 0 }
}

fn changes(keys: std::ops::Range<u64>) -> Vec<Change> {
    keys.map(|key| updated(key, 100 + i64::try_from(key).unwrap())).collect()
}

fn noted(keys: std::ops::Range<u64>) -> Vec<Noted> {
    let changes = changes(keys.clone()).into_iter().zip(keys);
    changes.map(|(change, number)| Noted { number, change }).collect()
}

#[test]
fn journal_reads_back_and_accepts_further_changes() {
    let fixture = fixture();
    fixture.begin().append(&changes(0..3)).unwrap();
    let (mut journal, kept) = fixture.open().unwrap();
    assert_eq!((kept, journal.next()), (noted(0..3), 3));
    journal.append(&changes(3..5)).unwrap();
    assert_eq!(fixture.open().unwrap().1, noted(0..5));
}

#[test]
fn journal_and_end_file_are_private() {
    use std::os::unix::fs::MetadataExt;
    let fixture = fixture();
    fixture.begin();
    assert_eq!(fs::metadata(&fixture.files.changes).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fixture.folder.names(), ["snapshot.changes", "snapshot.end", "snapshot.lock"]);
}

#[test]
fn incomplete_tail_beyond_the_end_is_truncated() {
    let fixture = fixture();
    fixture.written(2);
    let end_of_two = fs::read(&fixture.files.end).unwrap();
    let all = fixture.written(3);
    let two = all.len() - RECORD_LEN;
    for length in two..all.len() {
        fs::write(&fixture.files.end, &end_of_two).unwrap();
        let (mut journal, kept) = fixture.open_with(&all[..length]).unwrap();
        assert_eq!(kept, noted(0..2), "{length}");
        assert_eq!(fs::metadata(&fixture.files.changes).unwrap().len(), two as u64);
        journal.append(&changes(2..3)).unwrap();
        assert_eq!(fixture.open().unwrap().1, noted(0..3));
    }
    // Space allocated by the disk, not yet written or written out of order.
    let mut zeros = all.clone();
    zeros[two..].fill(0);
    zeros.resize(zeros.len() + 3 * RECORD_LEN + 5, 0);
    fs::write(&fixture.files.end, &end_of_two).unwrap();
    assert_eq!(fixture.open_with(&zeros).unwrap().1, noted(0..2));
    let four = fixture.written(4);
    let mut without_the_third = four.clone();
    without_the_third[two..two + RECORD_LEN].fill(0);
    fs::write(&fixture.files.end, &end_of_two).unwrap();
    assert_eq!(fixture.open_with(&without_the_third).unwrap().1, noted(0..2));
}

#[test]
fn file_with_any_byte_changed_is_refused() {
    let fixture = fixture();
    let good = fixture.written(3);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        let fingerprint = MAGIC.len() + 4..MAGIC.len() + 4 + Fingerprint::LEN;
        if fingerprint.contains(&at) {
            assert!(matches!(fixture.open_with(&bad), Err(Refusal::OtherSecret)), "byte {at}");
        } else {
            assert!(fixture.refused(&bad), "byte {at}");
        }
    }
}

#[test]
fn swapped_repeated_or_removed_changes_are_refused() {
    let fixture = fixture();
    let good = fixture.written(4);
    let (head, records) = good.split_at(HEAD_LEN);
    let part = |at: usize| &records[at * RECORD_LEN..(at + 1) * RECORD_LEN];
    for order in [&[1, 0, 2, 3][..], &[0, 2, 1, 3], &[0, 2, 3], &[1, 2, 3], &[0, 1, 1, 2, 3]] {
        let records = order.iter().map(|at| part(*at));
        let bad: Vec<_> = std::iter::once(head).chain(records).collect();
        assert!(fixture.refused(&bad.concat()), "{order:?}");
    }
}

#[test]
fn file_that_is_no_journal_is_refused() {
    let fixture = fixture();
    let good = fixture.written(1);
    for length in 0..HEAD_LEN {
        assert!(fixture.refused(&good[..length]), "{length}");
    }
    assert!(fixture.refused(&[0; 500]));
    let other = Journal::open(&fixture.files, &seals(&[OTHER_SECRET]), &header(1));
    assert!(matches!(other, Err(Refusal::ChangesDamaged)), "only zeros");
    fs::write(&fixture.files.changes, &good).unwrap();
    let other = Journal::open(&fixture.files, &seals(&[OTHER_SECRET]), &header(1));
    assert!(matches!(other, Err(Refusal::OtherSecret)));
    let stranger = Header { lineage: [6; 16], ..header(1) };
    let other = Journal::open(&fixture.files, &seals(&[SECRET]), &stranger);
    assert!(matches!(other, Err(Refusal::OtherChanges)));
    fs::remove_file(&fixture.files.changes).unwrap();
    assert!(matches!(fixture.open(), Err(Refusal::NoChanges)));
}

#[test]
fn shortening_keeps_changes_that_the_snapshot_lacks() {
    let fixture = fixture();
    let mut journal = fixture.begin();
    journal.append(&changes(0..5)).unwrap();
    // Three changes were journaled; the last was not yet applied.
    let taken = Header { noted: 3, position: at(101), ..header(2) };
    journal.announce(2).unwrap();
    journal.shorten(&fixture.files, &seals(&[OTHER_SECRET, SECRET]), &taken).unwrap();
    journal.append(&changes(5..6)).unwrap();
    let both = seals(&[OTHER_SECRET, SECRET]);
    let (journal, kept) = Journal::open(&fixture.files, &both, &taken).unwrap();
    assert_eq!((kept, journal.next()), (noted(2..6), 6));
    assert!(matches!(fixture.open(), Err(Refusal::OtherSecret)), "sealed with the new secret");
}

#[test]
fn failed_shortening_leaves_the_journal_unchanged() {
    let fixture = fixture();
    let mut journal = fixture.begin();
    journal.append(&changes(0..2)).unwrap();
    // A folder in place of the draft.
    fs::create_dir(fixture.folder.beside(".changes.new")).unwrap();
    let taken = Header { noted: 2, position: at(101), ..header(2) };
    let shortened = journal.shorten(&fixture.files, &seals(&[SECRET]), &taken);
    assert!(matches!(shortened, Err(ShortenError::Untouched(_))));
    journal.append(&changes(2..3)).unwrap();
    assert_eq!(fixture.open().unwrap().1, noted(0..3));
}

#[test]
fn shortening_refuses_a_journal_that_this_process_did_not_write() {
    let fixture = fixture();
    let mut journal = fixture.begin();
    journal.append(&changes(0..2)).unwrap();
    let two = fs::read(&fixture.files.changes).unwrap();
    journal.append(&changes(2..3)).unwrap();
    let three = fs::read(&fixture.files.changes).unwrap();
    let mut damaged = three.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let other = fixture.folder.beside(".other");
    let others = Files::claim(&other).unwrap();
    let mut stranger = Journal::begin(&others, &seals(&[SECRET]), LINEAGE).unwrap();
    stranger.append(&changes(7..10)).unwrap();
    let taken = Header { noted: 2, position: at(101), ..header(2) };
    for bytes in [two, damaged, fs::read(&others.changes).unwrap()] {
        fs::write(&fixture.files.changes, &bytes).unwrap();
        let shortened = journal.shorten(&fixture.files, &seals(&[SECRET]), &taken);
        assert!(matches!(shortened, Err(ShortenError::Unknown(_))));
        assert_eq!(fs::read(&fixture.files.changes).unwrap(), bytes, "the file is not overwritten");
    }
    fs::write(&fixture.files.changes, &three).unwrap();
    journal.announce(2).unwrap();
    journal.shorten(&fixture.files, &seals(&[SECRET]), &taken).unwrap();
    assert_eq!(
        fixture.open_with(&fs::read(&fixture.files.changes).unwrap()).unwrap_err().to_string(),
        Refusal::OtherChanges.to_string(),
        "the earlier snapshot is refused"
    );
    assert_eq!(Journal::open(&fixture.files, &seals(&[SECRET]), &taken).unwrap().1, noted(2..3));
}

#[test]
fn journal_opens_on_a_full_disk() {
    let fixture = fixture();
    let mut journal = fixture.begin();
    journal.append(&changes(0..2)).unwrap();
    journal.announce(2).unwrap();
    // A folder in place of every draft: no new file can be written.
    fs::create_dir(fixture.folder.beside(".end.new")).unwrap();
    fs::create_dir(fixture.folder.beside(".changes.new")).unwrap();
    assert_eq!(
        Journal::open(&fixture.files, &seals(&[SECRET]), &header(2)).unwrap().1,
        noted(0..2)
    );
}

#[test]
fn truncated_or_zeroed_journal_is_refused() {
    let fixture = fixture();
    let good = fixture.written(3);
    for length in 0..good.len() {
        assert!(fixture.refused(&good[..length]), "{length}");
        let mut zeroed = good.clone();
        zeroed[length..].fill(0);
        if zeroed != good {
            assert!(fixture.open_with(&zeroed).is_err(), "{length}");
        }
    }
    assert_eq!(fixture.open_with(&good).unwrap().1, noted(0..3));
}

#[test]
fn missing_changed_or_foreign_end_file_is_refused() {
    let fixture = fixture();
    fixture.written(3);
    let good = fs::read(&fixture.files.end).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        fs::write(&fixture.files.end, &bad).unwrap();
        let refused = fixture.open().unwrap_err();
        assert!(matches!(refused, Refusal::ChangesDamaged | Refusal::OtherSecret), "byte {at}");
        fs::write(&fixture.files.end, &good[..at]).unwrap();
        assert!(matches!(fixture.open(), Err(Refusal::ChangesDamaged)), "{at} bytes");
    }
    let other = End { lineage: [6; 16], next: 0, tag: [0; TAG_LEN], serial: 0, upcoming: 0 };
    other.begin(&fixture.files, seals(&[SECRET]).first()).unwrap();
    assert!(matches!(fixture.open(), Err(Refusal::OtherChanges)));
    fs::remove_file(&fixture.files.end).unwrap();
    assert!(matches!(fixture.open(), Err(Refusal::NoEnd)));
}

#[test]
fn snapshot_older_than_the_journal_or_the_end_file_is_refused() {
    let fixture = fixture();
    let mut journal = fixture.begin();
    let read = || [&fixture.files.changes, &fixture.files.end].map(|file| fs::read(file).unwrap());
    let [_, end_before] = read();
    journal.announce(2).unwrap();
    journal.shorten(&fixture.files, &seals(&[SECRET]), &header(2)).unwrap();
    let [changes, end] = read();
    let open = |serial| Journal::open(&fixture.files, &seals(&[SECRET]), &header(serial));
    assert!(matches!(open(1), Err(Refusal::OtherChanges)));
    fs::write(&fixture.files.end, &end_before).unwrap();
    assert!(matches!(open(1), Err(Refusal::OtherChanges)), "the journal is newer");
    fixture.begin();
    fs::write(&fixture.files.end, &end).unwrap();
    assert!(matches!(open(1), Err(Refusal::OtherChanges)), "the end file is newer");
    fs::write(&fixture.files.changes, &changes).unwrap();
    assert!(matches!(open(3), Err(Refusal::OtherChanges)), "it was not announced");
    let (mut journal, _) = open(2).unwrap();
    journal.announce(3).unwrap();
    assert!(open(3).is_ok(), "its process died before rewriting the journal");
}

#[test]
fn journal_length_is_bounded() {
    let journal = fixture().begin();
    assert!(journal.has_room_for(1_000_000) && !journal.has_room_for(1_000_001));
}
