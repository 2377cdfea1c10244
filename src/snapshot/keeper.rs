//! Owner of the snapshot files: restores them at startup and keeps them consistent.

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

/// Tolerated clock skew of a snapshot from the future: a typical backward correction of a
/// machine's clock.
const CLOCK_SET_BACK: Duration = Duration::from_mins(1);

/// The files and their state. Every method does I/O and blocks.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    store: StoreIdentity,
    seals: Seals,
    /// `None` until the files are locked.
    files: Option<Files>,
    /// `None` if this process neither wrote nor restored the files on disk, or they are
    /// invalid.
    journal: Option<Journal>,
    /// Serial of the last snapshot restored or begun.
    serial: u64,
    /// Number of times that changes were lost.
    losses: u64,
}

/// A snapshot being written.
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

    /// Restores the files of an earlier process into `memory`; `None` if there is no snapshot.
    ///
    /// Skips entries that are `max_age` old or older, have expired, or changed after the
    /// snapshot, unless they are revoked; skips all entries if the clock went back. Tombstones
    /// have no age and are restored even if the journal is refused, as they only ever deny
    /// keys. After an error, `memory` may contain some entries.
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
            // A revoked key never becomes valid again.
            let current = known.state() == State::Revoked || !outdated.contains(&digest);
            if !expired && !too_old && current {
                memory.restore(digest, known, validated_at, now.wall);
            }
        };
        sealed.read(|profile| memory.shared(profile), restore)?;
        // After every reader has finished.
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

    /// Journals changes. On failure, removes the snapshot.
    pub(super) fn note(&mut self, changes: &[Change]) -> io::Result<()> {
        let appended = self.append(changes);
        if appended.is_err() {
            self.invalidate();
        }
        appended
    }

    fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        if self.files.is_none() {
            // Another instance holds the files.
            return Ok(());
        }
        let journal = self.journal()?;
        if !journal.has_room_for(changes.len()) {
            return Err(io::Error::other("too many changes since the last snapshot"));
        }
        journal.append(changes)
    }

    /// Removes the files after a lost change: they may say that a revoked key is valid, so the
    /// next process must not find them.
    pub(super) fn invalidate(&mut self) {
        self.losses += 1;
        self.journal = None;
        let Some(files) = &self.files else { return };
        let removed =
            [&files.snapshot, &files.changes, &files.end].map(|target| files.remove(target));
        // Removing one is enough, as none is used without the others.
        if let [Err(error), Err(_), Err(_)] = removed {
            let path = self.path.display();
            tracing::error!(%path, %error, "cannot remove a snapshot that lacks changes; remove it by hand");
        }
    }

    /// Begins a snapshot as of `now`.
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

    /// Renames a complete draft into place and shortens the journal. Fails if a change was lost
    /// in the meantime.
    pub(super) fn finish(&mut self, draft: &Draft) -> io::Result<()> {
        let (Some(files), Some(journal)) = (&self.files, &mut self.journal) else {
            return Err(io::Error::other("a change was lost while the snapshot was written"));
        };
        if draft.losses != self.losses {
            return Err(io::Error::other("a change was lost while the snapshot was written"));
        }
        journal.announce(draft.header.serial)?;
        files.replace(&files.snapshot)?;
        match journal.shorten(files, &self.seals, &draft.header) {
            Ok(()) => Ok(()),
            Err(ShortenError::Untouched(error)) => Err(error),
            Err(ShortenError::Unknown(error)) => {
                self.invalidate();
                Err(error)
            }
        }
    }

    /// Removes an unfinished draft.
    pub(super) fn discard(&self) {
        Files::discard_draft(&self.path);
    }

    fn claim(&mut self) -> io::Result<&Files> {
        match &mut self.files {
            Some(files) => Ok(files),
            none => Ok(none.insert(Files::claim(&self.path)?)),
        }
    }

    /// Returns the journal. Creates one with a new lineage if there is none, which invalidates
    /// an existing snapshot.
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
    /// Writes and flushes the snapshot; returns its number of entries.
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

/// Age of a snapshot; `None` if the clock went back, so that it is unknown.
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
