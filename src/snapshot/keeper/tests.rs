mod model;
mod moments;

use std::{fs, os::unix::fs::PermissionsExt};

use tokio::time::Instant;

use super::{super::fixture::*, *};
use crate::{
    key::State,
    outage::Unavailable,
    store::{Answer, ChangeKind, fake::record},
    time::Clock,
};

fn kept(folder: &Folder) -> Keeper {
    let mut keeper = folder.keeper();
    write_at(&mut keeper, &memory(3), 10);
    keeper
}

fn later(by: Duration) -> Moment {
    let now = Clock::System.moment();
    Moment { wall: now.wall + by, ..now }
}

fn earlier(by: Duration) -> Moment {
    let now = Clock::System.moment();
    Moment { wall: now.wall - by, ..now }
}

/// The files, named by their suffixes.
const NAMES: [&str; 3] = ["", ".changes", ".end"];

#[test]
fn cache_entries_are_restored_with_their_age() {
    let folder = Folder::new();
    drop(kept(&folder));
    let now = later(Duration::from_mins(10));
    let (memory, restored) = restored(&mut folder.keeper(), now).unwrap().unwrap();
    assert_eq!(keys(&memory), [0, 1, 2]);
    let age = now.monotonic - known(&memory, 0).unwrap().validated_at;
    let close = |to: Duration| to >= Duration::from_mins(10) && to < Duration::from_mins(11);
    assert!(close(age) && close(restored.since_written), "{age:?}");
    assert!(close(now.monotonic - restored.covered_since));
    assert_eq!((restored.position, restored.entries), (at(10), 3));
}

#[test]
fn missing_snapshot_restores_nothing_without_an_error() {
    let folder = Folder::new();
    assert!(folder.restored().unwrap().is_none());
    assert_eq!(folder.names(), ["snapshot.lock"]);
}

#[test]
fn unknown_coverage_starts_at_the_restart() {
    let folder = Folder::new();
    let mut keeper = folder.keeper();
    let now = Clock::System.moment();
    let draft = keeper.begin(at(0), None, now).unwrap();
    draft.write(memory(1).export(), || true).unwrap();
    keeper.finish(&draft).unwrap();
    drop(keeper);
    let now = Clock::System.moment();
    let (_, restored) = restored(&mut folder.keeper(), now).unwrap().unwrap();
    assert_eq!(restored.covered_since, now.monotonic);
}

#[test]
fn outdated_entries_and_expired_keys_are_not_restored() {
    let folder = Folder::new();
    let mut keeper = folder.keeper();
    let (all, now) = (memory(1), Clock::System.moment());
    let old = now.monotonic - Duration::from_mins(31);
    put(&all, 1, &record("old", 1), old);
    for (number, minutes) in [(2, 29), (3, 31)] {
        let mut record = record("ends", 1);
        record.rights.expires_at = Some(now.wall + Duration::from_mins(minutes));
        put(&all, number, &record, now.monotonic);
    }
    write_at(&mut keeper, &all, 1);
    drop(keeper);
    let now = later(Duration::from_mins(30));
    let (memory, restored) = restored(&mut folder.keeper(), now).unwrap().unwrap();
    assert_eq!((keys(&memory), restored.entries), (vec![0, 3], 2));
}

#[test]
fn a_snapshot_that_is_too_old_for_its_entries_still_says_which_keys_have_ended() {
    let folder = Folder::new();
    let (mut keeper, all) = (folder.keeper(), memory(3));
    let revoked = Change { kind: ChangeKind::Revoked, ..updated(1, 9) };
    let _ = all.change(&revoked);
    write_at(&mut keeper, &all, 10);
    keeper.note(&[Change { kind: ChangeKind::Revoked, ..updated(2, 11) }]).unwrap();
    drop(keeper);
    let now = later(30 * 24 * HOUR);
    let (memory, restored) = restored(&mut folder.keeper(), now).unwrap().unwrap();
    assert_eq!((keys(&memory), restored.entries, restored.position), (vec![], 0, at(10)));
    for key in [1, 2] {
        let older = Answer::Found((&record("older", 1)).into());
        let judged = memory.judge(&digest(key), &older).unwrap();
        assert!(matches!(judged, Answer::Found(known) if known.state() == State::Revoked));
    }
}

