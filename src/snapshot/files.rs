//! Snapshot files: private, replaced as a whole, and locked by one instance.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::Refusal;
use crate::access::{Group, private};

/// Paths of the files, locked against other processes.
#[derive(Debug)]
pub(super) struct Files {
    /// The snapshot.
    pub(super) snapshot: PathBuf,
    /// The journal.
    pub(super) changes: PathBuf,
    /// The end file.
    pub(super) end: PathBuf,
    folder: PathBuf,
    /// Holds the lock until it is dropped.
    _lock: File,
}

impl Files {
    /// Locks the files for this process and removes incomplete drafts of an earlier one.
    pub(super) fn claim(path: &Path) -> io::Result<Self> {
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(with(path, ".lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other(
                "another instance uses it; give each instance a `snapshot.path` of its own",
            ),
            TryLockError::Error(error) => error,
        })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let files = Self {
            snapshot: path.to_owned(),
            changes: with(path, ".changes"),
            end: with(path, ".end"),
            folder: folder.unwrap_or(Path::new(".")).to_owned(),
            _lock: lock,
        };
        remove(&draft_of(&files.snapshot))?;
        remove(&draft_of(&files.changes))?;
        remove(&draft_of(&files.end))?;
        Ok(files)
    }

    /// Creates an empty draft to replace `target`, mode 0600.
    pub(super) fn draft(target: &Path) -> io::Result<File> {
        let draft = draft_of(target);
        remove(&draft)?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)
    }

    /// Renames the draft, already flushed, over `target`.
    pub(super) fn replace(&self, target: &Path) -> io::Result<()> {
        fs::rename(draft_of(target), target)?;
        self.sync()
    }

    /// Removes a draft.
    pub(super) fn discard_draft(target: &Path) {
        // The next draft removes any leftover.
        let _ = remove(&draft_of(target));
    }

    /// Removes `target` and flushes the folder.
    pub(super) fn remove(&self, target: &Path) -> io::Result<()> {
        remove(target)?;
        self.sync()
    }

    /// Flushes the folder entries to disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

/// Opens a file that only this user may read or write; `None` if it does not exist.
pub(super) fn open_private(path: &Path, write: bool) -> Result<Option<File>, Refusal> {
    // Checked before opening, as opening a pipe waits for its other end.
    match fs::metadata(path) {
        Ok(found) => is_private(path, &found)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let file = OpenOptions::new().read(true).write(write).open(path)?;
    is_private(path, &file.metadata()?)?;
    Ok(Some(file))
}

fn is_private(path: &Path, found: &fs::Metadata) -> Result<(), Refusal> {
    if !found.is_file() {
        return Err(Refusal::NotAFile);
    }
    Ok(private(path, found, Group::Writes)?)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn draft_of(target: &Path) -> PathBuf {
    with(target, ".new")
}

/// Appends `more` to a file name that need not be UTF-8.
fn with(path: &Path, more: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(more);
    name.into()
}
