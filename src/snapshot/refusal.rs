//! Why a snapshot is not used.

use std::io;

use super::format::VERSION;
use crate::access::NotPrivate;

/// Why a snapshot is not used: the middle of a sentence, with the remedy where
/// there is one.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is a folder, a device or a pipe.
    #[error("it is not a regular file; set `snapshot.path` to another name")]
    NotAFile,
    /// Others may read or write it.
    #[error(transparent)]
    NotPrivate(#[from] NotPrivate),
    /// It does not begin as one does.
    #[error("it is no snapshot")]
    NotASnapshot,
    /// It was written by another version of Keystead.
    #[error("it has version {0} of the format, and this is version {VERSION}")]
    Version(u32),
    /// Its end is missing.
    #[error("it is cut off")]
    CutOff,
    /// The secret that it was sealed with is not in the secret file.
    #[error("it was written with another secret than those in `keys.secret_file`")]
    OtherSecret,
    /// The seal does not belong to it.
    #[error("it was changed, or written with another secret")]
    Changed,
    /// The seal is right, but what is in it cannot be read.
    #[error("{0}")]
    Unreadable(&'static str),
    /// It was written for another store.
    #[error("it belongs to another store than `store.url` and `store.relation` name")]
    OtherStore,
    /// The changes since it was written are gone.
    #[error(
        "the changes since it was written are not beside it, so that a key that was revoked since then could be in it"
    )]
    NoChanges,
    /// The changes since it was written belong to another snapshot.
    #[error(
        "the changes beside it belong to another snapshot, so that a key that was revoked since then could be in it"
    )]
    OtherChanges,
    /// What says how far the changes since it was written go is gone.
    #[error(
        "what says how far the changes since it was written go is not beside it, so that a key that was revoked since then could be in it"
    )]
    NoEnd,
    /// The changes since it was written cannot be trusted.
    #[error("of the changes since it was written, some were changed, moved or removed")]
    ChangesDamaged,
    /// It cannot be read, or what follows cannot be written beside it.
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
