//! Translates SQLite errors into the neutral [`StoreError`].

use std::{fs, io, path::Path};

use rusqlite::{Error, ErrorCode};

use crate::store::{StoreError, StoreErrorKind};

/// Translates an error of the engine. The detail names the file and the remedy.
pub(super) fn translate(path: &Path, error: &Error) -> StoreError {
    let kind = kind(error);
    let remedy = match kind {
        StoreErrorKind::Unreachable => {
            "check that the disk is healthy and not full, and that nothing has moved the file"
        }
        StoreErrorKind::Timeout => "if this goes on, the disk is too slow or overloaded",
        StoreErrorKind::Saturated | StoreErrorKind::Lagging | StoreErrorKind::Blocked => {
            "another process is writing to it; try again"
        }
        StoreErrorKind::Forbidden => RIGHTS,
        StoreErrorKind::Schema => "restart keystead, which brings the schema up to date",
        StoreErrorKind::Unreadable if is_corrupt(error) => {
            "it is not a whole SQLite database; restore it from a backup"
        }
        StoreErrorKind::Unreadable => "correct the row with the `sqlite3` shell",
    };
    StoreError::new(kind, format!("{}: {error}; {remedy}", path.display()))
}

/// Translates an error of the file system.
pub(super) fn of_file(path: &Path, error: &io::Error) -> StoreError {
    let (kind, remedy) = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (StoreErrorKind::Forbidden, RIGHTS)
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => (
            StoreErrorKind::Unreachable,
            "put the file back if it was moved; if it never was there, make its directory and \
             start keystead again",
        ),
        _ => (StoreErrorKind::Unreachable, "check the disk and the path in `store.url`"),
    };
    StoreError::new(kind, format!("{}: {error}; {remedy}", path.display()))
}

/// Explains why SQLite could not open the file, as it hides the error of the operating system.
///
/// Does not open the file itself: closing it would release the locks that SQLite holds on it
/// elsewhere in this process.
pub(super) fn of_opening(path: &Path, error: &Error) -> StoreError {
    if error.sqlite_error_code() != Some(ErrorCode::CannotOpen) {
        return translate(path, error);
    }
    // The directory can be opened unless too many files are open or it is inaccessible.
    let directory = path.parent().unwrap_or(path);
    match fs::metadata(path).and_then(|file| fs::read_dir(directory).map(|_| file)) {
        Err(error) => of_file(path, &error),
        Ok(file) if file.is_file() => forbidden(path),
        Ok(_) => of_file(path, &io::Error::other("this is not a file")),
    }
}

/// Error for a file or directory that is read-only.
pub(super) fn forbidden(path: &Path) -> StoreError {
    StoreError::new(StoreErrorKind::Forbidden, format!("{}: {RIGHTS}", path.display()))
}

const RIGHTS: &str =
    "the user that runs keystead must be allowed to write this file and its directory";

/// Whether the connection is unusable, because it cannot reach the file or has found it
/// corrupt. A new one may find it repaired.
pub(super) fn ends_connection(error: &Error) -> bool {
    match kind(error) {
        StoreErrorKind::Unreachable | StoreErrorKind::Forbidden => true,
        StoreErrorKind::Unreadable => is_corrupt(error),
        StoreErrorKind::Timeout
        | StoreErrorKind::Saturated
        | StoreErrorKind::Schema
        | StoreErrorKind::Lagging
        | StoreErrorKind::Blocked => false,
    }
}

/// Whether another connection holds a required lock.
pub(super) fn is_busy(error: &Error) -> bool {
    kind(error) == StoreErrorKind::Saturated
}

fn is_corrupt(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn kind(error: &Error) -> StoreErrorKind {
    use StoreErrorKind::{Forbidden, Saturated, Schema, Timeout, Unreachable, Unreadable};

    match error {
        Error::SqliteFailure(failure, _) | Error::SqlInputError { error: failure, .. } => {
            match failure.code {
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed => Saturated,
                ErrorCode::OperationInterrupted => Timeout,
                ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::AuthorizationForStatementDenied => Forbidden,
                // The general error: no such table, no such column.
                ErrorCode::Unknown | ErrorCode::SchemaChanged => Schema,
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig => Unreadable,
                // Cannot open, input and output, full, out of memory, and what can only be a
                // bug of SQLite or ours. The enum is non-exhaustive.
                _ => Unreachable,
            }
        }
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::Utf8Error(..)
        | Error::InvalidColumnType(..) => Unreadable,
        Error::InvalidColumnIndex(_) | Error::InvalidColumnName(_) => Schema,
        // Misuse of the library, a bug. The enum is non-exhaustive.
        _ => Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn translated(result_code: i32) -> StoreErrorKind {
        let error = Error::SqliteFailure(ffi::Error::new(result_code), None);
        translate(Path::new("/x/keystead.db"), &error).kind()
    }

    #[test]
    fn each_failure_has_its_kind() {
        use StoreErrorKind::{Forbidden, Saturated, Schema, Timeout, Unreachable, Unreadable};

        for (code, kind) in [
            (ffi::SQLITE_BUSY, Saturated),
            (ffi::SQLITE_BUSY_SNAPSHOT, Saturated),
            (ffi::SQLITE_LOCKED, Saturated),
            (ffi::SQLITE_PROTOCOL, Saturated),
            (ffi::SQLITE_INTERRUPT, Timeout),
            (ffi::SQLITE_CANTOPEN, Unreachable),
            (ffi::SQLITE_IOERR_READ, Unreachable),
            (ffi::SQLITE_FULL, Unreachable),
            (ffi::SQLITE_NOMEM, Unreachable),
            (ffi::SQLITE_PERM, Forbidden),
            (ffi::SQLITE_READONLY, Forbidden),
            (ffi::SQLITE_AUTH, Forbidden),
            (ffi::SQLITE_ERROR, Schema),
            (ffi::SQLITE_SCHEMA, Schema),
            (ffi::SQLITE_CORRUPT, Unreadable),
            (ffi::SQLITE_NOTADB, Unreadable),
        ] {
            assert_eq!(translated(code), kind, "{}", ffi::code_to_str(code));
        }
    }

    #[test]
    fn detail_names_the_file_and_the_remedy() {
        let error = Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_NOTADB), None);
        let detail = translate(Path::new("/x/keystead.db"), &error).detail().to_owned();
        assert!(detail.starts_with("/x/keystead.db: "), "{detail}");
        assert!(detail.ends_with("restore it from a backup"), "{detail}");
    }
}
