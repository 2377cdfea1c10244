//! The schema and its migrations.

use std::{path::Path, sync::Arc};

use refinery::{Migration, Runner, error::Kind};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::{error, lane::Term};
use crate::store::{StoreError, StoreErrorKind};

mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

/// Maximum attempts to migrate. Of two concurrent processes one fails, once, and finds the work
/// done when it retries; further attempts allow for more processes.
const TRIES: usize = 4;

/// Reads the schema, which every statement needs: fails early if the file is unreadable or no
/// database.
pub(super) fn read(db: &Connection) -> rusqlite::Result<()> {
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// Enables write-ahead logging and applies missing migrations. Takes no lock if there is
/// nothing to do, so it does not wait for an import.
pub(super) fn bring_up_to_date(
    db: &mut Connection,
    path: &Path,
    term: &Arc<Term>,
) -> Result<(), StoreError> {
    enable_wal(db, path, term)?;
    // One transaction: all migrations are applied or none.
    let runner = embedded::migrations::runner().set_grouped(true);
    let mut tries_left = TRIES;
    loop {
        if is_up_to_date(db, &runner).map_err(|e| translate(path, &e))? {
            return Ok(());
        }
        db.set_transaction_behavior(TransactionBehavior::Immediate);
        let outcome = runner.run(db);
        db.set_transaction_behavior(TransactionBehavior::Deferred);
        tries_left -= 1;
        match outcome {
            Ok(_) => return Ok(()),
            Err(error) if tries_left == 0 || !may_be_a_lost_race(&error) => {
                return Err(translate(path, &error));
            }
            Err(_) => {}
        }
    }
}

/// Retries, as concurrent attempts to enable it collide without SQLite calling its busy
/// handler.
fn enable_wal(db: &Connection, path: &Path, term: &Arc<Term>) -> Result<(), StoreError> {
    let mut tries = 0;
    let mode: String = loop {
        match db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            Ok(mode) => break mode,
            Err(busy) if error::is_busy(&busy) && term.pause(tries) => tries += 1,
            Err(other) => return Err(error::translate(path, &other)),
        }
    };
    if mode == "wal" {
        return Ok(());
    }
    let detail = format!(
        "{}: SQLite cannot keep a write-ahead log here; use a local file system",
        path.display()
    );
    Err(StoreError::new(StoreErrorKind::Unreachable, detail))
}

fn is_up_to_date(db: &mut Connection, runner: &Runner) -> Result<bool, refinery::Error> {
    let applied = match runner.get_applied_migrations(db) {
        Ok(applied) => applied,
        Err(error) if is_missing_table(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut known: Vec<&Migration> = runner.get_migrations().iter().collect();
    known.sort();
    Ok(known.into_iter().eq(&applied))
}

/// Whether refinery's own table is missing: no migration was ever applied.
fn is_missing_table(error: &refinery::Error) -> bool {
    sqlite_error(error).is_some_and(|e| e.sqlite_error_code() == Some(ErrorCode::Unknown))
}

/// Whether another process may have created the same objects in the meantime.
fn may_be_a_lost_race(error: &refinery::Error) -> bool {
    sqlite_error(error).is_some_and(|e| {
        matches!(
            e.sqlite_error_code(),
            Some(ErrorCode::Unknown | ErrorCode::ConstraintViolation | ErrorCode::SchemaChanged)
        )
    })
}

fn sqlite_error(error: &refinery::Error) -> Option<&rusqlite::Error> {
    match error.kind() {
        Kind::Connection(_, source) => source.downcast_ref(),
        Kind::InvalidName
        | Kind::InvalidVersion
        | Kind::RepeatedVersion(_)
        | Kind::DivergentVersion(..)
        | Kind::MissingVersion(_)
        | Kind::InvalidMigrationPath(..)
        | Kind::ConfigError(_)
        | Kind::InvalidMigrationFile(..) => None,
    }
}

fn translate(path: &Path, error: &refinery::Error) -> StoreError {
    let engine = sqlite_error(error).map(|error| error::translate(path, error));
    if let Some(error) = engine
        && error.kind() != StoreErrorKind::Schema
    {
        return error;
    }
    let path = path.display();
    let detail = match error.kind() {
        Kind::MissingVersion(newer) => format!(
            "{path}: its schema has the step {newer}, which this keystead does not know; use the \
             keystead that wrote it, or a newer one"
        ),
        _ => format!(
            "{path}: its schema is not keystead's: {error}; name another file, or restore this one \
             from a backup"
        ),
    };
    StoreError::new(StoreErrorKind::Schema, detail)
}
