//! One statement: asked, answered or given up.

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
    /// A person waits for it: 30 s at the server. Enough to read a page of
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
/// that we make: some milliseconds.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(3);

/// How long a change waits for a lock. Whoever changes a key holds its row, and
/// the lock on changes, for some milliseconds; a batch of an import for a few
/// tens of them. What takes longer than this does not end by itself.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// After how long a statement of a change is taken to wait for somebody, and how
/// often it is asked who that is.
const LONG: Duration = Duration::from_secs(1);

/// Who is in the way of a session.
const IN_THE_WAY: &str = "\
    SELECT string_agg(keystead.describe_session(pid), '; ') FROM unnest(pg_blocking_pids($1)) AS pid";

/// The triggers that number changes, which otherwise run at commit.
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

    /// Begins a transaction that changes keys. It takes the lock on changes only
    /// with [`Transaction::number`].
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

    /// Waits for a statement of a session. When that takes long, asks over and
    /// over who is in its way, and tells it beside the answer.
    async fn watched<T>(
        &self,
        session: i32,
        asking: impl Future<Output = T>,
    ) -> (T, Option<String>) {
        let mut asking = pin!(asking);
        let mut in_the_way = None;
        loop {
            let looking = async {
                sleep(LONG).await;
                let params = [param(&session, Type::INT4)];
                let rows = self.query(IN_THE_WAY, &params, Pace::Lookup).await.ok()?;
                rows.first().and_then(|row| rows::text(row).ok()?)
            };
            tokio::select! {
                biased;
                answer = &mut asking => return (answer, in_the_way),
                found = looking => in_the_way = found,
            }
        }
    }

    /// Translates an answer, and keeps the connection if there was one.
    fn settle<T>(
        &self,
        connection: &mut Connection,
        answer: Result<Result<T, PgError>, Elapsed>,
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
    /// The server's number for our session.
    session: i32,
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
        let answer = self.store.watched(self.session, timeout(PATIENT_ANSWER, asking)).await;
        self.read(answer)
    }

    /// Numbers the changes that were made in it, under the lock on changes, which
    /// it holds from then on: what follows should be quick, and must lock no row.
    pub(super) async fn number(&mut self) -> Result<(), StoreError> {
        self.run(NUMBER).await.map(drop)
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

    async fn run(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, StoreError> {
        let asking = self.connection.client().simple_query(sql);
        let answer = self.store.watched(self.session, timeout(PATIENT_ANSWER, asking)).await;
        self.read(answer)
    }

    /// Translates an answer, and names who was in the way if that is why there is
    /// none.
    fn read<T>(
        &self,
        (answer, in_the_way): (Result<Result<T, PgError>, Elapsed>, Option<String>),
    ) -> Result<T, StoreError> {
        let error = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(reason)) => error::translate(&reason, &self.store.remedy),
            Err(_) => error::no_answer(PATIENT_ANSWER),
        };
        match (error.kind(), in_the_way) {
            (StoreErrorKind::Blocked | StoreErrorKind::Timeout, Some(who)) => {
                let detail = format!("another session holds a lock that is needed: {who}");
                Err(StoreError::new(StoreErrorKind::Blocked, detail))
            }
            _ => Err(error),
        }
    }
}

/// The number in an answer to `SELECT pg_backend_pid()`.
fn session(answer: &SimpleQueryMessage) -> Option<i32> {
    match answer {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
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
