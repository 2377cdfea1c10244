//! The one place that turns what the driver and the pool report into the
//! neutral [`StoreError`].

use std::{error::Error, io};

use deadpool_postgres::{HookError, PoolError, TimeoutType};
use tokio_postgres::{
    Error as PgError,
    error::{DbError, Severity, SqlState},
    types::WrongType,
};

use crate::store::{StoreError, StoreErrorKind};

/// Why no connection came out of the pool.
pub(super) fn from_pool(error: PoolError, remedy: &str) -> StoreError {
    let (kind, detail) = match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
            return from_connecting(&error, remedy);
        }
        PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
            (StoreErrorKind::Unreachable, "no connection within the time-out")
        }
        PoolError::Timeout(TimeoutType::Wait) => return no_place(),
        PoolError::PostCreateHook(HookError::Message(why)) => {
            return StoreError::new(StoreErrorKind::Unreachable, why);
        }
        PoolError::Closed | PoolError::NoRuntimeSpecified => {
            (StoreErrorKind::Unreachable, "the connection pool is closed")
        }
    };
    StoreError::new(kind, detail)
}

/// No place in the pool came free. The guard in front lets no more callers come
/// than there are places, so that they are held by connections that are still
/// being made, or by calls that were given up and that the server has not ended.
pub(super) fn no_place() -> StoreError {
    StoreError::new(
        StoreErrorKind::Timeout,
        "all connections are being made, in use, or busy with what was given up",
    )
}

/// Why a connection could not be made.
pub(super) fn from_connecting(error: &PgError, remedy: &str) -> StoreError {
    // The driver does not tell these two kinds otherwise. The configuration was
    // checked when the store was built, so that what is left of the second is a
    // password that the server asks for and the URL lacks.
    if matches!(error.to_string().as_str(), "authentication error" | "invalid configuration") {
        return StoreError::new(StoreErrorKind::Forbidden, chain(error));
    }
    translate(error, remedy)
}

/// Why a statement was not carried out, or a connection not made.
///
/// `remedy` is what the operator is told when the schema is not the needed one.
pub(super) fn translate(error: &PgError, remedy: &str) -> StoreError {
    if let Some(answer) = error.as_db_error() {
        return from_server(answer, remedy);
    }
    let mut sources = std::iter::successors(error.source(), |&e| e.source());
    let kind = if sources.any(<dyn Error>::is::<WrongType>) {
        StoreErrorKind::Schema
    } else {
        // Closed, reset, refused, not resolved, TLS failed, or no PostgreSQL.
        StoreErrorKind::Unreachable
    };
    StoreError::new(kind, chain(error))
}

fn from_server(answer: &DbError, remedy: &str) -> StoreError {
    let state = answer.code().code();
    let kind = kind_of(state, answer.message());
    // The message alone: the server's DETAIL may quote rows.
    let message = format!("{} (SQLSTATE {state})", answer.message());
    let detail = match state {
        "3D000" => format!("{message}; create the database"),
        "53100" => format!("{message}; make room on the disk of the server"),
        "25006" => format!("{message}; name the primary in `store.url`"),
        _ if lacks_what_is_needed(state) => format!("{message}; {remedy}"),
        // It says itself what is wrong.
        _ => message,
    };
    StoreError::new(kind, detail)
}

/// Whether a schema, table, column, function or type is missing, or of another
/// type than the needed one.
fn lacks_what_is_needed(state: &str) -> bool {
    const LACKING: [&str; 8] =
        ["3F000", "42P01", "42703", "42704", "42804", "42809", "42846", "42883"];
    LACKING.contains(&state)
}

