//! Executing one statement, with time-outs.

use std::{pin::pin, time::Duration};

use deadpool_postgres::ClientWrapper;
use futures::future::join3;
use tokio::time::{error::Elapsed, sleep, timeout};
use tokio_postgres::{
    Client, Error as PgError, Row, SimpleQueryMessage,
    types::{ToSql, Type},
};

use super::{PostgresStore, connections::Connection, error, rows, statement_timeout};
use crate::store::{StoreError, StoreErrorKind, WriteError};

/// A parameter with its type, which saves a round trip to the server.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

pub(super) fn param(value: &(dyn ToSql + Sync), of: Type) -> Param<'_> {
    (value, of)
}

/// Time limit of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Called by a server: the configured query time-out.
    Lookup,
    /// Called by a person: 30 s at the server. Enough to read a page of thousands over a slow
    /// line; short enough not to look hung.
    Patient,
}

/// Server-side limit of [`Pace::Patient`].
const PATIENT_STATEMENT: Duration = Duration::from_secs(30);

/// Client-side limit of [`Pace::Patient`]: a tenth more than the server's.
const PATIENT_ANSWER: Duration = Duration::from_secs(33);

/// Server-side limit of silence between two statements of a transaction, which holds the lock
/// on changes. Only a client that lost its network is silent: one that exits closes its
/// connection. Longer than any pause of ours, which are milliseconds.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(3);

/// Time-out of waiting for a lock. A change holds the row of its key and the lock on changes
/// for milliseconds, an import batch for tens of them. A longer wait does not end by itself.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Delay before a statement of a change counts as blocked, and poll interval for its blockers.
const BLOCKER_POLL: Duration = Duration::from_secs(1);

/// Describes the sessions that block a session.
const BLOCKERS: &str = "\
    SELECT string_agg(keystead.describe_session(pid), '; ') FROM unnest(pg_blocking_pids($1)) AS pid";

/// Fires the triggers that number changes, which otherwise run at commit.
const NUMBER: &str = "\
    SET CONSTRAINTS keystead.number_creation, keystead.number_update, keystead.number_deletion \
    IMMEDIATE";

impl PostgresStore {
    fn server_limit(&self, pace: Pace) -> Duration {
        match pace {
            Pace::Lookup => statement_timeout(self.query_timeout),
            Pace::Patient => PATIENT_STATEMENT,
        }
    }

    fn our_limit(&self, pace: Pace) -> Duration {
        match pace {
            Pace::Lookup => self.query_timeout,
            Pace::Patient => PATIENT_ANSWER,
        }
    }

    /// Runs one statement on a pooled connection.
    pub(super) async fn query(
        &self,
        sql: &str,
        params: &[Param<'_>],
        pace: Pace,
    ) -> Result<Vec<Row>, StoreError> {
        let mut connection = self.connections.get().await?;
        let client = connection.client();
        let request = async {
            // The session's statement time-out is that of lookups.
            if self.prepared_statements && pace == Pace::Lookup {
                prepared(client, sql, params).await
            } else {
                in_a_transaction(client, sql, params, self.server_limit(pace)).await
            }
        };
        let answer = timeout(self.our_limit(pace), request).await;
        self.settle(&mut connection, answer, pace)
    }

    /// Begins a transaction that changes keys. [`Transaction::number`] takes the lock on
    /// changes.
    pub(super) async fn begin(&self) -> Result<Transaction<'_>, StoreError> {
        let connection = self.connections.get().await?;
        let mut transaction = Transaction { store: self, connection, session: 0 };
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}; \
             SET LOCAL idle_in_transaction_session_timeout = {}; SELECT pg_backend_pid()",
            PATIENT_STATEMENT.as_millis(),
            LOCK_WAIT.as_millis(),
            IDLE_IN_TRANSACTION.as_millis()
        );
        let answers = transaction.run(&begin).await?;
        transaction.session = answers.iter().find_map(session).unwrap_or_default();
        Ok(transaction)
    }

    /// Awaits a statement of a session. If it takes long, polls who blocks it and returns the
    /// last finding with the answer.
    async fn with_blockers<T>(
        &self,
        session: i32,
        request: impl Future<Output = T>,
    ) -> (T, Option<String>) {
        let mut request = pin!(request);
        let mut blockers = None;
        loop {
            let looking = async {
                sleep(BLOCKER_POLL).await;
                let params = [param(&session, Type::INT4)];
                let rows = self.query(BLOCKERS, &params, Pace::Lookup).await.ok()?;
                rows.first().and_then(|row| rows::text(row).ok()?)
            };
            tokio::select! {
                biased;
                answer = &mut request => return (answer, blockers),
                found = looking => blockers = found,
            }
        }
    }

    /// Translates an answer, and keeps the connection if it is reusable.
    fn settle<T>(
        &self,
        connection: &mut Connection,
        answer: Result<Result<T, PgError>, Elapsed>,
        pace: Pace,
    ) -> Result<T, StoreError> {
        let answer = answer.map_err(|_| error::no_answer(self.our_limit(pace)))?;
        if answer.as_ref().err().is_none_or(error::connection_is_reusable) {
            connection.settled();
        }
        answer.map_err(|reason| error::translate(&reason, &self.remedy))
    }
}

