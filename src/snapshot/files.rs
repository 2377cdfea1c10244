//! The files of a snapshot: private, replaced as a whole, and those of one
//! instance.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::Refusal;
use crate::access::{Group, private};

/// The files, for as long as no other process has them.
#[derive(Debug)]
pub(super) struct Files {
    /// The snapshot.
    pub(super) snapshot: PathBuf,
    /// The changes since.
    pub(super) changes: PathBuf,
    /// How far they go.
    pub(super) end: PathBuf,
    folder: PathBuf,
    /// Locked until it is closed.
    _lock: File,
}

impl Files {
    /// Takes the files for this process, and removes what an earlier one left
    /// half-written.
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

    /// A new empty file that is to replace `target`, mode 0600.
    pub(super) fn draft(target: &Path) -> io::Result<File> {
        let draft = draft_of(target);
        remove(&draft)?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)
    }

    /// Puts the draft, which has been forced to disk, in the place of `target`.
    pub(super) fn replace(&self, target: &Path) -> io::Result<()> {
        fs::rename(draft_of(target), target)?;
        self.sync()
    }

    /// Throws a draft away.
    pub(super) fn discard_draft(target: &Path) {
        // Whatever is left is removed before the next one.
        let _ = remove(&draft_of(target));
    }

    /// Removes one of the files for good.
    pub(super) fn remove(&self, target: &Path) -> io::Result<()> {
        remove(target)?;
        self.sync()
    }

    /// Forces the names of the files to disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

/// Opens a file that nobody else may read or write. `None` when there is none.
pub(super) fn open_private(path: &Path, write: bool) -> Result<Option<File>, Refusal> {
    // Looked at before it is opened: opening a pipe would wait for its other end.
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

/// A name with something added behind it, whatever it is.
fn with(path: &Path, more: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(more);
    name.into()
}
