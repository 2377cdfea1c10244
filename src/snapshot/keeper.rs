//! Who has the files: what is read from them at the start, and how they are
//! kept true to each other.

use std::{
    collections::HashSet,
    fs::File,
    io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Refusal, Restored,
    files::{Files, open_private},
    format::{self, Entry, Header, Record, Sealed},
    journal::{Journal, ShortenError},
    seal::Seals,
};
use crate::{
    cache::{Exported, Memory},
    key::{Digest, State},
    store::{Change, Position, StoreIdentity},
    time::Moment,
};

/// How far in the future a snapshot may have been written: as far as the clock
/// of a machine is set back when it is put right.
const CLOCK_SET_BACK: Duration = Duration::from_mins(1);

/// The files, and what is known of them. Every call does I/O, and blocks.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    store: StoreIdentity,
    seals: Seals,
    /// `None` when they could not be taken yet.
    files: Option<Files>,
    /// `None` when what is on disk was not written or taken in by this process,
    /// or is not to be trusted.
    journal: Option<Journal>,
    /// That of the last snapshot that was read or begun.
    serial: u64,
    /// How often a change could not be kept.
    losses: u64,
}

/// A snapshot that is being written.
#[derive(Debug)]
pub(super) struct Draft {
    file: File,
    header: Header,
    now: Moment,
    seals: Seals,
    losses: u64,
}

impl Keeper {
    pub(super) fn new(path: PathBuf, store: StoreIdentity, seals: Seals) -> Self {
        Self { path, store, seals, files: None, journal: None, serial: 0, losses: 0 }
    }

    /// Reads what an earlier process left into `memory`. `None` when it left
    /// nothing.
    ///
    /// Entries are left out that are as old as `max_age` or older, whose keys
    /// have expired, or whose keys have changed since the snapshot was written, unless
    /// they are revoked; and all, where the clock went back. What is known of keys that
    /// have ended has no age, and is taken over where the changes are refused: it only
    /// ever refuses keys. When it is refused itself, some entries may be in `memory`.
    pub(super) fn restore(
        &mut self,
        memory: &Memory,
        max_age: Duration,
        now: Moment,
    ) -> Result<Option<Restored>, Refusal> {
        self.claim()?;
        let Some(file) = open_private(&self.path, false)? else {
            return Ok(None);
        };
        let sealed = Sealed::open(file, &self.seals)?;
        let header = *sealed.header();
        if header.store != self.store {
            return Err(Refusal::OtherStore);
        }
        let since_written = age(&header, now.wall);
        let seals = self.seals.clone();
        let opened = Journal::open(self.claim()?, &seals, &header);
        let serves = opened.is_ok() && since_written.is_some();
        let (journal, mut changes) = opened
            .map_or_else(|why| (Err(why), Vec::new()), |(journal, changes)| (Ok(journal), changes));
        changes.retain(|noted| noted.is_after(&header));
        let outdated: HashSet<Digest> = changes.iter().map(|noted| noted.change.digest).collect();

        let at = |then: Timestamp| {
            let before = Duration::try_from(header.created_at.duration_since(then));
            let since_written = since_written.unwrap_or_default();
            now.monotonic.checked_sub(since_written + before.unwrap_or_default())
        };
        let tombstones = Mutex::new(Vec::new());
        let restore = |record| {
            let Entry { digest, validated_at, known } = match record {
                Record::Entry(_) if !serves => return,
                Record::Entry(entry) => entry,
                Record::Tombstone(digest, tombstone) => {
                    let mut all = tombstones.lock().unwrap_or_else(PoisonError::into_inner);
                    return all.push((digest, tombstone));
                }
            };
            let expired = known.expires_at().is_some_and(|end| end <= now.wall);
            let Some(validated_at) = at(validated_at) else { return };
            let too_old = now.monotonic - validated_at >= max_age;
            // No change makes a revoked key good again.
            let current = known.state() == State::Revoked || !outdated.contains(&digest);
            if !expired && !too_old && current {
                memory.restore(digest, known, validated_at, now.wall);
            }
        };
        sealed.read(|profile| memory.shared(profile), restore)?;
        // When no thread puts in records any more.
        for (digest, tombstone) in tombstones.into_inner().unwrap_or_else(PoisonError::into_inner) {
            memory.restore_tombstone(digest, tombstone);
        }
        for noted in &changes {
            memory.restore_change(&noted.change);
        }
        (self.journal, self.serial) = (Some(journal?), header.serial);
        let covered_since = header.covered_since.and_then(at).unwrap_or(now.monotonic);
        Ok(Some(Restored {
            position: header.position,
            covered_since,
            entries: memory.len(),
            since_written: since_written.unwrap_or_default(),
        }))
    }