/// A transaction that changes keys. Dropping it rolls back and closes its connection.
pub(super) struct Transaction<'a> {
    store: &'a PostgresStore,
    connection: Connection,
    /// Backend process id of the session.
    session: i32,
}

impl Transaction<'_> {
    /// Runs a statement.
    pub(super) async fn query(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        // Unnamed, as PgBouncer in transaction mode requires; changes are rare enough to parse
        // their statements each time.
        let request = self.connection.client().query_typed(sql, params);
        let answer = self.store.with_blockers(self.session, timeout(PATIENT_ANSWER, request)).await;
        self.read(answer)
    }

    /// Numbers the changes made so far and keeps the lock on changes until the end: what
    /// follows must be quick and must lock no row.
    pub(super) async fn number(&mut self) -> Result<(), StoreError> {
        self.run(NUMBER).await.map(drop)
    }

    /// Commits. If cancelled, the outcome is unknown.
    pub(super) async fn commit(self) -> Result<(), WriteError> {
        self.end("COMMIT").await.map_err(|error| match error.kind() {
            // No answer, or the session ended.
            StoreErrorKind::Unreachable | StoreErrorKind::Timeout => {
                WriteError::OutcomeUnknown(error)
            }
            StoreErrorKind::Saturated
            | StoreErrorKind::Forbidden
            | StoreErrorKind::Schema
            | StoreErrorKind::Unreadable
            | StoreErrorKind::Lagging
            | StoreErrorKind::Blocked => WriteError::Store(error),
        })
    }

    /// Rolls back and keeps the connection.
    pub(super) async fn roll_back(self) -> Result<(), StoreError> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &str) -> Result<(), StoreError> {
        self.run(how).await?;
        self.connection.settled();
        Ok(())
    }

    async fn run(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, StoreError> {
        let request = self.connection.client().simple_query(sql);
        let answer = self.store.with_blockers(self.session, timeout(PATIENT_ANSWER, request)).await;
        self.read(answer)
    }

    /// Translates an answer. Names the blockers if they are why there is none.
    fn read<T>(
        &self,
        (answer, blockers): (Result<Result<T, PgError>, Elapsed>, Option<String>),
    ) -> Result<T, StoreError> {
        let error = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(reason)) => error::translate(&reason, &self.store.remedy),
            Err(_) => error::no_answer(PATIENT_ANSWER),
        };
        match (error.kind(), blockers) {
            (StoreErrorKind::Blocked | StoreErrorKind::Timeout, Some(who)) => {
                let detail = format!("another session holds a lock that is needed: {who}");
                Err(StoreError::new(StoreErrorKind::Blocked, detail))
            }
            _ => Err(error),
        }
    }
}

/// Parses the answer to `SELECT pg_backend_pid()`.
fn session(answer: &SimpleQueryMessage) -> Option<i32> {
    match answer {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    }
}

/// Runs a statement that is prepared once per connection.
async fn prepared(
    client: &ClientWrapper,
    sql: &str,
    params: &[Param<'_>],
) -> Result<Vec<Row>, PgError> {
    let types: Vec<Type> = params.iter().map(|(_, of)| of.clone()).collect();
    let statement = client.prepare_typed_cached(sql, &types).await?;
    let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
    client.query(&statement, &values).await
}

/// Runs an unnamed statement in a transaction with its own time-out.
///
/// Pipelines all three parts, so it costs one round trip. Awaits all three answers even after
/// an error, so that nothing is pending on the connection afterwards. A failed statement makes
/// the `COMMIT` a rollback.
pub(super) async fn in_a_transaction(
    client: &Client,
    sql: &str,
    params: &[Param<'_>],
    limit: Duration,
) -> Result<Vec<Row>, PgError> {
    let opening = format!("BEGIN; SET LOCAL statement_timeout = {}", limit.as_millis());
    // Sent in the order of the first poll, which is this order.
    let (begun, rows, committed) = join3(
        client.batch_execute(&opening),
        client.query_typed(sql, params),
        client.batch_execute("COMMIT"),
    )
    .await;
    begun?;
    let rows = rows?;
    committed?;
    Ok(rows)
}