#[test]
fn tombstones_are_restored_though_the_clock_went_back_or_the_journal_is_refused() {
    for spoil in [false, true] {
        let folder = Folder::new();
        let (mut keeper, all) = (folder.keeper(), memory(3));
        let _ = all.change(&Change { kind: ChangeKind::Revoked, ..updated(1, 9) });
        write_at(&mut keeper, &all, 10);
        drop(keeper);
        let now = if spoil { later(Duration::ZERO) } else { earlier(Duration::from_mins(2)) };
        if spoil {
            fs::write(folder.beside(".changes"), [0; 100]).unwrap();
        }
        let memory = empty();
        let outcome = folder.keeper().restore(&memory, HOUR, now);
        assert_eq!(outcome.is_err(), spoil, "{outcome:?}");
        assert!(memory.is_empty());
        let older = Answer::Found((&record("older", 1)).into());
        let judged = memory.judge(&digest(1), &older).unwrap();
        assert!(matches!(judged, Answer::Found(known) if known.state() == State::Revoked));
    }
}

#[test]
fn entries_from_the_future_are_not_restored() {
    let folder = Folder::new();
    drop(kept(&folder));
    let read = |now| restored(&mut folder.keeper(), now);
    let (memory, restored) = read(earlier(Duration::from_mins(2))).unwrap().unwrap();
    assert_eq!((keys(&memory).len(), restored.entries, restored.position), (0, 0, at(10)));
    let (memory, restored) = read(earlier(Duration::from_secs(50))).unwrap().unwrap();
    assert_eq!((keys(&memory).len(), restored.since_written), (3, Duration::ZERO));
    assert!(read(later(Duration::from_mins(59))).is_ok());
}

#[test]
fn file_that_others_may_access_is_refused_with_the_remedy() {
    let folder = Folder::new();
    drop(kept(&folder));
    for file in [&folder.path, &folder.beside(".changes")] {
        for mode in [0o644, 0o602, 0o604, 0o666] {
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
            let reason = folder.refused().to_string();
            assert!(reason.contains(&format!("mode {mode:o}")), "{reason}");
            assert!(reason.contains("chmod 600"), "{reason}");
        }
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(folder.restored().unwrap().is_some());
    }
}

#[test]
fn irregular_file_is_refused_without_blocking() {
    let folder = Folder::new();
    fs::create_dir(&folder.path).unwrap();
    assert!(matches!(folder.refused(), Refusal::NotAFile));
    fs::remove_dir(&folder.path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&folder.path).status().unwrap();
    assert!(made.success());
    assert!(matches!(folder.refused(), Refusal::NotAFile));
}

#[test]
fn snapshot_of_another_store_or_secret_is_refused() {
    let folder = Folder::new();
    drop(kept(&folder));
    let read = |store, secrets: &[&str]| {
        let mut keeper = Keeper::new(folder.path.clone(), store, seals(secrets));
        restored(&mut keeper, Clock::System.moment())
    };
    assert!(matches!(read(store(2), &[SECRET]), Err(Refusal::OtherStore)));
    assert!(matches!(read(store(1), &[OTHER_SECRET]), Err(Refusal::OtherSecret)));
    assert!(read(store(1), &[OTHER_SECRET, SECRET]).unwrap().is_some());
}

#[test]
fn key_changed_after_the_snapshot_is_not_restored() {
    let folder = Folder::new();
    let mut keeper = kept(&folder);
    note(&mut keeper, [(1, 11)]);
    drop(keeper);
    let (memory, restored) = folder.restored().unwrap().unwrap();
    assert_eq!((keys(&memory), restored.entries), (vec![0, 2], 2));
    // The next process continues with the same files.
    let mut keeper = folder.keeper();
    keeper.restore(&empty(), HOUR, Clock::System.moment()).unwrap();
    note(&mut keeper, [(2, 12)]);
    drop(keeper);
    assert_eq!(keys(&folder.restored().unwrap().unwrap().0), [0]);
}

