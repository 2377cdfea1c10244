//! Translates errors of the driver and the pool into the neutral [`StoreError`].

use std::{error::Error, io};

use deadpool_postgres::{HookError, PoolError, TimeoutType};
use tokio_postgres::{
    Error as PgError,
    error::{DbError, Severity, SqlState},
    types::WrongType,
};

use crate::store::{StoreError, StoreErrorKind};

/// Translates an error of the pool.
pub(super) fn from_pool(error: PoolError, remedy: &str) -> StoreError {
    let (kind, detail) = match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
            return from_connecting(&error, remedy);
        }
        PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
            (StoreErrorKind::Unreachable, "no connection within the time-out")
        }
        PoolError::Timeout(TimeoutType::Wait) => return no_permit(),
        PoolError::PostCreateHook(HookError::Message(why)) => {
            return StoreError::new(StoreErrorKind::Unreachable, why);
        }
        PoolError::Closed | PoolError::NoRuntimeSpecified => {
            (StoreErrorKind::Unreachable, "the connection pool is closed")
        }
    };
    StoreError::new(kind, detail)
}

/// No permit of the pool became free. The guard admits no more callers than there are permits,
/// so they are held by connections in progress, or by abandoned calls that the server has not
/// ended.
pub(super) fn no_permit() -> StoreError {
    StoreError::new(
        StoreErrorKind::Timeout,
        "all connections are being made, in use, or busy with what was given up",
    )
}

/// Translates an error of connecting.
pub(super) fn from_connecting(error: &PgError, remedy: &str) -> StoreError {
    // The driver distinguishes these two only by text. The configuration was checked when the
    // store was built, so the second is a password that the server requires and the URL lacks.
    if matches!(error.to_string().as_str(), "authentication error" | "invalid configuration") {
        return StoreError::new(StoreErrorKind::Forbidden, chain(error));
    }
    translate(error, remedy)
}

/// Translates an error of a statement or connection.
///
/// `remedy` is the advice to the operator if the schema does not match.
pub(super) fn translate(error: &PgError, remedy: &str) -> StoreError {
    if let Some(answer) = error.as_db_error() {
        return from_server(answer, remedy);
    }
    let mut sources = std::iter::successors(error.source(), |&e| e.source());
    let kind = if sources.any(<dyn Error>::is::<WrongType>) {
        StoreErrorKind::Schema
    } else {
        // Closed, reset, refused, not resolved, TLS failed, or not PostgreSQL.
        StoreErrorKind::Unreachable
    };
    StoreError::new(kind, chain(error))
}

fn from_server(answer: &DbError, remedy: &str) -> StoreError {
    let state = answer.code().code();
    let kind = kind_of(state, answer.message());
    // Only the message: the server's DETAIL may quote rows.
    let message = format!("{} (SQLSTATE {state})", answer.message());
    let detail = match state {
        "3D000" => format!("{message}; create the database"),
        "53100" => format!("{message}; make room on the disk of the server"),
        "25006" => format!("{message}; name the primary in `store.url`"),
        _ if is_missing_schema(state) => format!("{message}; {remedy}"),
        // The message is sufficient.
        _ => message,
    };
    StoreError::new(kind, detail)
}

/// Whether a schema, table, column, function or type is missing or has the wrong type.
fn is_missing_schema(state: &str) -> bool {
    const LACKING: [&str; 8] =
        ["3F000", "42P01", "42703", "42704", "42804", "42809", "42846", "42883"];
    LACKING.contains(&state)
}

