//! Mixed sets of files: those that a crash leaves, and those assembled by hand.

use super::*;

type Files = [Vec<u8>; 3];

fn read(folder: &Folder) -> Files {
    NAMES.map(|name| fs::read(folder.beside(name)).unwrap())
}

fn put_together(folder: &Folder, [snapshot, changes, end]: [&Files; 3]) {
    for (name, bytes) in NAMES.iter().zip([&snapshot[0], &changes[1], &end[2]]) {
        fs::write(folder.beside(name), bytes).unwrap();
    }
}

fn found(folder: &Folder) -> Vec<u64> {
    keys(&folder.restored().unwrap().unwrap().0)
}

/// What is on disk if the process dies after each write, in order:
///
/// | after | snapshot | journal | end file |
/// |---|---|---|---|
/// | a change was flushed to disk | old | longer | old |
/// | the end file was overwritten | old | longer | new |
/// | the end file announced a snapshot | old | longer | announcing |
/// | the snapshot was renamed | new | longer | announcing |
/// | the journal was renamed | new | rewritten | announcing |
/// | the end file was overwritten | new | rewritten | of the new snapshot |
#[test]
fn whenever_a_crash_comes_the_files_are_used_and_no_change_is_forgotten() {
    for secrets in [&[SECRET][..], &[OTHER_SECRET, SECRET]] {
        let folder = Folder::new();
        drop(kept(&folder));
        let keeper = || Keeper::new(folder.path.clone(), store(1), seals(secrets));
        let found = || keys(&restored(&mut keeper(), later(Duration::ZERO)).unwrap().unwrap().0);
        let mut writing = keeper();
        writing.restore(&empty(), HOUR, Clock::System.moment()).unwrap().unwrap();
        let old = read(&folder);
        note(&mut writing, [(0, 11)]);
        let longer = read(&folder);
        // The second change is noted during the snapshot, which lacks it.
        let draft = writing.begin(at(11), None, Clock::System.moment()).unwrap();
        draft.write(memory(3).export(), || true).unwrap();
        note(&mut writing, [(1, 12)]);
        let longest = read(&folder);
        writing.journal().unwrap().announce(draft.header.serial).unwrap();
        let announcing = read(&folder);
        writing.finish(&draft).unwrap();
        let new = read(&folder);
        drop(writing);
        for (files, expected) in [
            ([&old, &longer, &old], [1, 2].as_slice()),
            ([&old, &longer, &longer], &[1, 2]),
            ([&old, &longest, &longer], &[2]),
            ([&old, &longest, &announcing], &[2]),
            ([&new, &longest, &announcing], &[0, 2]),
            ([&new, &new, &announcing], &[0, 2]),
            ([&new, &new, &new], &[0, 2]),
        ] {
            put_together(&folder, files);
            assert_eq!(found(), expected);
            assert_eq!(found(), expected, "and by the process after that");
        }
    }
}

#[test]
fn later_snapshot_beside_changes_and_end_of_an_earlier_moment_is_refused() {
    let folder = Folder::new();
    let mut keeper = kept(&folder);
    note(&mut keeper, [(0, 11)]);
    let earlier = read(&folder);
    note(&mut keeper, [(0, 12)]);
    write_at(&mut keeper, &memory(3), 12);
    note(&mut keeper, [(1, 13)]);
    let later = read(&folder);
    drop(keeper);
    put_together(&folder, [&later, &earlier, &earlier]);
    assert!(matches!(folder.refused(), Refusal::OtherChanges));
    put_together(&folder, [&later, &later, &later]);
    assert_eq!(found(&folder), [0, 2]);
}

#[test]
fn later_snapshot_is_refused_though_no_change_came_between() {
    let folder = Folder::new();
    let mut keeper = kept(&folder);
    let earlier = read(&folder);
    write_at(&mut keeper, &memory(3), 10);
    let later = read(&folder);
    note(&mut keeper, [(1, 13)]);
    drop(keeper);
    put_together(&folder, [&later, &earlier, &earlier]);
    assert!(matches!(folder.refused(), Refusal::OtherChanges));
}

#[test]
fn changes_with_the_same_numbers_that_are_not_those_of_the_end_are_refused() {
    let folder = Folder::new();
    drop(kept(&folder));
    let origin = read(&folder);
    // Two processes continue from the same files.
    let went_on = |changes: &[(u64, i64)]| {
        put_together(&folder, [&origin; 3]);
        let mut keeper = folder.keeper();
        keeper.restore(&empty(), HOUR, Clock::System.moment()).unwrap();
        note(&mut keeper, changes.iter().copied());
        drop(keeper);
        read(&folder)
    };
    let revoking = went_on(&[(1, 11), (2, 12)]);
    for other in [&[(7, 11), (8, 12)][..], &[(7, 11), (8, 12), (9, 13)]] {
        let other = went_on(other);
        put_together(&folder, [&revoking, &other, &revoking]);
        assert!(matches!(folder.refused(), Refusal::ChangesDamaged));
    }
    put_together(&folder, [&revoking; 3]);
    assert_eq!(found(&folder), [0]);
}
