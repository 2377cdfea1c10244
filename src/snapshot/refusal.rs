//! Reasons why a snapshot is refused.

use std::io;

use super::format::VERSION;
use crate::access::NotPrivate;

/// Why a snapshot is refused. Displays as a clause, with the remedy if there is one.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is a folder, a device or a pipe.
    #[error("it is not a regular file; set `snapshot.path` to another name")]
    NotAFile,
    /// Others may read or write it.
    #[error(transparent)]
    NotPrivate(#[from] NotPrivate),
    /// It lacks the magic number.
    #[error("it is no snapshot")]
    NotASnapshot,
    /// It was written by another version of Keystead.
    #[error("it has version {0} of the format, and this is version {VERSION}")]
    Version(u32),
    /// It is truncated.
    #[error("it is cut off")]
    CutOff,
    /// The secret that sealed it is not in the secret file.
    #[error("it was written with another secret than those in `keys.secret_file`")]
    OtherSecret,
    /// Its seal is invalid.
    #[error("it was changed, or written with another secret")]
    Changed,
    /// Its seal is valid, but its contents are malformed.
    #[error("{0}")]
    Unreadable(&'static str),
    /// It was written for another store.
    #[error("it belongs to another store than `store.url` and `store.relation` name")]
    OtherStore,
    /// The journal is missing.
    #[error(
        "the changes since it was written are not beside it, so that a key that was revoked since then could be in it"
    )]
    NoChanges,
    /// The journal belongs to another snapshot.
    #[error(
        "the changes beside it belong to another snapshot, so that a key that was revoked since then could be in it"
    )]
    OtherChanges,
    /// The end file is missing.
    #[error(
        "what says how far the changes since it was written go is not beside it, so that a key that was revoked since then could be in it"
    )]
    NoEnd,
    /// The journal was altered, reordered or truncated.
    #[error("of the changes since it was written, some were changed, moved or removed")]
    ChangesDamaged,
    /// Reading it, or writing the files beside it, failed.
    #[error("{0}; check the disk, and the rights of the file and its folder")]
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::CutOff,
            _ => Self::Io(error),
        }
    }
}
