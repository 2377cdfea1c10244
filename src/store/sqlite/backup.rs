//! Backup of the whole store into one file, while others read and write.

use std::{fs, io, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use super::SqliteStore;
use crate::store::StoreError;

/// Time-out of a backup. A million keys take seconds.
const BACKUP_TIMEOUT: Duration = Duration::from_hours(1);

/// Why a backup failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be created or written.
    #[error("cannot write the file: {0}")]
    File(#[from] io::Error),
    /// The store cannot be read, or the copy cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SqliteStore {
    /// Writes a consistent snapshot to a new file with mode 0600, which needs no other file.
    /// Removes an incomplete copy.
    ///
    /// Fails if the file exists. Does not block readers or writers.
    pub async fn back_up(&self, to: &Path) -> Result<(), BackupError> {
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        let copied = self.copy_into(to).await.and_then(|()| Ok(file.sync_all()?));
        if copied.is_err() {
            // Keeps the first error; an empty file must not pass for a backup.
            let _ = fs::remove_file(to);
        }
        copied
    }

    /// Copies into an empty file, which SQLite treats as a new database.
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
