//! Schema migrations.

use std::time::Duration;

use refinery::{Report, error::Kind};
use tokio::time::timeout;
use tokio_postgres::{Client, error::SqlState, types::Type};

use super::{PostgresStore, call::param, error, relation::quoted};
use crate::store::{StoreError, StoreErrorKind};

mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

/// Table of applied migrations.
const HISTORY: &str = "keystead.refinery_schema_history";

/// Maximum attempts when others migrate at the same time. The second process fails on what the
/// first created, and finds the work done when it retries. Two would do; the third allows for a
/// third process.
const ATTEMPTS: usize = 3;

/// Time-out of a whole migration. An index on millions of keys takes well under a minute;
/// beyond this, something blocks it.
const TIME_LIMIT: Duration = Duration::from_mins(5);

pub(super) async fn run(store: &PostgresStore) -> Result<Vec<String>, StoreError> {
    let mut attempt = 1;
    loop {
        match run_once(store).await {
            Err(Failure::Overtaken) if attempt < ATTEMPTS => attempt += 1,
            Err(Failure::Overtaken) => {
                let detail = "somebody else is migrating; run `keystead migrate` again";
                return Err(StoreError::new(StoreErrorKind::Schema, detail));
            }
            Err(Failure::Store(error)) => return Err(error),
            Ok(report) => {
                return Ok(report.applied_migrations().iter().map(ToString::to_string).collect());
            }
        }
    }
}

enum Failure {
    /// Another process has just created the same objects.
    Overtaken,
    Store(StoreError),
}

async fn run_once(store: &PostgresStore) -> Result<Report, Failure> {
    // Never settled, so the connection is closed: its statement time-out has changed.
    let mut connection = store.connections.get().await.map_err(Failure::Store)?;
    let work = async {
        let client: &mut Client = connection.client();
        prepare(client, store).await.map_err(|reason| failure(&reason, store))?;
        let mut runner = embedded::migrations::runner();
        runner.set_migration_table_name(HISTORY);
        // One transaction: the schema is either old or new.
        let runner = runner.set_grouped(true);
        runner.run_async(client).await.map_err(|reason| refused(&reason, store))
    };
    let done = timeout(TIME_LIMIT, work).await;
    done.unwrap_or_else(|_| Err(Failure::Store(error::no_answer(TIME_LIMIT))))
}

/// Grants `role` exactly the rights to serve and to manage keys. Of an existing key, only the
/// columns below are updated.
pub(super) async fn grant(store: &PostgresStore, role: &str) -> Result<(), StoreError> {
    // Never settled, as above.
    let mut connection = store.connections.get().await?;
    let client: &Client = connection.client();
    let work = async {
        allow_time(client, store).await?;
        // Compared as text: casting to an identifier truncates long names. `public` would mean
        // every role and is no role itself.
        let exists = "SELECT FROM pg_roles WHERE rolname::text = $1";
        if client.query_typed(exists, &[param(&role, Type::TEXT)]).await?.is_empty() {
            return Ok(false);
        }
        let role = quoted(role);
        // One transaction. Concurrent changes of one table's rights would fail, so the second
        // waits for the lock.
        let grants = format!(
            "LOCK TABLE {HISTORY} IN SHARE UPDATE EXCLUSIVE MODE; \
             GRANT USAGE ON SCHEMA keystead TO {role}; \
             GRANT SELECT ON keystead.api_keys, keystead.key_changes TO {role}; \
             GRANT INSERT, UPDATE (state, expires_at, successor, last_used_at) \
                 ON keystead.api_keys TO {role}; \
             GRANT INSERT ON keystead.audit_log TO {role}; \
             GRANT EXECUTE ON FUNCTION keystead.canary(bytea) TO {role}"
        );
        client.batch_execute(&grants).await.map(|()| true)
    };
    let done = timeout(TIME_LIMIT, work).await.map_err(|_| error::no_answer(TIME_LIMIT))?;
    match done {
        Ok(true) => Ok(()),
        Ok(false) => {
            let detail = format!("there is no role {role:?} to grant rights to; create it first");
            Err(StoreError::new(StoreErrorKind::Forbidden, detail))
        }
        Err(reason) => Err(error::translate(&reason, &store.remedy)),
    }
}

async fn prepare(client: &Client, store: &PostgresStore) -> Result<(), tokio_postgres::Error> {
    allow_time(client, store).await?;
    // Checked first, as `IF NOT EXISTS` requires the right to create even if the schema exists.
    let found = client.query_typed("SELECT to_regnamespace('keystead') IS NOT NULL", &[]).await?;
    let exists = found.first().is_some_and(|row| row.try_get(0).unwrap_or(false));
    if !exists {
        client.batch_execute("CREATE SCHEMA IF NOT EXISTS keystead").await?;
    }
    Ok(())
}

async fn allow_time(client: &Client, store: &PostgresStore) -> Result<(), tokio_postgres::Error> {
    // Behind PgBouncer, the setting would leak to other clients.
    if store.prepared_statements {
        let limit = TIME_LIMIT.as_millis();
        client.batch_execute(&format!("SET statement_timeout = {limit}")).await?;
    }
    Ok(())
}

fn refused(reason: &refinery::Error, store: &PostgresStore) -> Failure {
    match reason.kind() {
        Kind::Connection(_, source) => match source.downcast_ref() {
            Some(reason) => failure(reason, store),
            None => schema(reason),
        },
        // The database has a migration that this version does not know or knows differently.
        _ => schema(reason),
    }
}

fn schema(reason: &refinery::Error) -> Failure {
    let detail =
        format!("{reason}; the database belongs to another version of keystead, use that one");
    Failure::Store(StoreError::new(StoreErrorKind::Schema, detail))
}

fn failure(reason: &tokio_postgres::Error, store: &PostgresStore) -> Failure {
    const MADE_MEANWHILE: [&SqlState; 5] = [
        &SqlState::DUPLICATE_SCHEMA,
        &SqlState::DUPLICATE_TABLE,
        &SqlState::DUPLICATE_OBJECT,
        &SqlState::DUPLICATE_FUNCTION,
        &SqlState::UNIQUE_VIOLATION,
    ];
    if reason.code().is_some_and(|code| MADE_MEANWHILE.contains(&code)) {
        Failure::Overtaken
    } else {
        Failure::Store(error::translate(reason, &store.remedy))
    }
}
