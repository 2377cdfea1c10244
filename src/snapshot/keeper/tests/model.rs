//! Model test of the key lifecycle: changes, lost changes, restored dumps, late answers,
//! snapshots, crashes and outdated files, in any order. A key known to this instance as revoked
//! is never served again.

mod database;

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use proptest::prelude::*;
use tokio::time::Instant;

use self::database::Database;
use super::*;
use crate::{
    cache::{CacheConfig, Coverage},
    key::{Revision, State},
    store::{Answer, Change, ChangeKind, Row},
    suspect::{SuspectConfig, Suspicion},
};

/// Number of keys.
const KEYS: u8 = 4;

#[derive(Debug, Clone)]
enum Op {
    /// A client changes a key.
    Create(u8),
    Update(u8),
    Disable(u8),
    Enable(u8),
    Revoke(u8),
    Delete(u8),
    /// Makes or loads a dump: rows, changes and the sequence.
    Dump,
    Load,
    /// The feed catches up.
    Feed,
    /// A lookup, or one that reads now and is answered later.
    Look(u8),
    Ask(u8),
    Answered,
    Snapshot,
    /// Copies the current files.
    SaveFiles,
    Restart(Files),
}

/// What happens to the files while the process is down.
#[derive(Debug, Clone, Copy)]
enum Files {
    Untouched,
    /// One or two are replaced by the copies.
    Older(usize, usize),
    /// The journal loses its last bytes, or has zeros there.
    Cut(usize),
    Zeroed(usize),
    /// One byte of one file changes.
    Damaged(usize, usize),
}

fn of(key: u8) -> Digest {
    digest(key.into())
}

/// A lookup that has read its row and is not answered yet.
struct PendingLookup {
    key: u8,
    answer: Answer,
    at: Instant,
    /// Last change of the key applied since.
    changed: Option<Revision>,
}

struct World {
    folder: Folder,
    database: Database,
    dump: Option<Database>,
    memory: Memory,
    coverage: Arc<Coverage>,
    keeper: Keeper,
    position: i64,
    /// The change at `position`.
    landmark: Option<(i64, u8, ChangeKind)>,
    pending: Vec<PendingLookup>,
    saved_files: HashMap<&'static str, Vec<u8>>,
    /// Keys known as revoked when the files were copied.
    known_when_saved: BTreeSet<u8>,
    /// Keys known as revoked to this process, or to an earlier one whose files were restored.
    known: BTreeSet<u8>,
    /// Whether the files on disk were already refused.
    spoiled: bool,
}

impl World {
    fn new() -> Self {
        let folder = Folder::new();
        let (memory, coverage) = fresh();
        let mut keeper = folder.keeper();
        assert!(keeper.restore(&memory, HOUR, Clock::System.moment()).unwrap().is_none());
        Self {
            folder,
            database: Database::default(),
            dump: None,
            memory,
            coverage,
            keeper,
            position: 0,
            landmark: None,
            pending: Vec::new(),
            saved_files: HashMap::new(),
            known_when_saved: BTreeSet::new(),
            known: BTreeSet::new(),
            spoiled: false,
        }
    }

    fn run(&mut self, op: &Op) {
        let rows = &self.database.rows;
        let state = |key: &u8| rows.get(key).map(|(state, _)| *state);
        match op {
            Op::Create(key) if state(key).is_none() => self.database.set(*key, State::Active),
            Op::Update(key) => {
                if let Some(state) = state(key) {
                    self.database.set(*key, state);
                }
            }
            Op::Disable(key) if state(key) == Some(State::Active) => {
                self.database.set(*key, State::Disabled);
            }
            Op::Enable(key) if state(key) == Some(State::Disabled) => {
                self.database.set(*key, State::Active);
            }
            Op::Revoke(key) if state(key).is_some() => self.database.set(*key, State::Revoked),
            Op::Delete(key) if state(key).is_some() => {
                self.database.rows.remove(key);
                self.database.change(*key, ChangeKind::Deleted);
            }
            Op::Dump => self.dump = Some(self.database.clone()),
            Op::Load => self.database = self.dump.clone().unwrap_or_default(),
            Op::Feed => self.feed(),
            Op::Look(key) => {
                self.ask(*key);
                self.answered();
            }
            Op::Ask(key) => self.ask(*key),
            Op::Answered => self.answered(),
            Op::Snapshot => self.snapshot(),
            Op::SaveFiles => {
                let read = |name| Some((name, fs::read(self.folder.beside(name)).ok()?));
                self.saved_files = NAMES.into_iter().filter_map(read).collect();
                self.known_when_saved.clone_from(&self.known);
            }
            Op::Restart(files) => self.restart(*files),
            // The file has no such byte.
            Op::Create(_) | Op::Disable(_) | Op::Enable(_) | Op::Revoke(_) | Op::Delete(_) => {}
        }
    }