#[test]
fn change_during_a_snapshot_write_stays_in_the_journal() {
    let folder = Folder::new();
    let (mut keeper, now) = (kept(&folder), Clock::System.moment());
    note(&mut keeper, [(0, 11)]);
    let draft = keeper.begin(at(11), None, now).unwrap();
    draft.write(memory(3).export(), || true).unwrap();
    note(&mut keeper, [(1, 12)]);
    keeper.finish(&draft).unwrap();
    note(&mut keeper, [(2, 13)]);
    drop(keeper);
    assert_eq!(keys(&folder.restored().unwrap().unwrap().0), [0]);
}

#[test]
fn change_noted_but_not_yet_applied_counts_by_its_revision() {
    let folder = Folder::new();
    let mut keeper = kept(&folder);
    note(&mut keeper, [(0, 11), (1, 12)]);
    write_at(&mut keeper, &memory(3), 11);
    drop(keeper);
    assert_eq!(keys(&folder.restored().unwrap().unwrap().0), [0, 2]);
}

#[test]
fn ended_key_stays_ended_after_restarts() {
    let folder = Folder::new();
    let mut keeper = folder.keeper();
    let change = |key, revision, kind| Change { kind, ..updated(key, revision) };
    let [revoked, deleted, anew] = [
        change(0, 8, ChangeKind::Revoked),
        change(1, 9, ChangeKind::Deleted),
        change(2, 10, ChangeKind::Deleted),
    ];
    let before = memory(4);
    for change in [&revoked, &deleted, &anew] {
        let _ = before.change(change);
    }
    write_at(&mut keeper, &before, 10);
    let after = [change(2, 11, ChangeKind::Created), change(3, 12, ChangeKind::Revoked)];
    keeper.note(&after).unwrap();
    drop(keeper);
    for _ in 0..2 {
        let mut keeper = folder.keeper();
        let memory = empty();
        keeper.restore(&memory, HOUR, Clock::System.moment()).unwrap().unwrap();
        let row = |key, revision| {
            let answer = Answer::Found((&record("older", revision)).into());
            memory.judge(&digest(key), &answer).map(|answer| match answer {
                Answer::Found(known) => known.state(),
                Answer::Absent(_) => panic!("there is a row"),
            })
        };
        assert_eq!(row(0, 20), Ok(State::Revoked));
        assert_eq!(row(1, 9), Err(Unavailable::Suspect));
        assert_eq!(row(2, 11), Ok(State::Active), "created again");
        assert_eq!(row(3, 1), Ok(State::Revoked), "from the journal alone");
        // Again, from the snapshot of this process.
        write_at(&mut keeper, &memory, 12);
    }
}

#[test]
fn files_of_different_snapshots_are_refused() {
    let folder = Folder::new();
    let mut keeper = kept(&folder);
    let names = ["", ".changes", ".end"];
    let read = || names.map(|name| fs::read(folder.beside(name)).unwrap());
    let earlier = read();
    // A revocation found by a lookup: no change records it.
    let all = memory(3);
    let mut revoked = record("p1", 2);
    revoked.state = State::Revoked;
    put(&all, 1, &revoked, Instant::now());
    write_at(&mut keeper, &all, 10);
    let quiet = read();
    keeper.note(&[updated(1, 11)]).unwrap();
    let noted = read();
    drop(keeper);
    let write = |files: [&Vec<u8>; 3]| {
        names.iter().zip(files).for_each(|(name, it)| fs::write(folder.beside(name), it).unwrap());
    };
    for files in [
        [&earlier[0], &quiet[1], &quiet[2]],
        [&earlier[0], &earlier[1], &quiet[2]],
        [&earlier[0], &quiet[1], &earlier[2]],
        [&earlier[0], &noted[1], &noted[2]],
    ] {
        write(files);
        assert!(matches!(folder.refused(), Refusal::OtherChanges));
    }
    write([&noted[0], &quiet[1], &noted[2]]);
    assert!(matches!(folder.refused(), Refusal::ChangesDamaged), "truncated");
    write([&noted[0], &noted[1], &noted[2]]);
    assert_eq!(folder.restored().unwrap().unwrap().1.entries, 3, "revoked keys are kept");
}

#[test]
fn revoked_key_stays_revoked_when_revisions_go_back() {
    let folder = Folder::new();
    let mut keeper = kept(&folder);
    // A backup was restored, so later changes have small numbers again.
    note(&mut keeper, [(1, 4)]);
    drop(keeper);
    assert_eq!(keys(&folder.restored().unwrap().unwrap().0), [0, 2]);
}

