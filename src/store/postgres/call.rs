//! One statement: asked, answered or given up.

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures::future::join3;
use tokio::time::timeout;
use tokio_postgres::{
    Client, Error as PgError, Row,
    types::{ToSql, Type},
};

use super::{PostgresStore, connections::Connection, error, statement_timeout};
use crate::store::{StoreError, StoreErrorKind, WriteError};

/// A parameter with its type, so that the server need not be asked for it.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

pub(super) fn param(value: &(dyn ToSql + Sync), of: Type) -> Param<'_> {
    (value, of)
}

/// How long a statement may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// A server waits for it: the configured query time-out.
    Lookup,
    /// A person waits for it: 30 s at the server. Enough to wait for a long
    /// import of somebody else's to let go of the lock, or to read a page of
    /// thousands over a slow line; short enough that nobody thinks it hangs.
    Patient,
}

/// The server's part of [`Pace::Patient`].
const PATIENT_STATEMENT: Duration = Duration::from_secs(30);

/// How long we wait in [`Pace::Patient`]: a tenth more than the server.
const PATIENT_ANSWER: Duration = Duration::from_secs(33);

/// How long the server keeps a transaction, and with it the lock on changes,
/// whose client has fallen silent between two statements: one that has lost its
/// network, as a client that ends closes its connection. Longer than any pause
/// that we make.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);

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

    /// Runs one statement, with a connection of its own.
    pub(super) async fn query(
        &self,
        sql: &str,
        params: &[Param<'_>],
        pace: Pace,
    ) -> Result<Vec<Row>, StoreError> {
        let mut connection = self.connections.get().await?;
        let client = connection.client();
        let asking = async {
            // The session's statement time-out is the one for lookups.
            if self.prepared_statements && pace == Pace::Lookup {
                prepared(client, sql, params).await
            } else {
                in_a_transaction(client, sql, params, self.server_limit(pace)).await
            }
        };
        let answer = timeout(self.our_limit(pace), asking).await;
        self.settle(&mut connection, answer, pace)
    }

    /// Begins a transaction that changes keys, with the lock on changes: taken
    /// first, before any row is locked, so that two of them cannot wait for each
    /// other.
    pub(super) async fn begin(&self) -> Result<Transaction<'_>, StoreError> {
        let connection = self.connections.get().await?;
        let mut transaction = Transaction { store: self, connection };
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {}; \
             SET LOCAL idle_in_transaction_session_timeout = {}; SELECT keystead.lock_changes()",
            PATIENT_STATEMENT.as_millis(),
            IDLE_IN_TRANSACTION.as_millis()
        );
        transaction.run(&begin).await?;
        Ok(transaction)
    }

    /// Translates an answer, and keeps the connection if there was one.
    fn settle<T>(
        &self,
        connection: &mut Connection,
        answer: Result<Result<T, PgError>, tokio::time::error::Elapsed>,
        pace: Pace,
    ) -> Result<T, StoreError> {
        let answer = answer.map_err(|_| error::no_answer(self.our_limit(pace)))?;
        if answer.as_ref().err().is_none_or(error::leaves_connection_whole) {
            connection.settled();
        }
        answer.map_err(|reason| error::translate(&reason, &self.remedy))
    }
}

/// A transaction that changes keys. Rolled back when dropped, together with its
/// connection.
pub(super) struct Transaction<'a> {
    store: &'a PostgresStore,
    connection: Connection,
}

impl Transaction<'_> {
    /// Runs a statement in it.
    pub(super) async fn query(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        // Unnamed, as PgBouncer in transaction mode wants it; a change of a key
        // is rare enough for its statements to be parsed anew.
        let asking = self.connection.client().query_typed(sql, params);
        let answer = timeout(PATIENT_ANSWER, asking).await;
        answer
            .map_err(|_| error::no_answer(PATIENT_ANSWER))?
            .map_err(|reason| error::translate(&reason, &self.store.remedy))
    }

    /// Makes it last. When this is cancelled, it is not known whether it does.
    pub(super) async fn commit(self) -> Result<(), WriteError> {
        self.end("COMMIT").await.map_err(|error| match error.kind() {
            // No answer, or the last words of a session that ended.
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

    /// Undoes it, and keeps the connection.
    pub(super) async fn roll_back(self) -> Result<(), StoreError> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &str) -> Result<(), StoreError> {
        self.run(how).await?;
        self.connection.settled();
        Ok(())
    }

    async fn run(&mut self, sql: &str) -> Result<(), StoreError> {
        timeout(PATIENT_ANSWER, self.connection.client().batch_execute(sql))
            .await
            .map_err(|_| error::no_answer(PATIENT_ANSWER))?
            .map_err(|reason| error::translate(&reason, &self.store.remedy))
    }
}

/// Runs a statement that is prepared once for each connection.
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

/// Runs an unnamed statement in a transaction that sets its own time-out.
///
/// All three parts are sent at once and answered in turn, so that it costs one
/// round trip. All three answers are awaited even when one is an error, so that
/// nothing is pending on the connection afterwards. A statement that fails makes
/// the `COMMIT` a rollback.
pub(super) async fn in_a_transaction(
    client: &Client,
    sql: &str,
    params: &[Param<'_>],
    limit: Duration,
) -> Result<Vec<Row>, PgError> {
    let opening = format!("BEGIN; SET LOCAL statement_timeout = {}", limit.as_millis());
    // Sent in the order in which they are first polled, which is this order.
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