    /// Like `feed::Reader`: continues after the position, or restarts at the head if the store
    /// lost changes or has a different history.
    fn feed(&mut self) {
        let now = Instant::now();
        let head = self.database.head();
        let recognised = self.landmark.is_none_or(|row| self.database.changes.contains(&row));
        if head < self.position || !recognised {
            self.coverage.begin_anew(now);
        } else {
            let position = self.position;
            let new = self.database.changes.iter().filter(|(revision, ..)| *revision > position);
            for (revision, key, kind) in new.copied().collect::<Vec<_>>() {
                let revision = Revision(revision);
                let change = Change { revision, digest: of(key), kind };
                for pending in self.pending.iter_mut().filter(|pending| pending.key == key) {
                    pending.changed = Some(revision);
                }
                let _ = self.memory.change(&change);
                self.keeper.note(std::slice::from_ref(&change)).unwrap();
                if kind == ChangeKind::Revoked {
                    self.known.insert(key);
                }
            }
        }
        (self.position, self.landmark) = (head, self.database.changes.last().copied());
        self.coverage.confirm(now);
    }

    fn ask(&mut self, key: u8) {
        let (answer, at) = (self.database.answer(key), Instant::now());
        self.pending.push(PendingLookup { key, answer, at, changed: None });
    }

    /// Like a fill worker that caches an answer.
    fn answered(&mut self) {
        let Some(PendingLookup { key, answer, at, changed }) = self.pending.pop() else { return };
        let memory = &self.memory;
        let current = changed.is_none_or(|last| memory.includes(&answer, at, last));
        let counts = if current {
            let news = memory.news(of(key), &answer);
            let taken = memory.take(of(key), &answer, at);
            if taken.is_ok()
                && let Some(news) = news
            {
                self.keeper.note(&[news]).unwrap();
            }
            taken
        } else {
            memory.judge(&of(key), &answer)
        };
        if let Ok(Answer::Found(known)) = counts {
            assert!(
                known.state() == State::Revoked || !self.known.contains(&key),
                "key {key} is known to be revoked, and an answer says {known:?}"
            );
            if known.state() == State::Revoked && current {
                self.known.insert(key);
            }
        }
    }

    fn snapshot(&mut self) {
        let now = Clock::System.moment();
        let landmark = self.landmark.map(|(revision, key, kind)| Row {
            revision: Revision(revision),
            digest: of(key),
            kind: Some(kind),
        });
        let position = Position { revision: Revision(self.position), landmark };
        let draft = self.keeper.begin(position, Some(now.wall), now).unwrap();
        draft.write(self.memory.export(), || true).unwrap();
        self.keeper.finish(&draft).unwrap();
        self.spoiled = false;
    }