#[test]
fn snapshot_without_its_own_journal_is_refused() {
    let folder = Folder::new();
    let mut keeper = kept(&folder);
    note(&mut keeper, [(1, 11), (2, 12)]);
    drop(keeper);
    let changes = folder.beside(".changes");
    let good = fs::read(&changes).unwrap();
    let mut bad = good.clone();
    let middle = good.len() - 60;
    bad[middle] ^= 1;
    fs::write(&changes, &bad).unwrap();
    assert!(matches!(folder.refused(), Refusal::ChangesDamaged));
    fs::remove_file(&changes).unwrap();
    assert!(matches!(folder.refused(), Refusal::NoChanges));
    let elsewhere = Folder::new();
    drop(kept(&elsewhere));
    fs::copy(elsewhere.beside(".changes"), &changes).unwrap();
    assert!(matches!(folder.refused(), Refusal::OtherChanges));
}

#[test]
fn refused_snapshot_is_usable_until_the_first_change_that_it_lacks() {
    let folder = Folder::new();
    drop(kept(&folder));
    let mut stranger = Keeper::new(folder.path.clone(), store(1), seals(&[OTHER_SECRET]));
    restored(&mut stranger, Clock::System.moment()).unwrap_err();
    drop(stranger);
    assert!(folder.restored().unwrap().is_some());
    let mut stranger = Keeper::new(folder.path.clone(), store(1), seals(&[OTHER_SECRET, SECRET]));
    // It did not restore the snapshot, and receives a change.
    stranger.claim().unwrap();
    note(&mut stranger, [(1, 11)]);
    drop(stranger);
    let both = &mut Keeper::new(folder.path.clone(), store(1), seals(&[OTHER_SECRET, SECRET]));
    let reason = restored(both, Clock::System.moment()).unwrap_err();
    assert!(matches!(reason, Refusal::OtherChanges), "{reason}");
}

#[test]
fn lost_change_removes_the_snapshot_and_the_draft() {
    let folder = Folder::new();
    let mut keeper = kept(&folder);
    let draft = keeper.begin(at(11), None, Clock::System.moment()).unwrap();
    draft.write(memory(3).export(), || true).unwrap();
    keeper.invalidate();
    assert!(!folder.path.exists());
    assert!(keeper.finish(&draft).is_err());
    keeper.discard();
    assert_eq!(folder.names(), ["snapshot.lock"]);
    write_at(&mut keeper, &memory(2), 12);
    drop(keeper);
    assert_eq!(keys(&folder.restored().unwrap().unwrap().0), [0, 1]);
}

#[test]
fn full_journal_removes_the_snapshot() {
    let folder = Folder::new();
    let mut keeper = kept(&folder);
    let one = updated(1, 11);
    let most = usize::try_from(super::super::journal::MAX_RECORDS).unwrap();
    keeper.note(&vec![one.clone(); most + 1]).unwrap_err();
    assert!(!folder.path.exists());
    keeper.note(&[one]).unwrap();
}

#[test]
fn incomplete_drafts_are_removed_and_the_last_snapshot_is_restored() {
    let folder = Folder::new();
    drop(kept(&folder));
    for left in [".new", ".changes.new", ".end.new"] {
        fs::write(folder.beside(left), "half").unwrap();
    }
    assert_eq!(keys(&folder.restored().unwrap().unwrap().0), [0, 1, 2]);
    assert_eq!(folder.names(), ["snapshot", "snapshot.changes", "snapshot.end", "snapshot.lock"]);
    for name in folder.names() {
        let mode = fs::metadata(folder.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn files_of_another_instance_are_not_touched() {
    let folder = Folder::new();
    let other = kept(&folder);
    let reason = folder.refused().to_string();
    assert!(reason.contains("another instance uses it; give each instance"), "{reason}");
    let mut keeper = folder.keeper();
    note(&mut keeper, [(1, 11)]);
    keeper.invalidate();
    assert!(keeper.begin(at(1), None, Clock::System.moment()).is_err());
    drop(other);
    assert_eq!(keys(&folder.restored().unwrap().unwrap().0), [0, 1, 2]);
    write_at(&mut keeper, &memory(1), 12);
    drop(keeper);
    assert_eq!(keys(&folder.restored().unwrap().unwrap().0), [0]);
}