/// Maps an SQLSTATE to a kind; the classes are those of appendix A of the manual.
fn kind_of(state: &str, message: &str) -> StoreErrorKind {
    match state {
        // statement_timeout or a cancel request; idle in transaction.
        "57014" | "25P03" => StoreErrorKind::Timeout,
        // lock_timeout.
        "55P03" => StoreErrorKind::Blocked,
        "42501" | "25006" => StoreErrorKind::Forbidden,
        // PgBouncer uses 08P01 for everything, so only the text distinguishes.
        "08P01" if message.starts_with("query_wait_timeout") => StoreErrorKind::Timeout,
        "08P01" if message.starts_with("no more connections allowed") => StoreErrorKind::Saturated,
        // A damaged page or index.
        "XX001" | "XX002" => StoreErrorKind::Unreadable,
        _ => match state.get(..2) {
            // Rolled back by the server: a deadlock, or a standby that had to catch up.
            Some("40") => StoreErrorKind::Timeout,
            Some("53") => StoreErrorKind::Saturated,
            // Authentication and roles.
            Some("28" | "0L" | "0P") => StoreErrorKind::Forbidden,
            // The connection, an operator's action, or an internal error of the server.
            Some("08" | "57" | "58" | "F0" | "XX") => StoreErrorKind::Unreachable,
            // A value invalid for its column.
            Some("22") => StoreErrorKind::Unreadable,
            // The server understood and refuses: missing tables, columns, types or functions,
            // constraints and triggers of the user, a publication that forbids deletes.
            _ => StoreErrorKind::Schema,
        },
    }
}

/// Whether the connection is reusable after `error`.
///
/// Only if the server ended the statement in good order. Errors about the session also end the
/// connection: a protocol error (08), a prepared statement that is gone or outdated (0A, 26,
/// 42P05), a transaction in a wrong state or a server that has become read-only (25), so that
/// the next connection may find a better one.
pub(super) fn connection_is_reusable(error: &PgError) -> bool {
    error.as_db_error().is_some_and(|answer| {
        let state = answer.code().code();
        answer.parsed_severity() == Some(Severity::Error)
            && state != "42P05"
            && !matches!(state.get(..2), Some("08" | "0A" | "25" | "26"))
    })
}

/// The error with all its causes. None contains the password.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Whether LISTEN failed because the server is a standby, which announces nothing.
pub(super) fn is_standby(error: &PgError) -> bool {
    error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

/// Error of a call without an answer in time.
pub(super) fn no_answer(limit: std::time::Duration) -> StoreError {
    let detail = format!("no answer within {}", humantime::format_duration(limit));
    StoreError::new(StoreErrorKind::Timeout, detail)
}

/// Describes why a file could not be read.
pub(super) fn io_reason(error: &io::Error) -> String {
    error.kind().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sqlstate_class_has_its_kind() {
        use StoreErrorKind::{
            Blocked, Forbidden, Saturated, Schema, Timeout, Unreachable, Unreadable,
        };
        for (states, kind) in [
            (&["57014", "25P03", "40P01", "40001"][..], Timeout),
            (&["55P03"], Blocked),
            (&["53300", "53100", "53200", "53400"], Saturated),
            (
                &["57P01", "57P02", "57P03", "08000", "08006", "08P01", "58030", "XX000"],
                Unreachable,
            ),
            (&["28000", "28P01", "42501", "25006", "0P000"], Forbidden),
            (&["42P01", "42703", "3D000", "3F000", "42804", "42883", "23514", "P0001"], Schema),
            (&["22P02", "22007", "XX001"], Unreadable),
        ] {
            for state in states {
                assert_eq!(kind_of(state, ""), kind, "{state}");
            }
        }
    }

    #[test]
    fn only_missing_schema_has_migrating_as_its_remedy() {
        for state in ["42P01", "42703", "42883", "3F000"] {
            assert!(is_missing_schema(state), "{state}");
        }
        for state in ["55000", "23505", "23514", "P0001", "42501", "57014", "53100", "0A000"] {
            assert!(!is_missing_schema(state), "{state}");
        }
    }

    #[test]
    fn pgbouncer_errors_with_one_code_are_distinguished_by_text() {
        let kind = |message| kind_of("08P01", message);
        assert_eq!(kind("query_wait_timeout"), StoreErrorKind::Timeout);
        assert_eq!(
            kind("no more connections allowed (max_client_conn)"),
            StoreErrorKind::Saturated
        );
        assert_eq!(kind("server_login_retry"), StoreErrorKind::Unreachable);
    }

    #[test]
    fn pool_wait_is_a_timeout_and_a_failed_connect_is_unreachable() {
        let kind = |timeout| from_pool(PoolError::Timeout(timeout), "").kind();
        assert_eq!(kind(TimeoutType::Wait), StoreErrorKind::Timeout);
        assert_eq!(kind(TimeoutType::Create), StoreErrorKind::Unreachable);
        assert_eq!(from_pool(PoolError::Closed, "").kind(), StoreErrorKind::Unreachable);
    }
}
