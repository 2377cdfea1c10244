//! A copy of the whole store in one file, made while others read and write.

use std::{fs, io, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use super::SqliteStore;
use crate::store::StoreError;

/// How long a copy may take. A million keys take seconds.
const BACKUP_TIMEOUT: Duration = Duration::from_hours(1);

/// There is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be made or written.
    #[error("cannot write the file: {0}")]
    File(#[from] io::Error),
    /// The store cannot be read, or its copy not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SqliteStore {
    /// Writes a copy, as of one moment, to a new file with mode 0600. It needs no file beside
    /// it. A copy that fails half-way is removed.
    ///
    /// Fails when there is a file already. Holds up no one who reads or writes.
    pub async fn back_up(&self, to: &Path) -> Result<(), BackupError> {
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        let copied = self.copy_into(to).await.and_then(|()| Ok(file.sync_all()?));
        if copied.is_err() {
            // What failed first is told; nobody takes an empty file for a backup.
            let _ = fs::remove_file(to);
        }
        copied
    }

    /// Into an empty file, which SQLite takes for a new database.
    async fn copy_into(&self, to: &Path) -> Result<(), BackupError> {
        let to = std::path::absolute(to)?;
        let name = to.to_str().map(str::to_owned);
        let name = name.ok_or_else(|| io::Error::other("its name must be UTF-8"))?;
        let copied = self
            .writer
            .run(BACKUP_TIMEOUT, move |db| db.execute("VACUUM INTO ?1", [name]).map(|_| ()));
        Ok(copied.await?)
    }
}
