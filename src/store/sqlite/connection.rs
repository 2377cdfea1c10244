//! Opens the file and detects when it is replaced.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::OpenFlags;
use tokio::time::Instant;

use super::{error, lane::Term, schema};
use crate::{
    access::{Group, private},
    store::{StoreError, StoreErrorKind},
};

/// Time that opening the store waits for other writers of the file, including a migration.
/// SQLite's own default.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of virtual machine steps between two checks of the deadline: about ten microseconds,
/// so a call ends in time, and too rare to be measurable.
const STEPS_BETWEEN_CHECKS: i32 = 1000;

/// Purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Reader,
    Writer,
}

/// A connection to the file.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) db: rusqlite::Connection,
}

impl Connection {
    /// Binds later calls to a deadline.
    pub(super) fn set_deadline(&mut self, term: &Arc<Term>) -> rusqlite::Result<()> {
        let running = Arc::clone(term);
        self.db.progress_handler(STEPS_BETWEEN_CHECKS, Some(move || running.is_over()))?;
        let waiting = Arc::clone(term);
        self.db.busy_handler(Some(move |tries| waiting.pause(tries)))
    }
}

/// Path of the file, and its identity when it was opened.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    file: FileId,
}

/// Identifies a file independently of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|file| Self { device: file.dev(), inode: file.ino() })
    }
}

impl Source {
    /// Creates the file if missing, brings its schema up to date and returns the writing
    /// connection.
    pub(super) fn prepare(path: &Path) -> Result<(Self, Connection), StoreError> {
        // SQLite interprets some relative names, such as `:memory:` or `file:…`, but no
        // absolute path.
        let path = std::path::absolute(path).map_err(|e| error::of_file(path, &e))?;
        create(&path)?;
        let file = FileId::of(&path).map_err(|e| error::of_file(&path, &e))?;
        let source = Self { path, file };

        let term = Term::starting(Instant::now(), OPEN_TIMEOUT);
        let mut connection = source.connect(Role::Writer, &term)?;
        schema::bring_up_to_date(&mut connection.db, &source.path, &term)?;
        is_private(&source.path)?;
        Ok((source, connection))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Fails if the file is missing or replaced.
    ///
    /// A different file is never adopted, even a valid one: an empty file, created by mistake,
    /// would deny every key.
    pub(super) fn unchanged(&self) -> Result<(), StoreError> {
        let file = FileId::of(&self.path).map_err(|e| error::of_file(&self.path, &e))?;
        if file == self.file {
            return Ok(());
        }
        let path = self.path.display();
        let detail = format!(
            "another file has taken the place of {path} while it was in use; put the old one back, \
             or stop every keystead, remove {path}-wal if it is the old one's, and start again"
        );
        Err(StoreError::new(StoreErrorKind::Unreachable, detail))
    }

    /// Opens a connection to the existing file.
    pub(super) fn connect(&self, role: Role, term: &Arc<Term>) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = rusqlite::Connection::open_with_flags(&self.path, flags)
            .map(|db| Connection { db })
            .and_then(|mut connection| {
                connection.set_deadline(term)?;
                connection.db.execute_batch(role.pragmas())?;
                schema::read(&connection.db)?;
                Ok(connection)
            })
            .map_err(|e| error::of_opening(&self.path, &e))?;
        // SQLite falls back to read-only if it may not write.
        if connection.db.is_readonly(rusqlite::MAIN_DB).unwrap_or(true) {
            return Err(error::forbidden(&self.path));
        }

        Ok(connection)
    }
}

impl Role {
    const fn pragmas(self) -> &'static str {
        match self {
            Self::Reader => "PRAGMA query_only = ON;",
            // The cache, in KiB, keeps a large import from rewriting its indexes repeatedly;
            // the log, in bytes, is truncated after one.
            Self::Writer => {
                "PRAGMA synchronous = FULL;
                 PRAGMA cache_size = -65536;
                 PRAGMA journal_size_limit = 67108864;"
            }
        }
    }
}

/// An empty file is an empty database. SQLite gives its other files the same mode.
fn create(path: &Path) -> Result<(), StoreError> {
    // Does not open an existing file: closing it would release the locks that SQLite holds on
    // it elsewhere in this process.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(error::of_file(path, &e)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Fails if others may read the file or those that SQLite keeps beside it, as they contain
/// permissions and recent changes.
fn is_private(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm"] {
        let path = with_suffix(path, suffix);
        let file = match fs::metadata(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error::of_file(&path, &error)),
        };
        private(&path, &file, Group::Writes).map_err(|error| {
            let detail = format!("{}: {error}", path.display());
            StoreError::new(StoreErrorKind::Forbidden, detail)
        })?;
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use rusqlite::types::Value;

    use super::*;

    #[test]
    fn commits_are_flushed_to_disk_and_readers_cannot_write() {
        let directory = tempfile::tempdir().unwrap();
        let (source, writer) = Source::prepare(&directory.path().join("keystead.db")).unwrap();
        let term = Term::starting(Instant::now(), OPEN_TIMEOUT);
        let reader = source.connect(Role::Reader, &term).unwrap();
        let pragma = |connection: &Connection, name: &str| -> Value {
            connection.db.pragma_query_value(None, name, |row| row.get(0)).unwrap()
        };
        assert_eq!(pragma(&writer, "journal_mode"), Value::Text("wal".to_owned()));
        // 2 is FULL.
        assert_eq!(pragma(&writer, "synchronous"), Value::Integer(2));
        assert_eq!(pragma(&reader, "query_only"), Value::Integer(1));
        reader.db.execute_batch("DELETE FROM api_keys").unwrap_err();
    }
}