/// What an SQLSTATE means to us; the classes are those of appendix A of the
/// manual.
fn kind_of(state: &str, message: &str) -> StoreErrorKind {
    match state {
        // statement_timeout or a cancel request; idle in transaction.
        "57014" | "25P03" => StoreErrorKind::Timeout,
        // lock_timeout.
        "55P03" => StoreErrorKind::Blocked,
        "42501" | "25006" => StoreErrorKind::Forbidden,
        // PgBouncer says 08P01 for everything, so that only the text is left.
        "08P01" if message.starts_with("query_wait_timeout") => StoreErrorKind::Timeout,
        "08P01" if message.starts_with("no more connections allowed") => StoreErrorKind::Saturated,
        // A page or an index that is damaged.
        "XX001" | "XX002" => StoreErrorKind::Unreadable,
        _ => match state.get(..2) {
            // Rolled back by the server: a deadlock, or a standby that had to catch up.
            Some("40") => StoreErrorKind::Timeout,
            Some("53") => StoreErrorKind::Saturated,
            // Who we are, and which role that gives us.
            Some("28" | "0L" | "0P") => StoreErrorKind::Forbidden,
            // The connection; an operator or the server's own trouble.
            Some("08" | "57" | "58" | "F0" | "XX") => StoreErrorKind::Unreachable,
            // A value that cannot be what its column says.
            Some("22") => StoreErrorKind::Unreadable,
            // The server understood and will not: tables, columns, types and
            // functions that are missing, constraints and triggers that are not
            // ours, a table that a publication lets nobody delete from.
            _ => StoreErrorKind::Schema,
        },
    }
}

/// Whether the connection may be used again after `error`.
///
/// Only when the server itself ended the statement in good order. What it says
/// about the session, and not about the statement, ends the connection as well:
/// a protocol error (08), a prepared statement that is gone or no longer fits
/// (0A, 26, 42P05), a transaction in a wrong state or a server that has become
/// read-only (25), so that the next connection may find a better one.
pub(super) fn leaves_connection_whole(error: &PgError) -> bool {
    error.as_db_error().is_some_and(|answer| {
        let state = answer.code().code();
        answer.parsed_severity() == Some(Severity::Error)
            && state != "42P05"
            && !matches!(state.get(..2), Some("08" | "0A" | "25" | "26"))
    })
}

/// The error with all its causes. None of them holds the password.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Whether the server does not listen because it only repeats what another one
/// does: a standby announces nothing.
pub(super) fn is_standby(error: &PgError) -> bool {
    error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

/// A call that the server did not answer in time.
pub(super) fn no_answer(limit: std::time::Duration) -> StoreError {
    let detail = format!("no answer within {}", humantime::format_duration(limit));
    StoreError::new(StoreErrorKind::Timeout, detail)
}

/// A file that could not be read, in words.
pub(super) fn io_reason(error: &io::Error) -> String {
    error.kind().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_sqlstate_has_its_kind() {
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
    fn only_what_a_migration_would_add_has_migrating_for_its_remedy() {
        for state in ["42P01", "42703", "42883", "3F000"] {
            assert!(lacks_what_is_needed(state), "{state}");
        }
        for state in ["55000", "23505", "23514", "P0001", "42501", "57014", "53100", "0A000"] {
            assert!(!lacks_what_is_needed(state), "{state}");
        }
    }

    #[test]
    fn pgbouncers_one_code_is_told_apart_by_its_text() {
        let kind = |message| kind_of("08P01", message);
        assert_eq!(kind("query_wait_timeout"), StoreErrorKind::Timeout);
        assert_eq!(
            kind("no more connections allowed (max_client_conn)"),
            StoreErrorKind::Saturated
        );
        assert_eq!(kind("server_login_retry"), StoreErrorKind::Unreachable);
    }

    #[test]
    fn waiting_for_a_place_is_a_timeout_and_no_connection_is_unreachable() {
        let kind = |timeout| from_pool(PoolError::Timeout(timeout), "").kind();
        assert_eq!(kind(TimeoutType::Wait), StoreErrorKind::Timeout);
        assert_eq!(kind(TimeoutType::Create), StoreErrorKind::Unreachable);
        assert_eq!(from_pool(PoolError::Closed, "").kind(), StoreErrorKind::Unreachable);
    }
}