    /// The process dies; the next one finds the files in this condition.
    fn restart(&mut self, files: Files) {
        self.spoil(files);
        // A mix of files is detectable; a complete older set is not.
        let now = |name| fs::read(self.folder.beside(name)).ok();
        if NAMES.iter().all(|name| now(name).as_ref() == self.saved_files.get(name)) {
            self.known.clone_from(&self.known_when_saved);
        }
        self.saved_files.clear();
        self.pending.clear();
        // Release the lock on the files first.
        self.keeper = Folder::new().keeper();
        self.keeper = self.folder.keeper();
        // A child process of another test inherits the lock until it calls exec.
        while self.keeper.claim().is_err() {
            std::thread::yield_now();
        }
        (self.memory, self.coverage) = fresh();
        let now = Clock::System.moment();
        let restored = self.keeper.restore(&self.memory, HOUR, now);
        self.spoiled |= !matches!(files, Files::Untouched);
        assert!(restored.is_ok() || self.spoiled, "{restored:?}");
        if let Ok(Some(restored)) = restored {
            self.coverage.resume(restored.covered_since, now.monotonic);
            self.position = restored.position.revision.0;
            let landmark = restored.position.landmark.map(|row| row.revision.0);
            let find = |it: &&(i64, u8, ChangeKind)| Some(it.0) == landmark;
            self.landmark = self.database.changes.iter().find(find).copied();
        } else {
            (self.memory, self.coverage) = fresh();
            (self.position, self.landmark) =
                (self.database.head(), self.database.changes.last().copied());
            self.known.clear();
        }
    }

    fn spoil(&self, files: Files) {
        let path = |name: &str| self.folder.beside(name);
        let rewrite = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
            if let Ok(mut bytes) = fs::read(path(name)) {
                change(&mut bytes);
                replace(&path(name), &bytes);
            }
        };
        let from = |bytes: &[u8], last: usize| bytes.len() - bytes.len().min(last);
        match files {
            Files::Untouched => {}
            Files::Older(one, other) => {
                for which in [one, other] {
                    if let Some(bytes) = self.saved_files.get(NAMES[which]) {
                        replace(&path(NAMES[which]), bytes);
                    }
                }
            }
            Files::Cut(last) => rewrite(".changes", &|bytes| bytes.truncate(from(bytes, last))),
            Files::Zeroed(last) => {
                rewrite(".changes", &|bytes| {
                    let at = from(bytes, last);
                    bytes[at..].fill(0);
                });
            }
            Files::Damaged(which, at) => {
                rewrite(NAMES[which], &|bytes| {
                    let at = at % bytes.len().max(1);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 0x10;
                    }
                });
            }
        }
    }

    fn holds(&self) {
        for key in &self.known {
            let held =
                self.memory.look(&of(*key), Instant::now()).map(|held| held.observation.answer);
            if let Some(Answer::Found(known)) = held {
                assert_eq!(known.state(), State::Revoked, "key {key} is known to be revoked");
            }
        }
    }
}

fn replace(path: &PathBuf, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn fresh() -> (Memory, Arc<Coverage>) {
    let coverage = Arc::new(Coverage::new(HOUR));
    let suspicion = Arc::new(Suspicion::new(SuspectConfig::default()));
    let memory =
        Memory::new(CacheConfig::default(), Arc::clone(&coverage), suspicion, Clock::System);
    (memory, coverage)
}

fn ops() -> impl Strategy<Value = Op> {
    let key = || 0..KEYS;
    let files = prop_oneof![
        4 => Just(Files::Untouched),
        3 => (0..NAMES.len(), 0..NAMES.len()).prop_map(|(one, other)| Files::Older(one, other)),
        1 => (1..200_usize).prop_map(Files::Cut),
        1 => (1..200_usize).prop_map(Files::Zeroed),
        1 => (0..NAMES.len(), 0..2000_usize).prop_map(|(which, at)| Files::Damaged(which, at)),
    ];
    prop_oneof![
        3 => key().prop_map(Op::Create),
        1 => key().prop_map(Op::Update),
        1 => key().prop_map(Op::Disable),
        1 => key().prop_map(Op::Enable),
        3 => key().prop_map(Op::Revoke),
        1 => key().prop_map(Op::Delete),
        1 => Just(Op::Dump),
        1 => Just(Op::Load),
        5 => Just(Op::Feed),
        5 => key().prop_map(Op::Look),
        2 => key().prop_map(Op::Ask),
        2 => Just(Op::Answered),
        2 => Just(Op::Snapshot),
        1 => Just(Op::SaveFiles),
        2 => files.prop_map(Op::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn key_known_to_be_revoked_is_never_served_again(
        ops in prop::collection::vec(ops(), 1..60),
    ) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
            world.holds();
        }
    }
}