    /// Keeps changes. When that fails, the snapshot is removed.
    pub(super) fn note(&mut self, changes: &[Change]) -> io::Result<()> {
        let kept = self.append(changes);
        if kept.is_err() {
            self.distrust();
        }
        kept
    }

    fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        if self.files.is_none() {
            // Nothing on disk is ours.
            return Ok(());
        }
        let journal = self.journal()?;
        if !journal.has_room_for(changes.len()) {
            return Err(io::Error::other("there are too many changes since the last snapshot"));
        }
        journal.append(changes)
    }

    /// A change is lost: what is on disk may say that a key is good that was
    /// revoked, so that it must not be found by the next process.
    pub(super) fn distrust(&mut self) {
        self.losses += 1;
        self.journal = None;
        let Some(files) = &self.files else { return };
        let removed =
            [&files.snapshot, &files.changes, &files.end].map(|target| files.remove(target));
        // Any one will do: none of them is used without the others.
        if let [Err(error), Err(_), Err(_)] = removed {
            let path = self.path.display();
            tracing::error!(%path, %error, "a snapshot that lacks changes cannot be removed; remove it by hand");
        }
    }

    /// Begins a new snapshot of what is known at `now`.
    pub(super) fn begin(
        &mut self,
        position: Position,
        covered_since: Option<Timestamp>,
        now: Moment,
    ) -> io::Result<Draft> {
        self.claim()?;
        let journal = self.journal()?;
        let (lineage, noted) = (journal.lineage(), journal.next());
        let file = Files::draft(&self.path)?;
        self.serial += 1;
        let header = Header {
            store: self.store,
            lineage,
            serial: self.serial,
            created_at: now.wall,
            position,
            covered_since,
            noted,
        };
        Ok(Draft { file, header, now, seals: self.seals.clone(), losses: self.losses })
    }

    /// Puts a snapshot that was written in the place of the last one, and forgets
    /// the changes that it has taken in. Refused when a change was lost meanwhile.
    pub(super) fn finish(&mut self, draft: &Draft) -> io::Result<()> {
        let (Some(files), Some(journal)) = (&self.files, &mut self.journal) else {
            return Err(io::Error::other("a change was lost while it was written"));
        };
        if draft.losses != self.losses {
            return Err(io::Error::other("a change was lost while it was written"));
        }
        journal.announce(draft.header.serial)?;
        files.replace(&files.snapshot)?;
        match journal.shorten(files, &self.seals, &draft.header) {
            Ok(()) => Ok(()),
            Err(ShortenError::Untouched(error)) => Err(error),
            Err(ShortenError::Unknown(error)) => {
                self.distrust();
                Err(error)
            }
        }
    }

    /// Throws away what was written of a snapshot.
    pub(super) fn discard(&self) {
        Files::discard_draft(&self.path);
    }

    fn claim(&mut self) -> io::Result<&Files> {
        match &mut self.files {
            Some(files) => Ok(files),
            none => Ok(none.insert(Files::claim(&self.path)?)),
        }
    }

    /// The changes, begun under a new lineage if they are not ours yet: from then
    /// on a snapshot that is there is not used any more.
    fn journal(&mut self) -> io::Result<&mut Journal> {
        let journal = if let Some(journal) = self.journal.take() {
            journal
        } else {
            let mut lineage = [0; 16];
            getrandom::fill(&mut lineage)?;
            let seals = self.seals.clone();
            Journal::begin(self.claim()?, &seals, lineage)?
        };
        Ok(self.journal.insert(journal))
    }
}

impl Draft {
    /// Writes all of it and forces it to disk; returns how many entries it has.
    pub(super) fn write(
        &self,
        exported: impl Iterator<Item = Exported>,
        go_on: impl Fn() -> bool,
    ) -> io::Result<u64> {
        let count =
            format::write(&self.file, &self.seals, &self.header, self.now, exported, go_on)?;
        self.file.sync_all()?;
        Ok(count)
    }
}

/// How long ago a snapshot was written. `None` where the clock of this machine went back,
/// so that nobody knows.
fn age(header: &Header, now: Timestamp) -> Option<Duration> {
    let ahead = header.created_at.duration_since(now);
    if ahead <= CLOCK_SET_BACK.try_into().unwrap_or_default() {
        return Some(Duration::try_from(-ahead).unwrap_or_default());
    }
    tracing::warn!(
        ahead = %humantime::format_duration(Duration::from_secs(ahead.unsigned_abs().as_secs())),
        "the snapshot was written later than now: the clock of this machine went back; its \
         entries are left out"
    );
    None
}

#[cfg(test)]
mod tests;
